import MonetCompute
import MonetModel
import MonetText

/// The losses of a batch and how its routers behaved.
public struct TrainingLosses: Sendable, Equatable {
    /// Mean next-token cross entropy.
    public var languageModel = 0.0
    /// Equation 16, averaged over the routers.
    public var uniformity = 0.0
    /// Equation 17, averaged over the routers.
    public var ambiguity = 0.0
    /// The sum that is minimized (equation 18).
    public var total = 0.0
    /// Experts that a head selects for a token, on average.
    public var selectedPerHead = 0.0
    /// Share of a side's experts that no token of the batch selected, averaged over sides and routers.
    public var unselectedShare = 0.0
}

/// The training objective: language-model loss plus the weighted auxiliary losses.
public struct TrainingObjective: Sendable {
    /// Which probabilities the uniformity loss averages.
    public var uniformity: UniformitySource
    /// λ of the uniformity loss.
    public var uniformityWeight: Double
    /// λ of the ambiguity loss.
    public var ambiguityWeight: Double
    /// Share of a batch in the routers' running statistics.
    public var momentum: Double

    /// Collects the settings.
    public init(
        uniformity: UniformitySource, uniformityWeight: Double, ambiguityWeight: Double,
        momentum: Double = 0.1
    ) {
        self.uniformity = uniformity
        self.uniformityWeight = uniformityWeight
        self.ambiguityWeight = ambiguityWeight
        self.momentum = momentum
    }

    /// Adds the gradient of `share` times the objective into `variables` and returns the losses.
    ///
    /// - `targets`: the next token of each input, negative for inputs that do not count.
    /// - `share`: 1 over the number of micro-batches.
    public func addGradient(
        model: MonetLanguageModel, inputs: [[Int32]], targets: [Int32], share: Double,
        backend: any Backend = CPUBackend(),
        variables: ParameterVariables
    ) throws -> TrainingLosses {
        let routers = max(1, model.configuration.routerLayers.count)
        var input = ForwardInput(inputs)
        input.statistics = .batch
        input.objective = RouterObjectiveSettings(
            uniformity: uniformity, uniformityWeight: Float(uniformityWeight * share / Double(routers)),
            ambiguityWeight: Float(ambiguityWeight * share / Double(routers)))
        let output = try model.forward(input, variables: variables, on: backend)
        try model.updateRouters(with: output.routerStatistics, momentum: Float(momentum))
        let counted = max(1, targets.count { $0 >= 0 })
        let losses = try model.crossEntropy(
            output, targets: targets, scale: Float(share / Double(counted))
        ).floats()
        try output.backward()
        var result = RoutingSummary(output.routings).losses
        result.languageModel = losses.reduce(0.0) { $0 + Double($1) } / Double(counted)
        result.total =
            result.languageModel + uniformityWeight * result.uniformity + ambiguityWeight * result.ambiguity
        return result
    }
}

/// Averages over the routers of a forward pass.
struct RoutingSummary {
    var losses = TrainingLosses()

    init(_ routings: [Routing]) {
        let count = Double(max(1, routings.count))
        for routing in routings {
            for side in routing.objectives {
                let usage = RouterUsage(side)
                let experts = Double(side.selectionCounts.columnCount)
                let values = side.losses.floats().map(Double.init)
                losses.uniformity += values[0] / count
                losses.ambiguity += values[1] / count
                losses.selectedPerHead += usage.selectedPerHead / (2 * count)
                losses.unselectedShare += (experts - Double(usage.selected.count)) / experts / (2 * count)
            }
        }
    }
}

/// How one router side's experts were used.
struct RouterUsage {
    /// Experts that any head selected for any token.
    let selected: Set<Int>
    /// Experts that a head selects for a token, on average.
    let selectedPerHead: Double

    init(_ objective: RouterObjective) {
        let counts = objective.selectionCounts.floats()
        let experts = objective.selectionCounts.columnCount
        selected = Set(counts.indices.filter { counts[$0] > 0 }.map { $0 % experts })
        let rows = objective.tokens * objective.selectionCounts.rowCount
        selectedPerHead = counts.reduce(0.0) { $0 + Double($1) } / Double(max(1, rows))
    }
}
