import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel

/// What removing each label's specialists does to a Monet, at several ratios, beside random masks of equal size and
/// beside a dense model from which as large a share of its neurons is removed.
public struct UnlearningComparison: Sendable {
    /// What to measure.
    public struct Plan: Sendable {
        /// The label set of the index; nil takes the first that has the labels.
        public var labelSet: String?
        /// Mean score in a label over that in the next, from which a unit is its specialist.
        public var ratio = 2.0
        /// Other ratios to measure.
        public var sweep: [Double] = []
        /// Share of tokens that a specialist fires on at least.
        public var minimumFrequency = 0.0
        /// Random masks beside each.
        public var randomMasks = 1

        /// Specialists by the paper's ratio of 2, one random mask beside each.
        public init() {}

        /// Passes over the documents, for progress.
        public func passes(labels: Int, comparesDense: Bool) -> Int {
            1 + labels * (1 + randomMasks) * (1 + sweep.count) + (comparesDense ? labels + 1 : 0)
        }
    }

    /// A dense model with documents from which its neurons are judged.
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
    /// With the plan's ratio.
    public let matrix: UnlearningMatrix
    /// The same for the dense model.
    public let dense: UnlearningMatrix?
    /// The other ratios.
    public let sweep: [(ratio: Double, matrix: UnlearningMatrix)]
    /// Units of the model.
    public let units: Int

    /// Measures held-out documents.
    ///
    /// - Parameter progress: called with the tokens of each batch; false stops.
    /// - Throws: `UnlearningExperiment.Stopped`, `InsightError`, `ModelError`.
    public init(
        _ plan: Plan, model: MonetLanguageModel, index: ExpertIndex, documents: LabelledDocuments,
        dense: Dense?, backend: any Backend = CPUBackend(), progress: (Int) -> Bool
    ) throws {
        let labels =
            try documents.labelSets.first?.labels.map { try index.label($0, set: plan.labelSet) } ?? []
        let experiment = try UnlearningExperiment(
            model: model, documents: documents, backend: backend, progress: progress)
        func matrix(_ ratio: Double) throws -> UnlearningMatrix {
            try experiment.matrix(
                labels.map {
                    try index.mask(of: $0, ratio: ratio, minimumFrequency: plan.minimumFrequency)
                }, randomSeeds: plan.randomMasks, progress: progress)
        }
        self.plan = plan
        units = index.units.count
        let own = try matrix(plan.ratio)
        self.matrix = own
        self.dense = try dense.map {
            try Self.matrix(of: $0, like: own, units: index.units.count, documents, backend, progress)
        }
        sweep = try plan.sweep.map { ($0, try matrix($0)) }
    }

    /// As large a share of a dense model's neurons, those most special to each label.
    private static func matrix(
        of dense: Dense, like matrix: UnlearningMatrix, units: Int, _ documents: LabelledDocuments,
        _ backend: any Backend, _ progress: (Int) -> Bool
    ) throws -> UnlearningMatrix {
        let statistics = try LabelStatistics(of: dense.documents, model: dense.model, backend: backend)
        let masks = matrix.labels.enumerated().map { label, name in
            let share = Double(matrix.rows[label].removed) / Double(max(1, units))
            let count = Int((share * Double(statistics.units.count)).rounded(.up))
            return statistics.strongest(
                of: statistics.labels.firstIndex(of: name) ?? label, count: count)
        }
        return try UnlearningExperiment(
            model: dense.model, documents: documents, backend: backend, progress: progress
        ).matrix(masks, progress: progress)
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
        let what = "Experts (specialists by a ratio of \(plan.ratio) or more, of \(units.grouped))"
        return [Self.note(what, matrix)]
            + (dense.map { [Self.note("Neurons of the dense model (as large a share)", $0)] } ?? [])
    }

    private static func note(_ what: String, _ matrix: UnlearningMatrix) -> String {
        func signed(_ value: Double) -> String { (value < 0 ? "" : "+") + String(format: "%.4f", value) }
        let loss = matrix.summary(.loss)
        var text =
            "\(what): on average \(String(format: "%.0f", loss.removed)) removed; "
            + "loss +\(String(format: "%.4f", loss.target)) on the target, \(signed(loss.others)) on the others, "
            + "\(String(format: "%.1f", loss.selectivity)) times as much"
        if let random = loss.random {
            text += "; random masks of equal size cost the target \(signed(random))"
        }
        return text + "."
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        var members: [JSONValue.Member] = [
            .init("ratio", .number(plan.ratio)), .init("experts", matrix.json()),
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
