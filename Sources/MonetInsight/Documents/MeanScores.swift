import MonetCompute
import MonetModel

/// Mean scores, over a text's tokens, of the units that it fires.
public struct MeanScores: Sendable {
    /// The means, for all groups.
    public let byUnit: [UnitID: Double]

    /// Runs the model over `ids`.
    ///
    /// - Throws: `InsightError.invalidSetting`, `ModelError`.
    public init(of ids: [Int32], model: MonetLanguageModel, backend: any Backend = CPUBackend()) throws {
        guard !ids.isEmpty else {
            throw InsightError.invalidSetting(name: "the text", found: "empty", expected: "one token or more")
        }
        var sums: [UnitID: Double] = [:]
        let reader = DocumentReader(model: model, backend: backend)
        try reader.forEachBatch(of: LabelledDocuments(tokens: [ids], origin: "the text")) { batch in
            for units in batch.output.groups {
                var scores = units.reader()
                for row in 0..<batch.tokenCount {
                    scores.visit(row) { index, score in
                        sums[UnitID(group: units.group, index: index), default: 0] += Double(score)
                    }
                }
            }
            return true
        }
        byUnit = sums.mapValues { $0 / Double(ids.count) }
    }
}
