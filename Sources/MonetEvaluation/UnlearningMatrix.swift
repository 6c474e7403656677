import Foundation
import MonetCompute
import MonetInsight
import MonetModel

/// The effect of removing each label's specialists on every label (figure 3 of the paper).
public struct UnlearningMatrix: Sendable, Equatable {
    /// The labels, in the order of rows and columns.
    public let labels: [String]
    /// Every label's score with nothing removed.
    public let baseline: [HeldOutScore]
    /// One row for every label whose specialists are removed.
    public let rows: [Row]
    /// The same with random masks of equal size; empty unless requested.
    public let randomRows: [Row]

    /// Scores with one label's specialists removed.
    public struct Row: Sendable, Equatable {
        /// How many experts or neurons were removed.
        public let removed: Int
        /// Every label's score.
        public let scores: [HeldOutScore]

        /// Collects the numbers.
        public init(removed: Int, scores: [HeldOutScore]) {
            self.removed = removed
            self.scores = scores
        }
    }

    /// What is measured.
    public enum Metric: String, Sendable, CaseIterable {
        /// Increase of the mean loss, nats per token.
        case loss
        /// Decrease of cloze accuracy (next-token accuracy).
        case accuracy
    }

    /// Collects the measurements.
    public init(labels: [String], baseline: [HeldOutScore], rows: [Row], randomRows: [Row] = []) {
        self.labels = labels
        self.baseline = baseline
        self.rows = rows
        self.randomRows = randomRows
    }

    /// Damage to `column` from removing `row`'s specialists; positive values are worse.
    public func damage(_ row: Int, _ column: Int, _ metric: Metric) -> Double {
        damage(rows[row], column, metric)
    }

    private func damage(_ row: Row, _ column: Int, _ metric: Metric) -> Double {
        switch metric {
        case .loss: row.scores[column].loss - baseline[column].loss
        case .accuracy: baseline[column].accuracy - row.scores[column].accuracy
        }
    }

    /// Damage to the target, and the mean damage to the other labels.
    public func targetAndOthers(_ row: Int, _ metric: Metric) -> (target: Double, others: Double) {
        targetAndOthers(rows[row], row, metric)
    }

    private func targetAndOthers(_ row: Row, _ target: Int, _ metric: Metric) -> (
        target: Double, others: Double
    ) {
        let others = labels.indices.filter { $0 != target }.map { damage(row, $0, metric) }
        return (damage(row, target, metric), others.reduce(0, +) / Double(max(1, others.count)))
    }

    /// Means over all rows: damage to targets, to others, and to the targets from random masks.
    public func summary(_ metric: Metric) -> Summary {
        let count = Double(max(1, rows.count))
        let pairs = rows.indices.map { targetAndOthers($0, metric) }
        let random = randomRows.enumerated().map { damage($1, $0 % max(1, labels.count), metric) }
        return Summary(
            target: pairs.reduce(0) { $0 + $1.target } / count,
            others: pairs.reduce(0) { $0 + $1.others } / count,
            random: random.isEmpty ? nil : random.reduce(0, +) / Double(random.count),
            removed: Double(rows.reduce(0) { $0 + $1.removed }) / count)
    }

    /// Averages over the rows of a matrix.
    public struct Summary: Sendable, Equatable {
        /// Mean damage to the label whose specialists are removed.
        public let target: Double
        /// Mean damage to the other labels.
        public let others: Double
        /// Mean damage to the target from random masks of equal size.
        public let random: Double?
        /// Experts or neurons removed, on average.
        public let removed: Double
    }
}

/// Measures unlearning matrices of one model on held-out documents.
public struct UnlearningExperiment {
    /// The labels, in the order of the documents' first set.
    public let labels: [String]
    /// Every label's score with nothing removed.
    public let baseline: [HeldOutScore]
    private let documents: LabelledDocuments
    private let scorer: HeldOutScorer

    /// The caller stopped it.
    public struct Stopped: Error {}

    /// Scores the unchanged model.
    ///
    /// - `progress`: called with the tokens of each batch; false stops.
    /// - Throws: `UnlearningExperiment.Stopped`, `InsightError`, `ModelError`.
    public init(
        model: MonetLanguageModel, documents: LabelledDocuments, backend: any Backend = CPUBackend(),
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        guard let set = documents.labelSets.first, set.labels.count > 1 else {
            throw InsightError.noLabels(origin: documents.origin)
        }
        labels = set.labels
        for (number, label) in set.labels.enumerated() {
            guard
                (0..<documents.count).contains(where: {
                    documents.labels($0)[0] == number && documents.tokenCount($0) > 1
                })
            else { throw EvaluationError.nothingHeldOut(label: label, origin: documents.origin) }
        }
        self.documents = documents
        scorer = HeldOutScorer(model: model, backend: backend)
        baseline = try Self.scored(scorer, documents, nil, progress)
    }

    private static func scored(
        _ scorer: HeldOutScorer, _ documents: LabelledDocuments, _ mask: UnitMask?,
        _ progress: (Int) -> Bool
    ) throws -> [HeldOutScore] {
        var isStopped = false
        let scores = try scorer.scores(documents, mask: mask) { tokens in
            isStopped = !progress(tokens)
            return !isStopped
        }
        if isStopped { throw Stopped() }
        return scores
    }

    /// One row: all labels' scores with units removed.
    public func row(_ mask: UnitMask, progress: (Int) -> Bool = { _ in true }) throws -> UnlearningMatrix.Row
    {
        // An empty mask changes nothing, so there is no need to run the model again.
        if mask.count == 0 { return UnlearningMatrix.Row(removed: 0, scores: baseline) }
        return UnlearningMatrix.Row(
            removed: mask.count, scores: try Self.scored(scorer, documents, mask, progress))
    }

    /// A row for every label's mask, and rows for random masks of the same size.
    ///
    /// - `randomSeeds`: the number of random masks to compare each with.
    public func matrix(
        _ masks: [UnitMask], randomSeeds: Int = 0, progress: (Int) -> Bool = { _ in true }
    ) throws -> UnlearningMatrix {
        let rows = try masks.map { try row($0, progress: progress) }
        var randomRows: [UnlearningMatrix.Row] = []
        for seed in 0..<randomSeeds {
            for mask in masks {
                randomRows.append(
                    try row(mask.randomOfEqualSize(seed: UInt64(seed)), progress: progress))
            }
        }
        return UnlearningMatrix(labels: labels, baseline: baseline, rows: rows, randomRows: randomRows)
    }
}
