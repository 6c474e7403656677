/// The closed list of operations that a device must offer, each with its forward and gradient.
///
/// Activations are float32 tensors whose rows are tokens, `[tokens, width]`; weights may be
/// float32, bfloat16, float16 or, for inference, quantized, and mapped. Gradients are *added* into the tensors given for them.
/// A second device is a second type that conforms.
public protocol Backend: Sendable {
    /// The device's and instruction set's name, for logs.
    var name: String { get }

    /// Rows of `table` `[vocabulary, width]` for `ids`; `[ids.count, width]`.
    func embed(_ ids: [Int32], table: Tensor) throws -> Tensor
    /// Adds rows of `outputGradient` into the rows of `tableGradient` that `ids` name.
    func embedGradient(_ outputGradient: Tensor, ids: [Int32], into tableGradient: Tensor) throws

    /// `x · weightᵀ + bias`, with weight `[out, in]`; `[tokens, out]`.
    func linear(_ x: Tensor, weight: Tensor, bias: Tensor?) throws -> Tensor
    /// `linear` without bias for several weights of the same input.
    func projections(_ x: Tensor, weights: [Tensor]) throws -> [Tensor]
    /// Gradient of `linear`.
    func linearGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, into gradient: LinearGradient) throws

    /// Root-mean-square normalization, `weight · x / sqrt(mean(x²) + epsilon)`.
    ///
    /// - Returns: the output and each row's reciprocal root `[tokens]`, which the gradient needs.
    func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float) throws -> (output: Tensor, scale: Tensor)
    /// Gradient of `rmsNorm`.
    func rmsNormGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor,
        into xGradient: Tensor, weightGradient: Tensor) throws

    /// Causal attention with rotary position embedding and shared key-value heads.
    func attention(_ input: AttentionInput) throws -> AttentionResult
    /// Gradient of `attention` for the projections before rotation. Not for calls with a cache or with earlier positions.
    func attentionGradient(
        _ outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        into queryGradient: Tensor, keyGradient: Tensor, valueGradient: Tensor) throws

    /// Mean and biased variance of each head's logits `[tokens, heads, experts]` over tokens and experts.
    func routerStatistics(_ logits: Tensor) throws -> RouterStatistics
    /// Selection and softmax of section 3 of the paper.
    ///
    /// - Returns: `[tokens, heads, experts]` with exact zeros outside the selection.
    func route(_ logits: Tensor, statistics: RouterStatistics, epsilon: Float, threshold: Float) throws
        -> Tensor
    /// A router's logits for inference where only those that can be selected are exact; all others are
    /// −∞. `[tokens, heads · experts]` for each side.
    func screenedLogits(
        _ x: Tensor, sides: [(weight: Tensor, screen: RouterScreen, rule: RouterSelectionRule)]
    ) throws -> [Tensor]
    /// Gradient of `route` with the selection held fixed.
    func routeGradient(_ probabilityGradient: Tensor, probabilities: Tensor, into logitGradient: Tensor)
        throws
    /// The two auxiliary losses for one side of a router (equations 16 and 17).
    func routerObjective(
        logits: Tensor, probabilities: Tensor, uniformity: UniformitySource
    ) throws -> RouterObjective
    /// Gradient of `routerObjective`, each loss with its weight.
    func routerObjectiveGradient(
        _ objective: RouterObjective, logits: Tensor, probabilities: Tensor, uniformity: UniformitySource,
        uniformityWeight: Float, ambiguityWeight: Float,
        into probabilityGradient: Tensor, logitGradient: Tensor) throws

    /// Horizontally decomposed experts (equations 6 to 12).
    func horizontalExperts(
        _ x: Tensor, routing: ExpertRouting, weights: HorizontalWeights
    ) throws -> (output: Tensor, saved: ExpertActivations)
    /// Gradient of `horizontalExperts`.
    func horizontalExpertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: HorizontalWeights,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: HorizontalWeights) throws

    /// Vertically decomposed experts (equations 13 to 15).
    func verticalExperts(
        _ x: Tensor, routing: ExpertRouting, weights: VerticalWeights
    ) throws -> (output: Tensor, saved: ExpertActivations)
    /// Gradient of `verticalExperts`.
    func verticalExpertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: VerticalWeights,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: VerticalWeights) throws

    /// Either kind of experts for inference, from weights in the order of the experts.
    func packedExperts(_ x: Tensor, routing: ExpertRouting, weights: PackedExperts) throws -> Tensor

    /// `silu(gate) · up`, the activation of a SwiGLU feed-forward.
    func gatedActivation(gate: Tensor, up: Tensor) throws -> Tensor
    /// Gradient of `gatedActivation`.
    func gatedActivationGradient(
        _ outputGradient: Tensor, gate: Tensor, up: Tensor, into gateGradient: Tensor, upGradient: Tensor)
        throws

    /// Each token's cross entropy under the output head, without ever holding all logits.
    ///
    /// - Parameters:
    ///   - hidden: `[tokens, width]`; weight: `[vocabulary, width]`.
    ///   - targets: one id a token; a negative one is left out and costs 0.
    ///   - gradient: where to add the gradient of `scale · sum of losses`; bias is ignored.
    func crossEntropy(
        hidden: Tensor, weight: Tensor, targets: [Int32], scale: Float, gradient: LinearGradient?
    ) throws -> [Float]

    /// `x + y`.
    func add(_ x: Tensor, _ y: Tensor) throws -> Tensor
    /// Adds `x` into `total`.
    func accumulate(_ x: Tensor, into total: Tensor) throws
    /// Sum of squares over all elements: short stretches in float32, their sums in double precision.
    func sumOfSquares(_ x: Tensor) throws -> Double
    /// One AdamW update in place.
    func adamWStep(_ step: AdamWStep, parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor)
        throws
}

/// Where `Backend.linearGradient` adds its results; nil leaves a part out.
public struct LinearGradient: Sendable {
    /// `[tokens, in]`.
    public var x: Tensor?
    /// `[out, in]`.
    public var weight: Tensor?
    /// `[out]`.
    public var bias: Tensor?

    /// Names the tensors to add into.
    public init(x: Tensor?, weight: Tensor?, bias: Tensor?) {
        self.x = x
        self.weight = weight
        self.bias = bias
    }
}

/// Cosines and sines of the rotary embedding, `[positions, head width / 2]` each.
public struct RotaryTable: Sendable {
    /// Cosines of position times frequency.
    public let cosine: Tensor
    /// Sines of position times frequency.
    public let sine: Tensor

    /// Wraps two tables of equal shape.
    public init(cosine: Tensor, sine: Tensor) {
        self.cosine = cosine
        self.sine = sine
    }
}

/// What attention reads: the tokens of one or more sequences, one sequence after the other.
public struct AttentionInput: Sendable {
    /// Projections before rotation, `[tokens, heads × headWidth]`.
    public var query: Tensor
    /// `[tokens, keyValueHeads × headWidth]`.
    public var key: Tensor
    /// `[tokens, keyValueHeads × headWidth]`.
    public var value: Tensor
    /// Rotation for every absolute position in use.
    public var rotary: RotaryTable
    /// Query heads.
    public var heads: Int
    /// Key-value heads, a divisor of `heads`.
    public var keyValueHeads: Int
    /// The sequences, in the order of their tokens.
    public var segments: [AttentionSegment]

    /// Collects the inputs.
    public init(
        query: Tensor, key: Tensor, value: Tensor, rotary: RotaryTable, heads: Int, keyValueHeads: Int,
        segments: [AttentionSegment]
    ) {
        self.query = query
        self.key = key
        self.value = value
        self.rotary = rotary
        self.heads = heads
        self.keyValueHeads = keyValueHeads
        self.segments = segments
    }
}

/// The tokens of one sequence in an attention call.
public struct AttentionSegment: Sendable {
    /// Tokens in this call.
    public var count: Int
    /// Position of the first of them.
    public var position: Int
    /// Earlier keys and values, and the place for the new ones.
    public var cache: AttentionCache?

    /// Collects the numbers.
    public init(count: Int, position: Int = 0, cache: AttentionCache? = nil) {
        self.count = count
        self.position = position
        self.cache = cache
    }
}

/// One layer's keys and values of one sequence, a row for every key-value head and token, a head's rows
/// together: `[keyValueHeads × capacity, headWidth]`, float32, bfloat16 or rows of int8.
public struct AttentionCache: Sendable {
    /// Rotated keys.
    public let keys: Tensor
    /// Values.
    public let values: Tensor

    /// Wraps two tensors of equal shape and type.
    public init(keys: Tensor, values: Tensor) {
        self.keys = keys
        self.values = values
    }
}

/// What attention gives, with what its gradient needs.
public struct AttentionResult: Sendable {
    /// `[tokens, heads × headWidth]`.
    public let output: Tensor
    /// Rotated queries.
    public let query: Tensor
    /// Rotated keys.
    public let key: Tensor
    /// Logarithm of each softmax's denominator, `[tokens, heads]`.
    public let logSumExp: Tensor

    /// Collects the results.
    public init(output: Tensor, query: Tensor, key: Tensor, logSumExp: Tensor) {
        self.output = output
        self.query = query
        self.key = key
        self.logSumExp = logSumExp
    }
}

/// A router side's normalization statistics, one value a head.
public struct RouterStatistics: Sendable, Equatable {
    /// Mean of the logits.
    public var mean: [Float]
    /// Variance of the logits, biased.
    public var variance: [Float]

    /// Wraps one mean and variance a head.
    public init(mean: [Float], variance: [Float]) {
        self.mean = mean
        self.variance = variance
    }
}

/// Which probabilities the uniformity loss averages.
public enum UniformitySource: String, Sendable, Codable, CaseIterable {
    /// Those after the selection, the paper's text read literally.
    case selected
    /// A softmax over all logits: also an expert that nothing selects gets a gradient.
    case full
}

/// Auxiliary losses of one router side and how its experts are used.
public struct RouterObjective: Sendable {
    /// This side's share of equation 16, `−1/(2HE) Σ log p`.
    public let uniformity: Double
    /// This side's share of equation 17, `mean 1/(2H) Σ (1 − max g)`.
    public let ambiguity: Double
    /// Mean probability of each expert over the tokens, from the uniformity source, `[heads × experts]`.
    public let meanProbability: [Float]
    /// Experts selected per token and head, on average.
    public let selectedPerHead: Double
    /// How many tokens selected each expert, `[heads × experts]`.
    public let selectionCounts: [Int]

    /// Collects the results.
    public init(
        uniformity: Double, ambiguity: Double, meanProbability: [Float], selectedPerHead: Double,
        selectionCounts: [Int]
    ) {
        self.uniformity = uniformity
        self.ambiguity = ambiguity
        self.meanProbability = meanProbability
        self.selectedPerHead = selectedPerHead
        self.selectionCounts = selectionCounts
    }
}

/// Weights of horizontally decomposed experts; also the tensors for their gradients.
public struct HorizontalWeights: Sendable {
    /// `[E·m, d]` and `[E·m]`.
    public var u: Tensor
    public var uBias: Tensor
    /// `[d, E·m]`.
    public var v: Tensor
    /// `[E, d]`.
    public var b: Tensor

    /// Collects the weights.
    public init(u: Tensor, uBias: Tensor, v: Tensor, b: Tensor) {
        self.u = u
        self.uBias = uBias
        self.v = v
        self.b = b
    }
}

/// Weights of vertically decomposed experts; also the tensors for their gradients.
public struct VerticalWeights: Sendable {
    /// `[E·m/2, d]` and `[E·m/2]`, left and right.
    public var u1: Tensor
    public var u1Bias: Tensor
    public var u2: Tensor
    public var u2Bias: Tensor
    /// `[d/2, E·m/2]`.
    public var v11: Tensor
    public var v12: Tensor
    public var v21: Tensor
    public var v22: Tensor
    /// `[E, d/2]`, upper and lower.
    public var b1: Tensor
    public var b2: Tensor

    /// Collects the weights.
    public init(
        u1: Tensor, u1Bias: Tensor, u2: Tensor, u2Bias: Tensor, v11: Tensor, v12: Tensor, v21: Tensor,
        v22: Tensor, b1: Tensor, b2: Tensor
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
}

/// What an expert layer keeps of its forward pass for the gradient.
public struct ExpertActivations: Sendable {
    /// In the backend's own form; only the backend that made it reads it.
    let content: any Sendable

    /// Wraps a backend's activations.
    init(_ content: any Sendable) {
        self.content = content
    }
}

/// Where an expert layer's gradient adds what belongs to its inputs.
public struct ExpertGradient: Sendable {
    /// `[tokens, d]`.
    public var x: Tensor
    /// `[tokens, heads, experts]`, left and right.
    public var left: Tensor
    public var right: Tensor

    /// Names the tensors to add into.
    public init(x: Tensor, left: Tensor, right: Tensor) {
        self.x = x
        self.left = left
        self.right = right
    }
}

/// The numbers of one AdamW update.
public struct AdamWStep: Sendable {
    public var learningRate: Float
    public var beta1: Float
    public var beta2: Float
    public var epsilon: Float
    public var weightDecay: Float
    /// Updates done, this one included.
    public var step: Int
    /// Factor on the gradient, for clipping.
    public var gradientScale: Float

    /// Collects the numbers.
    public init(
        learningRate: Float, beta1: Float, beta2: Float, epsilon: Float, weightDecay: Float, step: Int,
        gradientScale: Float
    ) {
        self.learningRate = learningRate
        self.beta1 = beta1
        self.beta2 = beta2
        self.epsilon = epsilon
        self.weightDecay = weightDecay
        self.step = step
        self.gradientScale = gradientScale
    }
}
