import Foundation
import MonetCompute
import MonetInsight
import MonetModel

/// How well a model predicts texts: mean loss and next-token accuracy.
public struct HeldOutScore: Sendable, Equatable {
    /// Tokens predicted.
    public var tokens = 0
    /// Sum of −log p over them.
    public var negativeLogLikelihood = 0.0
    /// Tokens that the model ranked as the most likely.
    public var hits = 0

    /// exp of the loss.
    public var perplexity: Double { exp(loss) }
    /// Mean −log p, nats.
    public var loss: Double { tokens > 0 ? negativeLogLikelihood / Double(tokens) : .nan }
    /// Next-token accuracy, also called cloze accuracy: the share of tokens that the model ranks as the most
    /// likely given the preceding ones.
    public var accuracy: Double { tokens > 0 ? Double(hits) / Double(tokens) : .nan }

    /// No tokens.
    public init() {}

    /// The score of both sets of tokens together.
    public static func + (a: HeldOutScore, b: HeldOutScore) -> HeldOutScore {
        var result = a
        result.tokens += b.tokens
        result.negativeLogLikelihood += b.negativeLogLikelihood
        result.hits += b.hits
        return result
    }
}

/// Scores documents by label.
public struct HeldOutScorer {
    private let model: MonetLanguageModel
    private let backend: any Backend

    /// Joins a model and a backend.
    public init(model: MonetLanguageModel, backend: any Backend = CPUBackend()) {
        self.model = model
        self.backend = backend
    }

    /// The score of every label of the documents' first set.
    ///
    /// - `progress`: called with the tokens of each batch; false stops.
    public func scores(
        _ documents: LabelledDocuments, mask: UnitMask? = nil, progress: (Int) -> Bool = { _ in true }
    ) throws -> [HeldOutScore] {
        guard let set = documents.labelSets.first else {
            throw InsightError.noLabels(origin: documents.origin)
        }
        var scores = Array(repeating: HeldOutScore(), count: set.labels.count)
        try forEachDocument(documents, mask: mask, progress: progress) { document, score in
            let label = documents.labels(document)[0]
            if label >= 0 { scores[label] = scores[label] + score }
        }
        return scores
    }

    /// The score of all documents together.
    ///
    /// - `steering`: positions are those of a window.
    /// - `progress`: called with the tokens of each batch; false stops.
    public func total(
        _ documents: LabelledDocuments, mask: UnitMask? = nil, steering: Steering? = nil,
        progress: (Int) -> Bool = { _ in true }
    ) throws -> HeldOutScore {
        var total = HeldOutScore()
        try forEachDocument(documents, mask: mask, steering: steering, progress: progress) {
            total = total + $1
        }
        return total
    }

    /// Passes the score of every piece of a document to `body`.
    private func forEachDocument(
        _ documents: LabelledDocuments, mask: UnitMask?, steering: Steering? = nil, progress: (Int) -> Bool,
        _ body: (Int, HeldOutScore) -> Void
    ) throws {
        let reader = DocumentReader(
            model: model, backend: backend, mask: mask, steering: steering, keepsUnits: false)
        try reader.forEachBatch(of: documents) { batch in
            // The last token of a piece has no target.
            let targets = batch.pieces.flatMap { $0.tokens.dropFirst() + [-1] }
            let losses = try model.crossEntropy(batch.output, targets: targets).floats()
            let logits = try model.logits(batch.output.hidden.value, on: backend)
            let best = try backend.largestColumns(logits).integers()
            var row = 0
            for piece in batch.pieces {
                var score = HeldOutScore()
                for place in row..<(row + piece.tokens.count) where targets[place] >= 0 {
                    score.tokens += 1
                    score.negativeLogLikelihood += Double(losses[place])
                    score.hits += best[place] == Int(targets[place]) ? 1 : 0
                }
                body(piece.document, score)
                row += piece.tokens.count
            }
            return progress(batch.tokenCount)
        }
    }
}
