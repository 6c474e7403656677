import Foundation
import MonetFoundation

/// The measures of MUSE (Shi et al. 2024): memory of the words, memory of the facts, and whether membership shows.
public struct MUSEEvaluation: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// The corpus, `News` or `Books`.
        public var corpus = "News"
        /// Texts and questions of each kind, the first ones.
        public var limit: Int?

        /// All of the news.
        public init() {}

        /// The name of the data on the hub.
        public var dataset: String { "muse-bench/MUSE-\(corpus)" }
    }

    /// Texts and questions.
    public struct Data: Sendable {
        struct Question {
            let question: String
            let answer: String
        }

        let verbatim: [(prompt: String, rest: String)]
        /// Forget and retain, with the examples before each question.
        let knowledge: [(questions: [Question], prefix: String)]
        /// Texts that are to be forgotten, and texts that no model saw.
        let members: [String]
        let others: [String]

        /// What the progress counts: texts read or written.
        public var count: Int {
            verbatim.count + knowledge.reduce(0) { $0 + $1.questions.count } + members.count + others.count
        }

        /// Texts to forget and to keep, to find what fires on them.
        public let labelled: (forget: [String], retain: [String])

        /// Reads the files of the hub.
        ///
        /// - Throws: `TaskError` for files and keys that are missing.
        public init(_ folder: DatasetFolder, _ plan: Plan) throws {
            func rows(_ configuration: String, _ split: String) throws -> UnlearningRows {
                try UnlearningRows(
                    folder, dataset: plan.dataset, configuration: configuration, split: split)
            }
            func texts(_ configuration: String, _ split: String) throws -> [String] {
                let rows = try rows(configuration, split)
                return try rows.prefix(plan.limit).map { try rows.text("text", in: $0) }
            }
            func questions(_ split: String, limit: Int?) throws -> [Question] {
                let rows = try rows("knowmem", split)
                return try rows.prefix(limit).map {
                    Question(
                        question: try rows.text("question", in: $0), answer: try rows.text("answer", in: $0))
                }
            }
            let passages = try rows("verbmem", "forget")
            verbatim = try passages.prefix(plan.limit).map {
                (try passages.text("prompt", in: $0), try passages.text("gt", in: $0))
            }
            knowledge = try ["forget_qa", "retain_qa"].map { split in
                let examples = try questions(split + "_icl", limit: nil)
                return (
                    try questions(split, limit: plan.limit),
                    examples.map { "Question: \($0.question)\nAnswer: \($0.answer)\n\n" }.joined()
                )
            }
            members = try texts("privleak", "forget")
            others = try texts("privleak", "holdout")
            labelled = (members, try texts("privleak", "retain"))
        }
    }

    /// ROUGE-L F of the continuations of passages to forget, in percent.
    public let verbatim: SampleMean
    /// ROUGE-L F of the answers on what is to be forgotten and kept, in percent.
    public let forgetKnowledge: SampleMean
    public let retainKnowledge: SampleMean
    /// The chance that a text to forget looks less like one that the model saw than a text that no model saw does.
    public let membershipArea: Double

    /// Measures one model.
    ///
    /// - `progress`: called with the texts that are done; false stops.
    /// - Throws: `CancellationError` if stopped, `EvaluationError`, `ModelError`, `TextError`.
    public init(
        _ data: Data, of subject: UnlearningSubject, progress: (Int) -> Bool = { _ in true }
    ) throws {
        var done = 0
        func step() throws { if !progress(done) { throw CancellationError() } }
        let passages = try subject.continuations(
            of: data.verbatim.map(\.prompt), newTokens: 128, step: step)
        done += passages.count
        verbatim =
            SampleMean(
                try zip(data.verbatim, passages).map { own, text in
                    RougeL(
                        reference: try subject.beginning(of: own.rest, tokens: 128), candidate: text,
                        stems: false
                    )
                    .fMeasure
                }) * 100
        let scores = try data.knowledge.map { questions, prefix in
            let texts = try subject.continuations(
                of: questions.map { prefix + "Question: \($0.question)\nAnswer: " }, newTokens: 32,
                stops: ["\n\n", "\nQuestion", "Question:"], step: step)
            done += texts.count
            return SampleMean(
                zip(questions, texts).map {
                    RougeL(reference: $0.answer, candidate: $1, stems: false).fMeasure
                }) * 100
        }
        (forgetKnowledge, retainKnowledge) = (scores[0], scores[1])
        func losses(_ texts: [String]) throws -> [Double] {
            let windows = try texts.compactMap { try subject.window($0) }
            defer { done += texts.count }
            return try subject.likelihoods(of: windows, step: step).map { $0.leastLikelyLoss(share: 0.4) }
        }
        membershipArea = Self.area(members: try losses(data.members), others: try losses(data.others))
    }

    /// The share of pairs in which the other text has the smaller loss, ties counted as halves; NaN without pairs.
    package static func area(members: [Double], others: [Double]) -> Double {
        var sum = 0.0
        for member in members {
            for other in others { sum += other < member ? 1 : other == member ? 0.5 : 0 }
        }
        return sum / Double(members.count * others.count)
    }

    /// How far membership shows compared with a model that never saw the texts, in percent: 0 is ideal, negative
    /// means that they are still known, positive that they are conspicuously unknown.
    public func privacyLeakage(referenceArea: Double) -> Double {
        (membershipArea - referenceArea) / referenceArea * 100
    }

    /// All measures, in a fixed order.
    ///
    /// - `reference`: the same of a model that never saw what is to be forgotten.
    public func measures(reference: MUSEEvaluation? = nil) -> [UnlearningMeasure] {
        var measures: [UnlearningMeasure] = [
            .init("VerbMem (forget)", verbatim), .init("KnowMem (forget)", forgetKnowledge),
            .init("KnowMem (retain)", retainKnowledge), .init("AUC (Min-40%)", membershipArea),
        ]
        if let reference {
            measures.append(.init("PrivLeak", privacyLeakage(referenceArea: reference.membershipArea)))
        }
        return measures
    }

    /// What the numbers of a page mean.
    public static let definitions = [
        "VerbMem: ROUGE-L F of 128 greedy tokens after the beginning of a passage that is to be forgotten, against how it "
            + "goes on. KnowMem: ROUGE-L F of greedy answers of up to 32 tokens to questions, after the examples of the "
            + "data. Both in percent, without stems.",
        "AUC (Min-40%): the chance that a text to be forgotten has a larger mean −log p over its 40% least likely tokens "
            + "than one that no model saw; near 0, the texts are known by heart. PrivLeak: its difference to that of the "
            + "reference, a model that never saw them, in percent of the latter; 0 is ideal.",
    ]
}
