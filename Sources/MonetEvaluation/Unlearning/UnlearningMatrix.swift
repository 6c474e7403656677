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
    /// For every label, the same with random units that are as many and fire as often as its specialists: a
    /// row for each draw. Empty unless requested.
    public let controls: [[Row]]

    /// Scores with one label's specialists, or with their random counterparts, removed.
    public struct Row: Sendable, Equatable {
        /// How many experts or neurons were removed.
        public let removed: Int
        /// Mean share of tokens that they fire on; nil if it is not known.
        public let meanFrequency: Double?
        /// Every label's score.
        public let scores: [HeldOutScore]

        /// Collects the numbers.
        public init(removed: Int, meanFrequency: Double? = nil, scores: [HeldOutScore]) {
            self.removed = removed
            self.meanFrequency = meanFrequency
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
    public init(labels: [String], baseline: [HeldOutScore], rows: [Row], controls: [[Row]] = []) {
        self.labels = labels
        self.baseline = baseline
        self.rows = rows
        self.controls = controls
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

    /// The damage that random units in place of `row`'s specialists do to each label, to the target and to the
    /// others; nil without draws.
    public func control(_ row: Int, _ metric: Metric) -> Control? {
        guard controls.indices.contains(row), !controls[row].isEmpty else { return nil }
        let draws = controls[row]
        let pairs = draws.map { targetAndOthers($0, row, metric) }
        return Control(
            damages: labels.indices.map { column in Spread(draws.map { damage($0, column, metric) }) },
            target: Spread(pairs.map(\.target)), others: Spread(pairs.map(\.others)))
    }

    /// Damage by random units, over the draws.
    public struct Control: Sendable, Equatable {
        /// To each label.
        public let damages: [Spread]
        /// To the label whose specialists they stand for.
        public let target: Spread
        /// The mean over the other labels.
        public let others: Spread
    }

    /// Mean and standard deviation of values.
    public struct Spread: Sendable, Equatable {
        /// The mean.
        public let mean: Double
        /// The standard deviation of one value (with n − 1), 0 for a single one.
        public let deviation: Double

        /// Of one value or more.
        public init(_ values: [Double]) {
            let count = Double(max(1, values.count))
            let mean = values.reduce(0, +) / count
            self.mean = mean
            let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
            deviation = values.count > 1 ? (squares / (count - 1)).squareRoot() : 0
        }
    }

    /// Means over all rows: damage to targets, to others, and to the targets from random units.
    public func summary(_ metric: Metric) -> Summary {
        let count = Double(max(1, rows.count))
        let pairs = rows.indices.map { targetAndOthers($0, metric) }
        // One value for each draw: its mean over the labels.
        let draws = (0..<(controls.map(\.count).min() ?? 0)).map { draw in
            controls.indices.reduce(0) { $0 + damage(controls[$1][draw], $1, metric) } / count
        }
        return Summary(
            target: pairs.reduce(0) { $0 + $1.target } / count,
            others: pairs.reduce(0) { $0 + $1.others } / count,
            random: draws.isEmpty ? nil : Spread(draws),
            removed: Double(rows.reduce(0) { $0 + $1.removed }) / count)
    }

    /// Averages over the rows of a matrix.
    public struct Summary: Sendable, Equatable {
        /// Mean damage to the label whose specialists are removed.
        public let target: Double
        /// Mean damage to the other labels.
        public let others: Double
        /// Damage to the target from random units, as many and firing as often; the spread is that of a draw's
        /// mean over the labels.
        public let random: Spread?
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
    ///
    /// - `counts`: from which the row's mean frequency is taken.
    public func row(
        _ mask: UnitMask, counts: FiringCounts? = nil, progress: (Int) -> Bool = { _ in true }
    ) throws -> UnlearningMatrix.Row {
        // An empty mask changes nothing, so there is no need to run the model again.
        UnlearningMatrix.Row(
            removed: mask.count, meanFrequency: counts?.meanFrequency(of: mask),
            scores: mask.count == 0 ? baseline : try Self.scored(scorer, documents, mask, progress))
    }

    /// A row for every label's mask, and rows for random masks that are as large and fire as often.
    ///
    /// - `draws`: the number of random masks to compare each with.
    public func matrix(
        _ masks: [UnitMask], counts: FiringCounts, draws: Int = 0, progress: (Int) -> Bool = { _ in true }
    ) throws -> UnlearningMatrix {
        let rows = try masks.map { try row($0, counts: counts, progress: progress) }
        let controls = try masks.map { mask in
            try (0..<draws).map { seed in
                try row(counts.matchedMask(mask, seed: UInt64(seed)), counts: counts, progress: progress)
            }
        }
        return UnlearningMatrix(labels: labels, baseline: baseline, rows: rows, controls: controls)
    }
}
