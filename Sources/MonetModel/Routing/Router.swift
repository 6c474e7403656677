import Foundation
import MonetCompute

/// Adaptive routing with batch normalization (section 3 of the paper).
///
/// For each side s: z = h · wsᵀ; n = z normalized per head; selected are the experts with
/// n ≥ min(Φ⁻¹(1 − k/E), max n); probabilities are the softmax of z over the selected.
struct Router: Sendable {
    let left: Side
    let right: Side
    let heads: Int
    let experts: Int
    let layer: Int
    /// Its index among the model's routers.
    let group: Int
    /// Φ⁻¹(1 − k/E), the value that k of E standard normal numbers exceed on average.
    let threshold: Float
    private var preparedWeights: PreparedWeights?

    /// One side's projection and running statistics.
    struct Side: Sendable {
        let weight: Parameter
        /// The weights in int8, if the checkpoint has them.
        let rounded: RoundedRouter?
        let running: RouterStatistics
    }

    static let epsilon: Float = 1e-5

    init(_ settings: ExpertSettings, _ parameters: LayerParameters) throws {
        func side(_ index: Int) throws -> Side {
            let name = "router.w\(index).weight"
            let names = RouterScreenNames(weight: name)
            let rounded = parameters.optional(names.rows).flatMap { rows in
                parameters.optional(names.bounds).map {
                    RoundedRouter(rows: rows.tensor, bounds: $0.tensor)
                }
            }
            return Side(
                weight: try parameters(name), rounded: rounded,
                running: RouterStatistics(
                    mean: try parameters("router.norm\(index).running_mean").tensor,
                    variance: try parameters("router.norm\(index).running_var").tensor))
        }
        left = try side(1)
        right = try side(2)
        layer = parameters.layer
        group = parameters.layer / settings.layersPerRouter
        heads = settings.heads
        experts = settings.perSide
        threshold = Float(
            GaussianQuantile.callAsFunction(1 - Double(settings.topK) / Double(settings.perSide)))
    }

    /// Probabilities of both sides, `[tokens, heads, experts]`, for `h` `[tokens, d]`.
    func callAsFunction(_ h: Variable, _ pass: ForwardPass) throws -> Routing {
        if let preparedWeights, !pass.tape.isRecording, pass.input.statistics == .running,
            pass.input.objective == nil
        {
            let (left, right) = try pass.tape.backend.route(h.value, prepared: preparedWeights)
            return try routing(Variable(left), Variable(right), [], pass)
        }
        let projected = try pass.tape.projections(h, weights: [left, right].map { pass($0.weight) })
        let (g1, statistics1, objective1) = try route(projected[0], left, 0, pass)
        let (g2, statistics2, objective2) = try route(projected[1], right, 1, pass)
        if pass.input.statistics == .batch {
            pass.routerStatistics.append(
                RouterBatchStatistics(
                    layer: layer, sides: [statistics1, statistics2], count: h.value.rowCount * experts))
        }
        return try routing(g1, g2, [objective1, objective2].compactMap { $0 }, pass)
    }

    private func routing(
        _ g1: Variable, _ g2: Variable, _ objectives: [RouterObjective], _ pass: ForwardPass
    ) throws -> Routing {
        let left = try pass.hook(.g1, layer, g1)
        let right = try pass.hook(.g2, layer, g2)
        // A replacement by the same numbers must not change the order of sums.
        func keeps(_ kind: HookPoint.Kind, _ own: Variable, _ hooked: Variable) -> Bool {
            !pass.changes(kind, layer)
                || !pass.tape.isRecording && own.value.floats() == hooked.value.floats()
        }
        let isNormalized = keeps(.g1, g1, left) && keeps(.g2, g2, right)
        let forced = pass.forcedUnits(group: group)
        // Replaced heads may not sum to 1; a row replaced by itself must keep the order of sums.
        let width = heads * experts
        func differing(_ kind: HookPoint.Kind, _ own: Variable, _ hooked: Variable) -> [Int] {
            let rows = pass.replacedRows(kind, layer)
            if rows.isEmpty { return [] }
            let (before, after) = (own.value.floats(), hooked.value.floats())
            return rows.filter {
                before[($0 * width)..<(($0 + 1) * width)] != after[($0 * width)..<(($0 + 1) * width)]
            }
        }
        let rows = forced.map(\.row) + differing(.g1, g1, left) + differing(.g2, g2, right)
        let executed =
            forced.isEmpty
            ? (left: left, right: right)
            : (
                left: try withHeads(of: forced.map { ($0.row, $0.unit / experts, $0.score) }, left, pass),
                right: try withHeads(of: forced.map { ($0.row, $0.unit % experts, 1) }, right, pass)
            )
        let unnormalized = Set(rows).sorted().map { $0..<($0 + 1) }
        return Routing(
            group: group, layer: layer, left: left, right: right, executed: executed,
            learning: try learning(executed.left, executed.right, unnormalized, pass),
            experts: ExpertRouting(
                left: executed.left.value, right: executed.right.value,
                strengths: pass.strengths(group: group), isNormalized: isNormalized,
                unnormalizedRows: unnormalized),
            objectives: objectives)
    }

    /// The routing through which experts and routers learn: in sequences with reserved experts, the probabilities of all other
    /// halves are 0. Nil if there are no such sequences, or no gradients.
    private func learning(
        _ left: Variable, _ right: Variable, _ unnormalized: [Range<Int>], _ pass: ForwardPass
    ) throws -> ExpertLearning? {
        guard pass.tape.isRecording, !pass.reserved.isEmpty else { return nil }
        // What is recorded must not hold the pass, whose tape holds what is recorded: a pass that never goes back would
        // stay.
        let (backend, reserved) = (pass.tape.backend, pass.reserved)
        func restricted(_ side: Variable) throws -> Variable {
            let shape = side.value.shape
            func masked(_ tensor: Tensor) throws -> Tensor {
                var values = tensor.floats()
                for (rows, halves) in reserved {
                    for place in (rows.lowerBound * shape[1])..<(rows.upperBound * shape[1]) {
                        for half in 0..<experts where !halves.contains(half) {
                            values[place * experts + half] = 0
                        }
                    }
                }
                return try backend.tensor(Tensor(values, shape: shape))
            }
            return pass.tape.record(try masked(side.value), from: [side]) { gradient in
                try side.add(masked(gradient), on: backend)
            }
        }
        let (left, right) = (try restricted(left), try restricted(right))
        return ExpertLearning(
            left: left, right: right,
            routing: ExpertRouting(
                left: left.value, right: right.value, strengths: pass.strengths(group: group),
                unnormalizedRows: unnormalized + pass.reserved.map(\.rows)))
    }

    /// The probabilities of a side with more heads, each of which routes a row to one forced expert.
    ///
    /// - `forced`: row, expert of this side and probability, with the entries of a row one after another.
    private func withHeads(
        of forced: [(row: Int, expert: Int, probability: Float)], _ probabilities: Variable,
        _ pass: ForwardPass
    ) throws -> Variable {
        let backend = pass.tape.backend
        let tokens = probabilities.value.shape[0]
        var used = [Int](repeating: 0, count: tokens)
        for entry in forced { used[entry.row] += 1 }
        let all = heads + (used.max() ?? 0)
        let own = probabilities.value.floats()
        var values = [Float](repeating: 0, count: tokens * all * experts)
        for token in 0..<tokens {
            let width = heads * experts
            values.replaceSubrange(
                (token * all * experts)..<(token * all * experts + width),
                with: own[(token * width)..<((token + 1) * width)])
        }
        used = [Int](repeating: heads, count: tokens)
        for (row, expert, probability) in forced {
            values[(row * all + used[row]) * experts + expert] = probability
            used[row] += 1
        }
        let result = try backend.tensor(Tensor(values, shape: [tokens, all, experts]))
        return pass.tape.record(result, from: [probabilities]) { [heads, experts] gradient in
            let values = gradient.floats()
            let own = (0..<tokens).flatMap { token in
                values[(token * all * experts)...].prefix(heads * experts)
            }
            try probabilities.add(
                backend.tensor(Tensor(Array(own), shape: [tokens, heads, experts])), on: backend)
        }
    }

    /// - `place`: 0 for the left side, 1 for the right one.
    private func route(_ projected: Variable, _ side: Side, _ place: Int, _ pass: ForwardPass) throws -> (
        Variable, RouterStatistics, RouterObjective?
    ) {
        let tape = pass.tape
        let logits = tape.reshape(projected, [projected.value.rowCount, heads, experts])
        let statistics =
            try pass.input.statistics == .batch
            ? tape.backend.routerStatistics(logits.value) : side.running
        let probabilities = try tape.route(logits, rule: rule(statistics))
        let objective = try pass.input.objective.map { settings in
            try tape.routerObjective(
                logits: logits, probabilities: probabilities, uniformity: settings.uniformity,
                uniformityWeight: settings.uniformityWeight, ambiguityWeight: settings.ambiguityWeight,
                mean: { [layer] in
                    settings.batch?.means[layer].flatMap { $0.indices.contains(place) ? $0[place] : nil }
                })
        }
        return (probabilities, statistics, objective)
    }

    private func rule(_ statistics: RouterStatistics) -> RouterSelectionRule {
        RouterSelectionRule(statistics: statistics, epsilon: Self.epsilon, threshold: threshold)
    }

    func prepared(on backend: any Backend) throws -> Router {
        func side(_ side: Side) -> RouterWeights.Side {
            .init(weight: side.weight.tensor, rule: rule(side.running), rounded: side.rounded)
        }
        var result = self
        result.preparedWeights = try backend.prepare(
            RouterWeights(left: side(left), right: side(right), heads: heads))
        return result
    }
}

extension MonetLanguageModel {
    /// Moves the routers' running statistics towards a batch's; the running variance is the unbiased one.
    ///
    /// - `momentum`: share of the batch; 1 replaces the running statistics.
    /// - Throws: `ComputeError` for parameters that cannot be written.
    public func updateRouters(with statistics: [RouterBatchStatistics], momentum: Float) throws {
        for batch in statistics {
            let correction = batch.count > 1 ? Float(batch.count) / Float(batch.count - 1) : 1
            for (place, side) in batch.sides.enumerated() {
                let prefix = "model.layers.\(batch.layer).router.norm\(place + 1)."
                let mean = try parameters(prefix + "running_mean").tensor
                let variance = try parameters(prefix + "running_var").tensor
                let batches = try parameters(prefix + "num_batches_tracked").tensor
                try mean.write(zip(mean.floats(), side.mean.floats()).map { $0 + momentum * ($1 - $0) })
                try variance.write(
                    zip(variance.floats(), side.variance.floats()).map {
                        $0 + momentum * ($1 * correction - $0)
                    })
                guard let count = batches.integers().first else {
                    throw ModelError.invalidInput(reason: "\(prefix)num_batches_tracked holds no number")
                }
                try batches.write([Int64(count) + 1])
            }
        }
    }
}
