import MonetCompute
import MonetModel

/// Mean routing scores of the experts that a text fires, over its tokens.
public struct MeanScores: Sendable {
    /// The means, of all groups.
    public let byExpert: [ExpertID: Double]

    /// Runs the model over `ids`.
    ///
    /// - Throws: `InsightError.noExperts`, `ModelError`.
    public init(of ids: [Int32], model: MonetLanguageModel, backend: any Backend) throws {
        let c = model.configuration
        guard c.feedForward != .dense else { throw InsightError.noExperts }
        guard !ids.isEmpty else {
            throw InsightError.invalidSetting(name: "the text", found: "empty", expected: "one token or more")
        }
        let reader = DocumentReader(model: model, backend: backend)
        var scores = PairScores(heads: c.routingHeads, experts: c.expertsPerSide)
        var sums: [ExpertID: Double] = [:]
        try reader.forEachBatch(of: LabelledDocuments(tokens: [ids], origin: "the text")) { batch in
            for (group, side) in batch.sides.enumerated() {
                for row in 0..<batch.tokenCount {
                    scores.read(row, left: side.left.pointer, right: side.right.pointer)
                    for index in scores.indices {
                        sums[ExpertID(group: group, index: index), default: 0] += Double(scores[index])
                    }
                }
            }
            return true
        }
        byExpert = sums.mapValues { $0 / Double(ids.count) }
    }
}
