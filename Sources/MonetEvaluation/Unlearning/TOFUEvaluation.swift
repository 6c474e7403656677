import Foundation
import MonetFoundation

/// The measures of TOFU (Maini et al. 2024) as OpenUnlearning computes them.
///
/// Prompts are those of base models, answers end with the end token, and generations are greedy. The truth ratio is the
/// geometric mean of the wrong answers' probabilities over the probability of the right one, each per token.
public struct TOFUEvaluation: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// The authors to forget: `forget01`, `forget05` or `forget10`.
        public var forget = "forget10"
        /// Questions of each set, the first ones.
        public var limit: Int?
        /// The most tokens of a generated answer.
        public var maxNewTokens = 200

        /// A tenth of the authors, all questions.
        public init() {}
    }

    /// One set of questions.
    struct PartScores: Sendable {
        /// Probability per token of the right answer; among real ones, its share of the choices' probabilities.
        let probability: SampleMean
        /// ROUGE-L recall of generated answers.
        let rouge: SampleMean
        /// What the truth ratios come to: min(R, 1/R) of what is to be forgotten, max(0, 1 − R) of the rest.
        let truth: SampleMean
        /// The truth ratios.
        let ratios: [Double]
        let memorization: SampleMean
        let extraction: SampleMean
    }

    let parts: [TOFUData.Part: PartScores]

    /// Questions for examination.
    public struct Data: Sendable {
        let questions: [TOFUData.Part: [TOFUData.Question]]
        /// What the progress counts: answers read or written.
        public var count: Int {
            questions.values.joined().reduce(0) { $0 + 3 + $1.perturbed.count }
        }

        /// Texts of the authors to forget and of those to keep, to find what fires on them.
        public var labelled: (forget: [String], retain: [String]) {
            func texts(_ part: TOFUData.Part) -> [String] {
                (questions[part] ?? []).map { $0.prompt + $0.answer }
            }
            return (texts(.forget), texts(.retain))
        }

        /// Reads the files of the hub.
        ///
        /// - Throws: `TaskError` for files and keys that are missing.
        public init(_ folder: DatasetFolder, _ plan: Plan) throws {
            questions = try TOFUData(folder, forget: plan.forget, limit: plan.limit).questions
        }
    }

    /// Measures one model.
    ///
    /// - `progress`: called with the answers that are done; false stops.
    /// - Throws: `CancellationError` if stopped, `EvaluationError`, `ModelError`, `TextError`.
    public init(
        _ data: Data, _ plan: Plan, of subject: UnlearningSubject, progress: (Int) -> Bool = { _ in true }
    ) throws {
        var done = 0
        func step() throws { if !progress(done) { throw CancellationError() } }
        var parts: [TOFUData.Part: PartScores] = [:]
        for part in TOFUData.Part.allCases {
            let questions = data.questions[part] ?? []
            func read(_ texts: [(prompt: String, text: String)]) throws -> [AnswerLikelihood] {
                defer { done += texts.count }
                return try subject.likelihoods(of: texts, addsEnd: true, step: step)
            }
            let right = try read(questions.map { ($0.prompt, $0.answer) })
            let other = try read(questions.map { ($0.prompt, $0.paraphrased) })
            var rest = try read(questions.flatMap { own in own.perturbed.map { (own.prompt, $0) } })[...]
            let wrong = questions.map { question in
                defer { rest = rest.dropFirst(question.perturbed.count) }
                return Array(rest.prefix(question.perturbed.count))
            }
            let texts = try subject.continuations(
                of: questions.map(\.prompt), newTokens: plan.maxNewTokens, step: step)
            done += texts.count
            let ratios = zip(other, wrong).map { Self.truthRatio(right: $0, wrong: $1) }
            // Whether a model ends an answer there says nothing of what it knows.
            let bare = subject.hasEnd ? right.map { $0.dropLast() } : right
            let isReal = part == .realAuthors || part == .worldFacts
            parts[part] = PartScores(
                probability: SampleMean(
                    zip(right, wrong).map { right, wrong in
                        isReal
                            ? right.probability
                                / (right.probability + wrong.reduce(0) { $0 + $1.probability })
                            : right.probability
                    }),
                rouge: SampleMean(
                    zip(questions, texts).map {
                        RougeL(reference: $0.answer, candidate: $1, stems: true).recall
                    }),
                truth: SampleMean(ratios.map { part == .forget ? min($0, 1 / $0) : max(0, 1 - $0) }),
                ratios: ratios,
                memorization: SampleMean(bare.map(\.exactMemorization)),
                extraction: SampleMean(bare.map(\.extractionStrength)))
        }
        self.parts = parts
    }

    /// The geometric mean of the wrong answers' probabilities over the right answer's.
    package static func truthRatio(right: AnswerLikelihood, wrong: [AnswerLikelihood]) -> Double {
        exp(right.loss - wrong.reduce(0) { $0 + $1.loss } / Double(max(1, wrong.count)))
    }

    /// The harmonic mean of probability, ROUGE and truth ratio on all sets that are to be kept; 0 if one of these
    /// is 0.
    public var modelUtility: Double {
        let values = [TOFUData.Part.retain, .realAuthors, .worldFacts].compactMap { parts[$0] }
            .flatMap { [$0.probability.mean, $0.rouge.mean, $0.truth.mean] }
        return values.contains { $0 <= 0 } ? 0 : Double(values.count) / values.reduce(0) { $0 + 1 / $1 }
    }

    /// Whether the truth ratios of what is forgotten are those of a model that never saw it: the p-value of a
    /// Kolmogorov–Smirnov test. Higher is better; 1 means no difference.
    public func forgetQuality(reference: TOFUEvaluation) -> Double? {
        KolmogorovSmirnovTest(parts[.forget]?.ratios ?? [], reference.parts[.forget]?.ratios ?? [])?.pValue
    }

    /// All measures, in a fixed order.
    ///
    /// - `reference`: the same of a model that never saw what is to be forgotten.
    public func measures(reference: TOFUEvaluation? = nil) -> [UnlearningMeasure] {
        var measures: [UnlearningMeasure] = []
        if let reference {
            measures.append(.init("forget quality (p)", forgetQuality(reference: reference) ?? .nan))
        }
        measures.append(.init("model utility", modelUtility))
        for part in TOFUData.Part.allCases {
            guard let scores = parts[part] else { continue }
            measures += [
                .init("\(part.rawValue): probability", scores.probability),
                .init("\(part.rawValue): ROUGE-L recall", scores.rouge),
                .init("\(part.rawValue): truth ratio", scores.truth),
            ]
            if part == .forget {
                measures += [
                    .init("forget: exact memorization", scores.memorization),
                    .init("forget: extraction strength", scores.extraction),
                ]
            }
        }
        return measures
    }

    /// What the numbers of a page mean.
    public static let definitions = [
        "Probability: exp of the mean log p of an answer's tokens, with the end token; for real authors and world facts, "
            + "its share of the sum over the choices. ROUGE-L recall: the longest common subsequence of words of the "
            + "greedy answer and the right one, over the right one's words, with stems.",
        "Truth ratio R: the geometric mean of the wrong answers' probabilities over that of the right answer in other "
            + "words. Shown is the mean of min(R, 1/R) for what is to be forgotten, where 1 means that the model does not "
            + "tell right from wrong, and of max(0, 1 − R) for the rest.",
        "Model utility: the harmonic mean of the nine numbers of what is to be kept. Forget quality: the p-value of a "
            + "Kolmogorov–Smirnov test between the truth ratios of this model and those of the reference, which never saw "
            + "the authors to be forgotten.",
        "Exact memorization: the share of the answer's tokens that are the most likely ones. Extraction strength: the "
            + "share of an answer at its end that the model completes from the beginning alone.",
    ]
}
