import MonetCompute

/// A layer of product-routed experts: a router if it is the first of its group, then the experts of the plan.
struct ExpertLayer: FeedForwardLayer {
    let weights: ExpertWeights<Parameter>
    /// Present in the first layer of a group.
    let router: Router?
    private var preparedWeights: PreparedWeights?

    init(weights: ExpertWeights<Parameter>, router: Router?) {
        self.weights = weights
        self.router = router
    }

    func callAsFunction(_ h: Variable, shared: inout (any UnitActivations)?, _ pass: ForwardPass) throws
        -> Variable
    {
        if let router { shared = try router(h, pass) }
        guard let routing = shared as? Routing else {
            throw ModelError.invalidInput(reason: "a layer of experts precedes the first router")
        }
        if let preparedWeights, !pass.tape.isRecording {
            return Variable(
                try pass.tape.backend.experts(
                    h.value, routing: routing.experts, prepared: preparedWeights))
        }
        return try experts(h, routing, pass)
    }

    /// What the experts add under a routing.
    func experts(_ h: Variable, _ routing: Routing, _ pass: ForwardPass) throws -> Variable {
        try pass.tape.experts(
            h, left: routing.executed.left, right: routing.executed.right, routing: routing.experts,
            weights: weights.map { pass($0) }, learning: routing.learning)
    }

    func prepared(on backend: any Backend) throws -> any FeedForwardLayer {
        var result = ExpertLayer(weights: weights, router: try router?.prepared(on: backend))
        result.preparedWeights = try backend.prepare(weights.map(\.tensor))
        return result
    }
}
