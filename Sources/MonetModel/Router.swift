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
    /// Its place among the model's routers.
    let group: Int
    /// Φ⁻¹(1 − k/E), the value that k of E standard normal numbers exceed.
    let threshold: Float

    /// One side's projection and running statistics.
    struct Side: Sendable {
        let weight: Parameter
        /// The weights in int8, if the checkpoint has them: see `RouterScreen`.
        let screen: RouterScreen?
        let runningMean: Tensor
        let runningVariance: Tensor
        let batchCount: Tensor
    }

    static let epsilon: Float = 1e-5

    init(_ left: Side, _ right: Side, configuration: MonetConfiguration, group: Int) {
        self.group = group
        self.left = left
        self.right = right
        heads = configuration.routingHeads
        experts = configuration.expertsPerSide
        threshold = Float(
            GaussianQuantile.callAsFunction(
                1 - Double(configuration.topK) / Double(configuration.expertsPerSide)))
    }

    /// Probabilities of both sides, `[tokens, heads, experts]`, for `h` `[tokens, d]`.
    func callAsFunction(_ h: Variable, _ context: ForwardContext) throws -> Routing {
        let projected =
            try screened(h, context)
            ?? context.tape.projections(h, weights: [left, right].map { context($0.weight) })
        let (g1, objective1) = try route(projected[0], left, context)
        let (g2, objective2) = try route(projected[1], right, context)
        return Routing(
            left: g1, right: g2,
            experts: ExpertRouting(
                left: g1.value, right: g2.value, strengths: context.mask?.strengths(group: group)),
            leftObjective: objective1, rightObjective: objective2)
    }

    /// Tokens up to which screening reads less than the whole weights.
    private static let mostScreenedTokens = 2

    /// The logits that can matter, where few tokens are decoded and nothing asks for the others.
    private func screened(_ h: Variable, _ context: ForwardContext) throws -> [Variable]? {
        guard context.training == nil, !context.measuresRouting, !context.calibratesRouters,
            h.value.rowCount <= Self.mostScreenedTokens, let first = left.screen, let second = right.screen
        else { return nil }
        let sides = [(left, first), (right, second)].map { side, screen in
            (
                weight: side.weight.tensor, screen: screen,
                rule: RouterSelectionRule(
                    statistics: side.runningStatistics, epsilon: Self.epsilon, threshold: threshold)
            )
        }
        return try context.tape.backend.screenedLogits(h.value, sides: sides).map { Variable($0) }
    }

    private func route(_ projected: Variable, _ side: Side, _ context: ForwardContext) throws -> (
        Variable, RouterObjective?
    ) {
        let tape = context.tape
        let tokens = projected.value.rowCount
        let logits = tape.reshape(projected, [tokens, heads, experts])
        let statistics: RouterStatistics
        if let training = context.training {
            statistics = try tape.backend.routerStatistics(logits.value)
            side.update(with: statistics, count: tokens * experts, momentum: training.momentum)
        } else if context.calibratesRouters {
            statistics = try tape.backend.routerStatistics(logits.value)
            side.update(with: statistics, count: tokens * experts, momentum: 1)
        } else {
            statistics = side.runningStatistics
        }
        let probabilities = try tape.route(
            logits, statistics: statistics, epsilon: Self.epsilon, threshold: threshold)
        var objective: RouterObjective?
        if context.training != nil || context.measuresRouting {
            objective = try tape.routerObjective(
                logits: logits, probabilities: probabilities,
                uniformity: context.training?.uniformity ?? .selected,
                uniformityWeight: context.training?.uniformityWeight ?? 0,
                ambiguityWeight: context.training?.ambiguityWeight ?? 0)
        }
        return (probabilities, objective)
    }
}

extension Router.Side {
    var runningStatistics: RouterStatistics {
        RouterStatistics(mean: runningMean.floats(), variance: runningVariance.floats())
    }

    /// Moves the running statistics towards a batch's; the running variance is the unbiased one.
    func update(with batch: RouterStatistics, count: Int, momentum: Float) {
        let correction = count > 1 ? Float(count) / Float(count - 1) : 1
        let (mean, variance) = (runningMean.floats(), runningVariance.floats())
        runningMean.overwrite(zip(mean, batch.mean).map { $0 + momentum * ($1 - $0) })
        runningVariance.overwrite(
            zip(variance, batch.variance).map { $0 + momentum * ($1 * correction - $0) })
        batchCount.overwrite(Int64(batchCount.integers().first ?? 0) + 1)
    }
}

/// The routing of a batch in one group of layers.
public struct Routing {
    /// ĝ1 and ĝ2, `[tokens, heads, experts]` with exact zeros outside the selection.
    public let left: Variable
    public let right: Variable
    /// The same as expert layers read it.
    let experts: ExpertRouting
    /// Auxiliary losses and usage of each side; nil unless training or measuring.
    public let leftObjective: RouterObjective?
    public let rightObjective: RouterObjective?
}
