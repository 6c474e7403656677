import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel

/// The effect of removing each label's specialists from a Monet, at several ratios, compared with random
/// masks of equal size and with a dense model from which an equal share of neurons is removed.
public struct UnlearningComparison: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// The label set of the index; nil takes the first that has the labels.
        public var labelSet: String?
        /// Which experts are removed.
        public var criterion = SpecialistCriterion()
        /// Other ratios to measure.
        public var sweep: [Double] = []
        /// Random masks, as large and firing as often, to compare each with.
        public var draws = 5

        /// Specialists by the paper's ratio of 2, compared with five random masks each.
        public init() {}

        /// The number of passes over the documents, for progress.
        public func passes(labels: Int, comparesDense: Bool) -> Int {
            1 + labels * (1 + draws) * (1 + sweep.count) + (comparesDense ? labels * (1 + draws) + 1 : 0)
        }
    }

    /// A dense model, with the documents from which its specialist neurons are determined.
    public struct Dense {
        public let model: MonetLanguageModel
        public let documents: LabelledDocuments

        /// Joins both.
        public init(model: MonetLanguageModel, documents: LabelledDocuments) {
            self.model = model
            self.documents = documents
        }
    }

    /// What was measured.
    public let plan: Plan
    /// The matrix at the plan's ratio.
    public let matrix: UnlearningMatrix
    /// The same for the dense model.
    public let dense: UnlearningMatrix?
    /// The matrices at the other ratios.
    public let sweep: [(ratio: Double, matrix: UnlearningMatrix)]
    /// Units of the model.
    public let units: Int

    /// Measures held-out documents.
    ///
    /// - `progress`: called with the tokens of each batch; false stops.
    /// - Throws: `UnlearningExperiment.Stopped`, `InsightError`, `ModelError`.
    public init(
        _ plan: Plan, model: MonetLanguageModel, index: ExpertIndex, documents: LabelledDocuments,
        dense: Dense?, backend: any Backend = CPUBackend(), progress: (Int) -> Bool
    ) throws {
        let labels =
            try documents.labelSets.first?.labels.map { try index.label($0, set: plan.labelSet) } ?? []
        let experiment = try UnlearningExperiment(
            model: model, documents: documents, backend: backend, progress: progress)
        let counts = try index.firingCounts()
        func matrix(_ ratio: Double) throws -> UnlearningMatrix {
            var criterion = plan.criterion
            criterion.ratio = ratio
            return try experiment.matrix(
                labels.map { try index.mask(of: $0, criterion) }, counts: counts, draws: plan.draws,
                progress: progress)
        }
        self.plan = plan
        units = index.units.count
        let own = try matrix(plan.criterion.ratio)
        self.matrix = own
        self.dense = try dense.map {
            try Self.matrix(of: $0, like: own, units: index.units.count, plan, documents, backend, progress)
        }
        sweep = try plan.sweep.map { ($0, try matrix($0)) }
    }

    /// The matrix of a dense model, with an equal share of neurons removed: the most specific to each label.
    private static func matrix(
        of dense: Dense, like matrix: UnlearningMatrix, units: Int, _ plan: Plan,
        _ documents: LabelledDocuments, _ backend: any Backend, _ progress: (Int) -> Bool
    ) throws -> UnlearningMatrix {
        guard dense.model.units.kind == .neurons else {
            throw EvaluationError.invalidSetting(
                name: "the dense model", found: "one with experts", expected: "one with neurons")
        }
        let statistics = try LabelStatistics(of: dense.documents, model: dense.model, backend: backend)
        let masks = matrix.labels.enumerated().map { label, name in
            let share = Double(matrix.rows[label].removed) / Double(max(1, units))
            let count = Int((share * Double(statistics.units.count)).rounded(.up))
            return statistics.strongest(
                of: statistics.labels.firstIndex(of: name) ?? label, count: count, plan.criterion)
        }
        return try UnlearningExperiment(
            model: dense.model, documents: documents, backend: backend, progress: progress
        ).matrix(masks, counts: statistics.firingCounts, draws: plan.draws, progress: progress)
    }

    /// Heat maps of the loss and of next-token accuracy, and of the dense model's loss.
    public var pictures: [HeatMap] {
        [
            matrix.heatMap(.loss, title: "Increase of the loss, nats per token"),
            matrix.heatMap(.accuracy, title: "Decrease of the cloze accuracy, percentage points"),
        ]
            + (dense.map {
                [$0.heatMap(.loss, title: "The same for neurons of a dense Llama: increase of the loss")]
            } ?? [])
    }

    /// The outcome in sentences.
    public var notes: [String] {
        let what =
            "Experts (specialists by a ratio of \(plan.criterion.ratio) or more that fire on "
            + "\(plan.criterion.minimumCount.grouped) tokens or more, of \(units.grouped))"
        return [note(what, "experts", matrix)]
            + (dense.map { [note("Neurons of the dense model (as large a share)", "neurons", $0)] } ?? [])
    }

    /// What the numbers of a page mean.
    public var definitions: [String] {
        var lines = [
            "A row is a label whose specialists are removed, a column a label that is measured on held-out "
                + "documents. A specialist is an expert whose mean routing score on its label is at least "
                + "\(plan.criterion.ratio) times that on any other label, and which fires on at least "
                + "\(plan.criterion.minimumCount.grouped) tokens of the index.",
            "Increase of the loss: mean −log p of a label's tokens with the experts removed, minus that with "
                + "nothing removed, in nats per token. Cloze accuracy: the share of tokens that the model ranks as "
                + "the most likely. Red is damage. Target: the diagonal. Others: the mean of the rest of the row.",
        ]
        if plan.draws > 0 {
            lines.append(
                "Random: in place of a label's specialists, as many other experts of each group are removed, each "
                    + "of which fires about as often; the mean over \(plan.draws) draws, ± the standard deviation "
                    + "of a draw. The row below repeats the column: the damage to the very label whose specialists "
                    + "they stand for, to be compared with the diagonal.")
        }
        return lines
    }

    private func note(_ what: String, _ units: String, _ matrix: UnlearningMatrix) -> String {
        let loss = matrix.summary(.loss)
        var text =
            "\(what): on average \(String(format: "%.0f", loss.removed)) removed; "
            + "loss \(signed(loss.target, digits: 4)) on the target, \(signed(loss.others, digits: 4)) on the "
            + "others, \(String(format: "%.1f", loss.selectivity)) times as much"
        if let random = loss.random {
            text +=
                "; random \(units), as many and firing as often, cost the target "
                + "\(signed(random.mean, digits: 4)) ± \(String(format: "%.4f", random.deviation)) "
                + "(\(plan.draws) draw\(plan.draws == 1 ? "" : "s"))"
        }
        return text + "."
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        var members: [JSONValue.Member] = [
            .init("ratio", .number(plan.criterion.ratio)),
            .init("minimum_count", .integer(plan.criterion.minimumCount)),
            .init("minimum_frequency", .number(plan.criterion.minimumFrequency)),
            .init("draws", .integer(plan.draws)), .init("experts", matrix.json()),
        ]
        if let dense { members.append(.init("neurons", dense.json())) }
        if !sweep.isEmpty {
            members.append(
                .init(
                    "sweep",
                    .array(sweep.map { ["ratio": .number($0.ratio), "experts": $0.matrix.json()] })))
        }
        return .object(members)
    }
}
