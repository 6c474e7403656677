import MonetCompute
import MonetModel
import MonetText

/// The losses of a batch and how its routers behaved.
public struct TrainingLosses: Sendable, Equatable {
    /// Mean next-token cross entropy; of preference pairs, their mean loss.
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
    /// Of preference pairs: the mean margin of the chosen answer, and the share of pairs in which it is positive.
    public var preferenceMargin = 0.0
    public var preferenceAccuracy = 0.0
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
    /// Whether activations are computed twice instead of being kept.
    public var recomputesActivations = false
    /// Whether routers normalize with their running statistics, which stay as they are.
    public var freezesRouters = false
    /// What takes the place of the language-model loss.
    package var preferences: PreferenceObjective?

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

    /// Adds the gradient of the objective of one batch into `variables`, updates the routers' running statistics, and
    /// returns the losses.
    ///
    /// - `targets`: the next token of each input, negative for inputs that do not count.
    public func addGradient(
        model: MonetLanguageModel, inputs: [[Int32]], targets: [Int32],
        backend: any Backend = CPUBackend(), variables: ParameterVariables
    ) throws -> TrainingLosses {
        let output = try forward(
            model: model, sequences: inputs.map { ForwardSequence($0) }, share: 1, batch: nil,
            backend: backend, variables: variables)
        try model.updateRouters(with: output.routerStatistics, momentum: Float(momentum))
        var losses = RoutingSummary(output.routings).losses
        losses.languageModel = try languageModelLoss(output, model: model, targets: targets, share: 1)
        losses.total = total(losses)
        try output.backward()
        return losses
    }

    /// The forward pass of a micro-batch, recorded for its gradient.
    ///
    /// - `share`: the share of the micro-batch in the tokens of the step.
    /// - `batch`: where the mean probabilities of all of them will be.
    func forward(
        model: MonetLanguageModel, sequences: [ForwardSequence], share: Double, batch: UniformityBatch?,
        backend: any Backend, variables: ParameterVariables
    ) throws -> ForwardOutput {
        let routers = max(1, model.configuration.routerLayers.count)
        var input = ForwardInput(sequences)
        input.statistics = freezesRouters ? .running : .batch
        input.recomputesActivations = recomputesActivations
        var settings = RouterObjectiveSettings(
            uniformity: uniformity, uniformityWeight: Float(uniformityWeight * share / Double(routers)),
            ambiguityWeight: Float(ambiguityWeight * share / Double(routers)))
        settings.batch = batch
        input.objective = settings
        return try model.forward(input, variables: variables, on: backend)
    }

    /// The mean cross entropy of a pass, `share` of which becomes a loss of the pass.
    func languageModelLoss(
        _ output: ForwardOutput, model: MonetLanguageModel, targets: [Int32], share: Double
    ) throws -> Double {
        let counted = max(1, targets.count { $0 >= 0 })
        let losses = try model.crossEntropy(
            output, targets: targets, scale: Float(share / Double(counted))
        ).floats()
        return losses.reduce(0.0) { $0 + Double($1) } / Double(counted)
    }

    /// Equation 18.
    func total(_ losses: TrainingLosses) -> Double {
        losses.languageModel + uniformityWeight * losses.uniformity + ambiguityWeight * losses.ambiguity
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
