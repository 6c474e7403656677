/// A tensor in a computation, with its gradient once the tape has run backwards.
public final class Variable {
    /// The elements.
    public let value: Tensor
    /// Whether anything trainable feeds it.
    public let requiresGradient: Bool
    /// d(loss)/d(value), of the value's shape; nil until something flows back.
    public private(set) var gradient: Tensor?
    /// Whether other variables hold the same gradient tensor, which must then not be added into.
    private var gradientIsShared = false

    /// A constant or a trainable tensor.
    public init(_ value: Tensor, requiresGradient: Bool = false) {
        self.value = value
        self.requiresGradient = requiresGradient
    }

    /// A tensor to add this variable's gradient into, zero at first.
    public func gradientForAdding() -> Tensor {
        if let gradient, !gradientIsShared { return gradient }
        let buffer = gradient?.copy() ?? Tensor(zeros: value.shape)
        gradient = buffer
        gradientIsShared = false
        return buffer
    }

    /// Takes over `tensor` as the gradient if there is none yet, else adds it.
    func receive(shared tensor: Tensor, backend: any Backend) throws {
        if gradient == nil {
            gradient = tensor
            gradientIsShared = true
        } else {
            try backend.accumulate(tensor, into: gradientForAdding())
        }
    }

    /// Drops the gradient, to free its memory once it has been used.
    func dropGradient() { gradient = nil }
}

/// Runs operations on a backend and, when recording, remembers how to run them backwards.
///
///     let tape = GradientTape(backend: backend, isRecording: true)
///     let y = try tape.linear(x, weight: w, bias: nil)
///     try tape.backward()
///
/// Without recording it is a thin veil over the backend: layers are written once.
public final class GradientTape {
    /// Where operations run.
    public let backend: any Backend
    /// Whether gradients will be asked for.
    public let isRecording: Bool
    private var steps: [() throws -> Void] = []

    /// A tape over `backend`.
    public init(backend: any Backend, isRecording: Bool) {
        self.backend = backend
        self.isRecording = isRecording
    }

    /// A variable that gradients reach if any of `inputs` needs one; `step` runs on the way back.
    private func output(
        _ value: Tensor, from inputs: [Variable?],
        _ step: @escaping (_ output: Variable, _ gradient: Tensor) throws -> Void
    ) -> Variable {
        let needs = isRecording && inputs.contains { $0?.requiresGradient ?? false }
        let result = Variable(value, requiresGradient: needs)
        if needs {
            steps.append {
                // Nothing downstream used it: nothing flows back.
                guard let gradient = result.gradient else { return }
                try step(result, gradient)
                result.dropGradient()
            }
        }
        return result
    }

    /// Runs every recorded operation backwards, last first, and forgets them.
    ///
    /// The losses seed their gradients themselves; gradients of trainable variables add up.
    public func backward() throws {
        while let step = steps.popLast() { try step() }
    }

    /// The same values; `body` sees the gradient that flows back through them.
    public func observing(_ x: Variable, _ body: @escaping (Tensor) throws -> Void) -> Variable {
        let backend = backend
        return output(x.value, from: [x]) { _, gradient in
            try body(gradient)
            try x.receive(shared: gradient, backend: backend)
        }
    }

    // MARK: Operations

    /// Rows of a table, `[ids, width]`.
    public func embed(_ ids: [Int32], table: Variable) throws -> Variable {
        let backend = backend
        return output(try backend.embed(ids, table: table.value), from: [table]) { _, gradient in
            try backend.embedGradient(gradient, ids: ids, into: table.gradientForAdding())
        }
    }

    /// `x · weightᵀ + bias`.
    public func linear(_ x: Variable, weight: Variable, bias: Variable?) throws -> Variable {
        let backend = backend
        let value = try backend.linear(x.value, weight: weight.value, bias: bias?.value)
        return output(value, from: [x, weight, bias]) { _, gradient in
            try backend.linearGradient(
                gradient, x: x.value, weight: weight.value,
                into: LinearGradient(
                    x: x.requiresGradient ? x.gradientForAdding() : nil,
                    weight: weight.requiresGradient ? weight.gradientForAdding() : nil,
                    bias: bias.flatMap { $0.requiresGradient ? $0.gradientForAdding() : nil }))
        }
    }

    /// `x · weightᵀ` for several weights.
    public func projections(_ x: Variable, weights: [Variable]) throws -> [Variable] {
        if isRecording { return try weights.map { try linear(x, weight: $0, bias: nil) } }
        return try backend.projections(x.value, weights: weights.map(\.value)).map { Variable($0) }
    }

    /// Root-mean-square normalization.
    public func rmsNorm(_ x: Variable, weight: Variable, epsilon: Float) throws -> Variable {
        let backend = backend
        let (value, scale) = try backend.rmsNorm(x.value, weight: weight.value, epsilon: epsilon)
        return output(value, from: [x, weight]) { _, gradient in
            try backend.rmsNormGradient(
                gradient, x: x.value, weight: weight.value, scale: scale, into: x.gradientForAdding(),
                weightGradient: weight.gradientForAdding())
        }
    }

    /// `x + y`, for the residual stream.
    public func add(_ x: Variable, _ y: Variable) throws -> Variable {
        let backend = backend
        return output(try backend.add(x.value, y.value), from: [x, y]) { _, gradient in
            if x.requiresGradient { try x.receive(shared: gradient, backend: backend) }
            if y.requiresGradient { try y.receive(shared: gradient, backend: backend) }
        }
    }

    /// Causal attention of the three projections; `input` says the rest.
    public func attention(
        query: Variable, key: Variable, value: Variable, _ input: (Tensor, Tensor, Tensor) -> AttentionInput
    ) throws -> Variable {
        let backend = backend
        let input = input(query.value, key.value, value.value)
        let result = try backend.attention(input)
        return output(result.output, from: [query, key, value]) { _, gradient in
            try backend.attentionGradient(
                gradient, input: input, result: result, into: query.gradientForAdding(),
                keyGradient: key.gradientForAdding(), valueGradient: value.gradientForAdding())
        }
    }

    /// Routing probabilities of one side from its logits `[tokens, heads, experts]`.
    public func route(
        _ logits: Variable, statistics: RouterStatistics, epsilon: Float, threshold: Float
    ) throws -> Variable {
        let backend = backend
        let value = try backend.route(
            logits.value, statistics: statistics, epsilon: epsilon, threshold: threshold)
        return output(value, from: [logits]) { _, gradient in
            try backend.routeGradient(gradient, probabilities: value, into: logits.gradientForAdding())
        }
    }

    /// The logits' rows seen as heads of experts; gradients pass through unchanged.
    public func reshape(_ x: Variable, _ shape: [Int]) -> Variable {
        output(x.value.reshaped(shape), from: [x]) { [backend] _, gradient in
            try x.receive(shared: gradient.reshaped(x.value.shape), backend: backend)
        }
    }

    /// The auxiliary losses of one router side, weighted into the objective.
    public func routerObjective(
        logits: Variable, probabilities: Variable, uniformity: UniformitySource, uniformityWeight: Float,
        ambiguityWeight: Float
    ) throws -> RouterObjective {
        let backend = backend
        let objective = try backend.routerObjective(
            logits: logits.value, probabilities: probabilities.value, uniformity: uniformity)
        if isRecording, logits.requiresGradient {
            steps.append {
                try backend.routerObjectiveGradient(
                    objective, logits: logits.value, probabilities: probabilities.value,
                    uniformity: uniformity,
                    uniformityWeight: uniformityWeight, ambiguityWeight: ambiguityWeight,
                    into: probabilities.gradientForAdding(), logitGradient: logits.gradientForAdding())
            }
        }
        return objective
    }

    /// Horizontally decomposed experts; `weights` in the order of `HorizontalWeights`.
    public func horizontalExperts(
        _ x: Variable, left: Variable, right: Variable, routing: ExpertRouting, u: Variable, uBias: Variable,
        v: Variable, b: Variable
    ) throws -> Variable {
        let backend = backend
        let weights = HorizontalWeights(u: u.value, uBias: uBias.value, v: v.value, b: b.value)
        let (value, saved) = try backend.horizontalExperts(
            x.value, routing: routing, weights: weights)
        return output(value, from: [x, left, right, u, uBias, v, b]) { _, gradient in
            try backend.horizontalExpertsGradient(
                gradient, x: x.value, routing: routing, weights: weights, saved: saved,
                into: ExpertGradient(
                    x: x.gradientForAdding(), left: left.gradientForAdding(), right: right.gradientForAdding()
                ),
                weightGradient: HorizontalWeights(
                    u: u.gradientForAdding(), uBias: uBias.gradientForAdding(), v: v.gradientForAdding(),
                    b: b.gradientForAdding()))
        }
    }

    /// Vertically decomposed experts; `weights` maps each of `VerticalWeights`' tensors to a variable.
    public func verticalExperts(
        _ x: Variable, left: Variable, right: Variable, routing: ExpertRouting, weights: VerticalVariables
    ) throws -> Variable {
        let backend = backend
        let values = weights.values
        let (value, saved) = try backend.verticalExperts(
            x.value, routing: routing, weights: values)
        return output(value, from: [x, left, right] + weights.all) { _, gradient in
            try backend.verticalExpertsGradient(
                gradient, x: x.value, routing: routing, weights: values, saved: saved,
                into: ExpertGradient(
                    x: x.gradientForAdding(), left: left.gradientForAdding(), right: right.gradientForAdding()
                ),
                weightGradient: weights.gradients)
        }
    }

    /// `silu(gate) · up`.
    public func gatedActivation(gate: Variable, up: Variable) throws -> Variable {
        let backend = backend
        return output(try backend.gatedActivation(gate: gate.value, up: up.value), from: [gate, up]) {
            _, gradient in
            try backend.gatedActivationGradient(
                gradient, gate: gate.value, up: up.value, into: gate.gradientForAdding(),
                upGradient: up.gradientForAdding())
        }
    }

    /// Cross entropy of each token; when recording, seeds the gradient of `scale · sum`.
    public func crossEntropy(hidden: Variable, weight: Variable, targets: [Int32], scale: Float) throws
        -> [Float]
    {
        guard isRecording, hidden.requiresGradient || weight.requiresGradient else {
            return try backend.crossEntropy(
                hidden: hidden.value, weight: weight.value, targets: targets, scale: scale, gradient: nil)
        }
        return try backend.crossEntropy(
            hidden: hidden.value, weight: weight.value, targets: targets, scale: scale,
            gradient: LinearGradient(
                x: hidden.requiresGradient ? hidden.gradientForAdding() : nil,
                weight: weight.requiresGradient ? weight.gradientForAdding() : nil, bias: nil))
    }
}

/// The variables of one layer of vertically decomposed experts.
public struct VerticalVariables {
    let u1: Variable
    let u1Bias: Variable
    let u2: Variable
    let u2Bias: Variable
    let v11: Variable
    let v12: Variable
    let v21: Variable
    let v22: Variable
    let b1: Variable
    let b2: Variable

    /// Collects the variables.
    public init(
        u1: Variable, u1Bias: Variable, u2: Variable, u2Bias: Variable, v11: Variable, v12: Variable,
        v21: Variable, v22: Variable, b1: Variable, b2: Variable
    ) {
        self.u1 = u1
        self.u1Bias = u1Bias
        self.u2 = u2
        self.u2Bias = u2Bias
        self.v11 = v11
        self.v12 = v12
        self.v21 = v21
        self.v22 = v22
        self.b1 = b1
        self.b2 = b2
    }

    var all: [Variable] { [u1, u1Bias, u2, u2Bias, v11, v12, v21, v22, b1, b2] }
    var values: VerticalWeights { weights { $0.value } }
    var gradients: VerticalWeights { weights { $0.gradientForAdding() } }

    private func weights(_ tensor: (Variable) -> Tensor) -> VerticalWeights {
        VerticalWeights(
            u1: tensor(u1), u1Bias: tensor(u1Bias), u2: tensor(u2), u2Bias: tensor(u2Bias), v11: tensor(v11),
            v12: tensor(v12), v21: tensor(v21), v22: tensor(v22), b1: tensor(b1), b2: tensor(b2))
    }
}
