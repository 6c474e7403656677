import MonetCompute
import MonetFoundation
import MonetModel

/// Mean scores of a model's units (experts of a Monet, neurons of a dense model) by label, kept in memory.
public struct LabelStatistics: Sendable {
    /// The labels, of the documents' first set.
    public let labels: [String]
    /// The units.
    public let units: UnitLayout
    /// Mean score by group, unit and label, `[group][unit · labels + label]`.
    public let means: [[Double]]
    /// The number of labelled tokens that each unit fires on.
    public let firingCounts: FiringCounts

    /// Reads labelled documents.
    ///
    /// - `progress`: called with the tokens so far; false stops.
    /// - Throws: `InsightError.noLabels`, `ModelError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        let set = try documents.requireLabels()
        let (units, labelCount) = (model.units, set.labels.count)
        try MemoryLimits.require(
            MemoryLimits.product(units.count, 8 * labelCount + 4),
            for: "the statistics of \(units.count.grouped) \(units.kind.rawValue) on \(labelCount) labels")
        var sums = Array(
            repeating: Array(repeating: 0.0, count: units.unitsPerGroup * labelCount), count: units.groups)
        var counts = Array(repeating: 0, count: labelCount)
        var firings = Array(
            repeating: [UInt32](repeating: 0, count: units.unitsPerGroup), count: units.groups)
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
                                firings[group.group][unit] += 1
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
        firingCounts = FiringCounts(units: units, counts: firings, tokens: counts.reduce(0, +))
    }

    /// A mask that removes the specialists of a label.
    public func specialists(
        of label: Int, _ criterion: SpecialistCriterion = SpecialistCriterion()
    ) -> UnitMask {
        mask(ranked(label: label, criterion).filter { $0.ratio >= criterion.ratio })
    }

    /// A mask that removes the `count` units with the largest ratio for a label, of those that fire as often
    /// as the criterion demands.
    public func strongest(
        of label: Int, count: Int, _ criterion: SpecialistCriterion = SpecialistCriterion()
    ) -> UnitMask {
        mask(
            ranked(label: label, criterion)
                .sorted { ($1.ratio, $0.group, $0.unit) < ($0.ratio, $1.group, $1.unit) }
                .prefix(count))
    }

    private func mask(_ entries: some Sequence<(group: Int, unit: Int, ratio: Double)>) -> UnitMask {
        var mask = UnitMask(units)
        for (group, entries) in Dictionary(grouping: entries, by: \.group) {
            mask.remove(entries.map(\.unit), group: group)
        }
        return mask
    }

    /// Units that are strongest on a label and fire often enough, with the ratio to the next label.
    private func ranked(
        label: Int, _ criterion: SpecialistCriterion
    ) -> [(group: Int, unit: Int, ratio: Double)] {
        let least = max(
            Double(criterion.minimumCount), criterion.minimumFrequency * Double(firingCounts.tokens))
        return means.enumerated().flatMap { group, values in
            (0..<units.unitsPerGroup).compactMap { unit in
                guard Double(firingCounts.counts[group][unit]) >= least else { return nil }
                let own = Array(values[(unit * labels.count)..<((unit + 1) * labels.count)])
                guard let specialty = LabelSpecialty(means: own), specialty.label == label else { return nil }
                return (group, unit, specialty.ratio)
            }
        }
    }
}
