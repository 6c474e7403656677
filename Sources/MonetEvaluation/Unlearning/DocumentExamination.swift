import Foundation
import MonetFoundation

/// What a model knows of documents that it should forget, and of documents that it should keep.
///
/// Beside the loss, what reviewers of unlearning ask for: whether the model still writes the documents in its own words,
/// what happens where both kinds meet in one text, and whether other experts are selected than before.
public struct DocumentExamination: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// Tokens of a document that are given, and tokens that are written after them.
        public var promptTokens = 32
        public var newTokens = 32
        /// Tokens of the other kind before a document, in queries that mix both.
        public var mixedTokens = 48

        /// Thirty-two tokens after thirty-two.
        public init() {}
    }

    /// The documents' tokens, begin tokens included, in pieces that fit into a context.
    public struct Documents: Sendable {
        public let forget: [[Int32]]
        public let retain: [[Int32]]

        /// Divides documents into pieces of at most `length` tokens; pieces of fewer than two are left out.
        ///
        /// - Throws: `EvaluationError.invalidSetting` if none of either kind is left.
        public init(forget: [[Int32]], retain: [[Int32]], length: Int) throws {
            func pieces(_ documents: [[Int32]]) -> [[Int32]] {
                documents.flatMap { document in
                    stride(from: 0, to: document.count, by: max(2, length)).map {
                        Array(document[$0..<min(document.count, $0 + max(2, length))])
                    }
                }.filter { $0.count > 1 }
            }
            self.forget = pieces(forget)
            self.retain = pieces(retain)
            for (name, list) in [("forget", self.forget), ("retain", self.retain)] where list.isEmpty {
                throw EvaluationError.invalidSetting(
                    name: "the number of documents to \(name)", found: "0", expected: "one or more")
            }
        }

        /// What the progress counts: documents read or written.
        public var count: Int { 4 * (forget.count + retain.count) }
    }

    /// All measures, in a fixed order.
    public let measures: [UnlearningMeasure]

    /// Measures one model.
    ///
    /// - `before`: the model before it was changed, for the stability of its routing.
    /// - `progress`: called with the documents that are done; false stops.
    /// - Throws: `CancellationError` if stopped, `EvaluationError`, `ModelError`.
    public init(
        _ documents: Documents, _ plan: Plan, of subject: UnlearningSubject, before: UnlearningSubject?,
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        var done = 0
        func step() throws { if !progress(done) { throw CancellationError() } }
        let context = subject.contextLength
        let promptTokens = min(max(1, plan.promptTokens), max(1, context - 1))
        let begin = subject.tokenizer.beginID
        var measures: [UnlearningMeasure] = []
        for (name, other, own, strange) in [
            ("forget", "retain", documents.forget, documents.retain),
            ("retain", "forget", documents.retain, documents.forget),
        ] {
            let windows = own.map { Array($0.prefix(context)) }
            let alone = try subject.likelihoods(
                of: windows.map { .init(tokens: $0, first: 1) }, step: step)
            done += own.count
            measures += [
                .init("\(name): loss", SampleMean(alone.map(\.loss))),
                .init("\(name): cloze accuracy", SampleMean(alone.map(\.exactMemorization))),
            ]
            let long = own.filter { $0.count > promptTokens }
            let texts = try subject.continuations(
                of: long.map { Array($0.prefix(promptTokens)) },
                newTokens: min(plan.newTokens, max(1, context - promptTokens)), step: step)
            done += own.count
            measures.append(
                .init(
                    "\(name): ROUGE-L of continuations",
                    SampleMean(
                        try zip(long, texts).map { document, text in
                            let rest = document.dropFirst(promptTokens).prefix(plan.newTokens)
                            return RougeL(
                                reference: try subject.tokenizer.decode(Array(rest)), candidate: text,
                                stems: false
                            ).fMeasure
                        })))
            // Each document after the beginning of one of the other kind, in one text.
            let mixed = own.enumerated().map { place, document in
                let before = strange[place % strange.count].prefix(
                    min(max(1, plan.mixedTokens), max(1, context / 2)))
                let own = document.first == begin ? document.dropFirst() : document[...]
                let tokens = Array((before + own).prefix(context))
                return ContinuationScorer.Query(tokens: tokens, first: before.count)
            }.filter { $0.first < $0.tokens.count }
            let after = try subject.likelihoods(of: mixed, step: step)
            done += own.count
            measures.append(.init("\(name) after \(other): loss", SampleMean(after.map(\.loss))))
        }
        for (name, own) in [("forget", documents.forget), ("retain", documents.retain)] {
            let stability = try before.flatMap {
                try RoutingStability(
                    of: own.map { Array($0.prefix(context)) }, before: $0, after: subject, step: step)
            }
            done += own.count
            measures.append(.init("\(name): routing stability", stability?.mean ?? .nan))
        }
        self.measures = measures
    }

    /// What the numbers of a page mean.
    public static let definitions = [
        "Loss: mean −log p of a document's tokens, nats; cloze accuracy: the share of tokens that are the most likely ones; "
            + "means over documents, ± the standard error. ROUGE-L of continuations: of greedy continuations of a "
            + "document's beginning and how it goes on, F, without stems.",
        "Forget after retain: documents to be forgotten after the beginning of one to be kept, in one text, and the other "
            + "way round: whether what remains still works where both meet.",
        "Routing stability: the share of the experts that each head and side of a router selected before and still selects, "
            + "mean over tokens and routers. Removed experts count as selected.",
    ]
}
