import Foundation
import MonetCompute
import MonetInsight
import MonetModel

/// How well a model predicts texts: mean loss, and the share of tokens that it would have filled in.
public struct HeldOutScore: Sendable, Equatable {
    /// Tokens predicted.
    public var tokens = 0
    /// Sum of −log p over them.
    public var negativeLogLikelihood = 0.0
    /// Tokens that were the most likely ones.
    public var hits = 0

    /// Mean −log p, nats.
    public var loss: Double { tokens > 0 ? negativeLogLikelihood / Double(tokens) : .nan }
    /// Cloze accuracy: the share of tokens that are the most likely one given what precedes them.
    public var accuracy: Double { tokens > 0 ? Double(hits) / Double(tokens) : .nan }

    /// No tokens.
    public init() {}

    /// Both together.
    public static func + (a: HeldOutScore, b: HeldOutScore) -> HeldOutScore {
        var result = a
        result.tokens += b.tokens
        result.negativeLogLikelihood += b.negativeLogLikelihood
        result.hits += b.hits
        return result
    }
}

/// What is changed about a model while it is measured.
public enum ModelEdit: Sendable {
    case none
    /// Experts removed, weakened or amplified.
    case experts(ExpertMask)
    /// A dense model's hidden units set to zero, by layer.
    case neurons([Int: [Int]])
}

/// Scores documents by label.
public struct HeldOutScorer {
    private let model: MonetLanguageModel
    private let backend: any Backend

    /// Joins a model and a backend.
    public init(model: MonetLanguageModel, backend: any Backend) {
        self.model = model
        self.backend = backend
    }

    /// The score of every label of the documents' first set.
    ///
    /// - Parameter progress: called with the tokens of each batch; false stops.
    public func scores(
        _ documents: LabelledDocuments, edit: ModelEdit = .none, progress: (Int) -> Bool = { _ in true }
    ) throws -> [HeldOutScore] {
        guard let set = documents.labelSets.first else {
            throw InsightError.noLabels(origin: documents.origin)
        }
        var scores = Array(repeating: HeldOutScore(), count: set.labels.count)
        let reader = DocumentReader(model: model, backend: backend) { context in
            switch edit {
            case .none: break
            case .experts(let mask): context.mask = model.withOwnMask(mask)
            case .neurons(let removed): context.removedNeurons = removed
            }
        }
        try reader.forEachBatch(of: documents) { batch in
            // The last token of a piece predicts nothing that is at hand.
            let targets = batch.pieces.flatMap { $0.tokens.dropFirst() + [-1] }
            let hidden = batch.output.hidden
            let context = ForwardContext(inferenceOn: backend)
            let losses = try model.crossEntropy(hidden, targets: targets, scale: 1, context)
            let best = try mostLikely(hidden.value)
            var row = 0
            for piece in batch.pieces {
                let label = documents.labels(piece.document)[0]
                for place in row..<(row + piece.tokens.count) where label >= 0 && targets[place] >= 0 {
                    scores[label].tokens += 1
                    scores[label].negativeLogLikelihood += Double(losses[place])
                    scores[label].hits += best[place] == targets[place] ? 1 : 0
                }
                row += piece.tokens.count
            }
            return progress(batch.tokenCount)
        }
        return scores
    }

    /// The most likely next token of every row.
    private func mostLikely(_ hidden: Tensor) throws -> [Int32] {
        let logits = try model.logits(hidden, on: backend)
        let width = logits.columnCount
        return (0..<logits.rowCount).map { row in
            let line = logits.pointer + row * width
            var best = 0
            for id in 1..<max(1, width) where line[id] > line[best] { best = id }
            return Int32(best)
        }
    }
}
