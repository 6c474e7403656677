import MonetCompute

/// One run of the model: the tape, whether routers learn, and what to keep.
public final class ForwardContext {
    /// What training asks of a forward pass.
    public struct Training: Sendable {
        /// Which probabilities the uniformity loss averages.
        public var uniformity: UniformitySource
        /// Weights of the two auxiliary losses in the total, already divided by accumulation steps.
        public var uniformityWeight: Float
        public var ambiguityWeight: Float
        /// Share of the batch in the running statistics.
        public var momentum: Float

        /// Collects the settings.
        public init(
            uniformity: UniformitySource, uniformityWeight: Float, ambiguityWeight: Float,
            momentum: Float = 0.1
        ) {
            self.uniformity = uniformity
            self.uniformityWeight = uniformityWeight
            self.ambiguityWeight = ambiguityWeight
            self.momentum = momentum
        }
    }

    /// Where operations run and are recorded.
    public let tape: GradientTape
    /// Set in training: batch statistics normalize, and update the running ones.
    public let training: Training?
    /// Whether to keep every layer's input, for `ForwardOutput.hiddenStates`.
    public var keepsHiddenStates = false
    /// Whether to measure routing (objective and usage) without training.
    public var measuresRouting = false
    /// Experts to remove, weaken or amplify, instead of the model's own mask if it has one.
    public var mask: ExpertMask?
    /// Embeddings to use instead of the tokens' own, by position in the text, `[d]`.
    public var replacedEmbeddings: [Int: [Float]] = [:]
    /// Sees what flows back through the output of every layer of experts.
    public var observesExperts: ((ExpertFlow) throws -> Void)?
    /// Sees the hidden units of every dense feed-forward, `[tokens, units]`, by layer.
    public var observesNeurons: ((_ layer: Int, _ hidden: Tensor) -> Void)?
    /// Hidden units of dense feed-forwards that are set to zero, by layer.
    public var removedNeurons: [Int: [Int]] = [:]
    /// Whether routers take the statistics of this run's tokens as their running ones.
    var calibratesRouters = false
    private let variables: ParameterVariables?

    /// A run that gives values only.
    public init(inferenceOn backend: any Backend) {
        tape = GradientTape(backend: backend, isRecording: false)
        training = nil
        variables = nil
    }

    /// A run whose gradients add up in `variables`.
    public init(trainingOn backend: any Backend, _ training: Training, variables: ParameterVariables) {
        tape = GradientTape(backend: backend, isRecording: true)
        self.training = training
        self.variables = variables
    }

    /// A run with the model as it is, from whose losses gradients flow back to every layer but change
    /// no parameter: for `observesExperts`.
    public init(observingOn backend: any Backend, model: MonetLanguageModel) {
        tape = GradientTape(backend: backend, isRecording: true)
        training = nil
        // One variable that needs a gradient at the bottom draws it through all layers.
        let bottom = "model.embed_tokens.weight"
        variables = ParameterVariables(frozen: Set(model.parameters.all.map(\.name)).subtracting([bottom]))
    }

    /// The variable of a parameter.
    func callAsFunction(_ parameter: Parameter) -> Variable {
        variables?.variable(of: parameter) ?? Variable(parameter.tensor)
    }
}

/// What passes through one layer of experts in a run with gradients.
public struct ExpertFlow {
    /// The layer.
    public let layer: Int
    /// The experts' input, `[tokens, d]`.
    public let input: Tensor
    /// ĝ1 and ĝ2, `[tokens, heads, experts]`.
    public let left: Tensor
    public let right: Tensor
    /// Gradient of the loss by the experts' output, `[tokens, d]`.
    public let outputGradient: Tensor
}

/// Variables of a model's parameters, which hold gradients between micro-batches.
public final class ParameterVariables {
    private var byName: [String: Variable] = [:]
    private let frozen: Set<String>

    /// Variables for all parameters; those named in `frozen` get no gradient.
    public init(frozen: Set<String> = []) {
        self.frozen = frozen
    }

    func variable(of parameter: Parameter) -> Variable {
        if let known = byName[parameter.name] { return known }
        let variable = Variable(parameter.tensor, requiresGradient: !frozen.contains(parameter.name))
        byName[parameter.name] = variable
        return variable
    }

    /// The gradient collected for a parameter; nil if nothing reached it.
    public func gradient(of parameter: Parameter) -> Tensor? { byName[parameter.name]?.gradient }

    /// Forgets all gradients.
    public func reset() { byName.removeAll() }
}
