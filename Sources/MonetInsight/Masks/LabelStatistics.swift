import MonetCompute
import MonetModel

/// Mean scores of a model's units (experts of a Monet, neurons of a dense model) by label, kept in memory.
public struct LabelStatistics: Sendable {
    /// The labels, of the documents' first set.
    public let labels: [String]
    /// The units.
    public let units: UnitLayout
    /// Mean score by group, unit and label, `[group][unit · labels + label]`.
    public let means: [[Double]]

    /// Reads labelled documents.
    ///
    /// - `progress`: called with the tokens so far; false stops.
    /// - Throws: `InsightError.noLabels`, `ModelError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        guard let set = documents.labelSets.first, set.labels.count > 1 else {
            throw InsightError.noLabels(origin: documents.origin)
        }
        let (units, labelCount) = (model.units, set.labels.count)
        var sums = Array(
            repeating: Array(repeating: 0.0, count: units.unitsPerGroup * labelCount), count: units.groups)
        var counts = Array(repeating: 0, count: labelCount)
        var tokens = 0
        let reader = DocumentReader(model: model, backend: backend)
        try reader.forEachBatch(of: documents) { batch in
            for group in batch.output.groups {
                var scores = group.reader()
                var row = 0
                for piece in batch.pieces {
                    let label = documents.labels(piece.document)[0]
                    for _ in piece.tokens {
                        if label >= 0 {
                            scores.visit(row) { unit, score in
                                sums[group.group][unit * labelCount + label] += Double(score)
                            }
                        }
                        row += 1
                    }
                }
            }
            for piece in batch.pieces {
                let label = documents.labels(piece.document)[0]
                if label >= 0 { counts[label] += piece.tokens.count }
            }
            tokens += batch.tokenCount
            return progress(tokens)
        }
        labels = set.labels
        self.units = units
        means = sums.map { group in
            group.enumerated().map { $1 / Double(max(1, counts[$0 % labelCount])) }
        }
    }

    /// A mask that removes the units whose mean on a label is at least `ratio` times that on the next label.
    public func specialists(of label: Int, ratio: Double) -> UnitMask {
        mask(ranked(label: label).filter { $0.ratio >= ratio })
    }

    /// A mask that removes the `count` units with the largest ratio for a label.
    public func strongest(of label: Int, count: Int) -> UnitMask {
        mask(
            ranked(label: label).sorted { ($1.ratio, $0.group, $0.unit) < ($0.ratio, $1.group, $1.unit) }
                .prefix(count))
    }

    private func mask(_ entries: some Sequence<(group: Int, unit: Int, ratio: Double)>) -> UnitMask {
        var mask = UnitMask(units)
        for (group, entries) in Dictionary(grouping: entries, by: \.group) {
            mask.remove(entries.map(\.unit), group: group)
        }
        return mask
    }

    /// Units that are strongest on a label, with the ratio to the next.
    private func ranked(label: Int) -> [(group: Int, unit: Int, ratio: Double)] {
        means.enumerated().flatMap { group, values in
            (0..<units.unitsPerGroup).compactMap { unit in
                let own = Array(values[(unit * labels.count)..<((unit + 1) * labels.count)])
                guard let specialty = LabelSpecialty(means: own), specialty.label == label else { return nil }
                return (group, unit, specialty.ratio)
            }
        }
    }
}
