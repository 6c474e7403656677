/// The operations that a device offers, each with its gradient.
///
/// A device is a type that conforms, in any module. It owns the memory of its tensors (`TensorStorage`); the
/// host reads and writes them only through `Tensor.floats()` and `Tensor.write`. Activations are float32
/// tensors whose rows are tokens, `[tokens, width]`; weights may be float32, bfloat16, float16 or, for
/// inference, quantized. Results lie on the device. Gradients are *added* into the tensors given for them.
/// Shapes that do not fit are a `ComputeError`.
public protocol Backend: Sendable {
    /// The device's name, for logs and errors.
    var name: String { get }
    /// Whether attention reads caches whose first rows belong to several sequences (`AttentionCache.beginning`);
    /// false unless a device says otherwise.
    var sharesBeginnings: Bool { get }
    /// The name of the arithmetic: backends of one name give equal results; `name` unless a device says otherwise.
    var arithmeticName: String { get }
    /// The same device for passes of many rows; itself unless a device says otherwise.
    var forManyRows: any Backend { get }

    // MARK: Memory

    /// The tensor on this device; itself if it lies there.
    func tensor(_ source: Tensor) throws -> Tensor
    /// Elements of no particular value on this device.
    func empty(_ shape: [Int], dtype: DType) throws -> Tensor
    /// Zeros on this device.
    func zeros(_ shape: [Int], dtype: DType) throws -> Tensor
    /// Copies elements into another tensor of this device, of equal type and count.
    func copy(_ source: Tensor, into target: Tensor) throws

    // MARK: Embedding and projections

    /// Rows of `table` `[rows, width]` by number; `[ids.count, width]`.
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

    // MARK: Attention

    /// Causal attention with rotary position embedding and shared key-value heads.
    func attention(_ input: AttentionInput) throws -> AttentionResult
    /// Gradient of `attention` for the projections before rotation. Not for calls with a cache or with earlier positions.
    func attentionGradient(
        _ outputGradient: Tensor, input: AttentionInput, result: AttentionResult,
        into queryGradient: Tensor, keyGradient: Tensor, valueGradient: Tensor) throws

    /// The probabilities of `attention`, for passes that look at them: `[tokens, heads, keys]` of a token's own
    /// sequence from its first token on, with zeros after itself; keys are as many as the longest sequence
    /// has tokens. New keys and values go into the caches.
    func attentionPattern(_ input: AttentionInput) throws -> Tensor
    /// Gradient of `attentionPattern`; not for calls with a cache.
    func attentionPatternGradient(
        _ patternGradient: Tensor, pattern: Tensor, input: AttentionInput, into queryGradient: Tensor,
        keyGradient: Tensor) throws
    /// Values mixed by given probabilities, `[tokens, heads × headWidth]`. Caches hold the new values already.
    func attentionMixture(_ pattern: Tensor, input: AttentionInput) throws -> Tensor
    /// Gradient of `attentionMixture`; not for calls with a cache.
    func attentionMixtureGradient(
        _ outputGradient: Tensor, pattern: Tensor, input: AttentionInput, into patternGradient: Tensor,
        valueGradient: Tensor) throws

    // MARK: Routing

    /// Mean and biased variance of each head's logits `[tokens, heads, experts]` over tokens and experts.
    func routerStatistics(_ logits: Tensor) throws -> RouterStatistics
    /// Selection and softmax of section 3 of the paper.
    ///
    /// - Returns: `[tokens, heads, experts]` with exact zeros outside the selection.
    func route(_ logits: Tensor, rule: RouterSelectionRule) throws -> Tensor
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

    // MARK: Feed-forward

    /// The experts' output (equations 6 to 15, by the weights' plan), `[tokens, d]`.
    func experts(
        _ x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>
    ) throws -> (output: Tensor, saved: ExpertActivations)
    /// Gradient of `experts`; `weightGradient` has the layout of columns.
    func expertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: ExpertWeights<Tensor>,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: ExpertWeights<Tensor>) throws

    /// `silu(gate) · up`, the activation of a SwiGLU feed-forward.
    func gatedActivation(gate: Tensor, up: Tensor) throws -> Tensor
    /// Gradient of `gatedActivation`.
    func gatedActivationGradient(
        _ outputGradient: Tensor, gate: Tensor, up: Tensor, into gateGradient: Tensor, upGradient: Tensor)
        throws
    /// Hidden units `[tokens, units]` times their strengths.
    func scaled(_ hidden: Tensor, by strengths: [RowStrengths]) throws -> Tensor

    // MARK: Inference

    /// Expert weights, in either layout, in the form that this device runs fastest.
    func prepare(_ weights: ExpertWeights<Tensor>) throws -> PreparedWeights
    /// `experts` from prepared weights.
    func experts(_ x: Tensor, routing: ExpertRouting, prepared: PreparedWeights) throws -> Tensor
    /// A router in the form that this device runs fastest.
    func prepare(_ router: RouterWeights) throws -> PreparedWeights
    /// Both sides' probabilities, `[tokens, heads, experts]` each, for a router's input `[tokens, d]`.
    func route(_ x: Tensor, prepared: PreparedWeights) throws -> (left: Tensor, right: Tensor)

    // MARK: Loss and optimizer

    /// Each token's cross entropy under the output head, `[tokens]`, without ever holding all logits.
    ///
    /// - `hidden`: `[tokens, width]`; weight: `[vocabulary, width]`.
    /// - `targets`: one id a token; a negative one is left out and costs 0.
    /// - `gradient`: where to add the gradient of `scale · sum of losses`; bias is ignored.
    func crossEntropy(
        hidden: Tensor, weight: Tensor, targets: [Int32], scale: Float, gradient: LinearGradient?
    ) throws -> Tensor
    /// The column of each row's largest element, the first of equal ones; int32 `[rows]`.
    func largestColumns(_ x: Tensor) throws -> Tensor

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

// A device that gains nothing by preparing weights runs the plain operations.
extension Backend {
    public func projections(_ x: Tensor, weights: [Tensor]) throws -> [Tensor] {
        try weights.map { try linear(x, weight: $0, bias: nil) }
    }

    public func prepare(_ weights: ExpertWeights<Tensor>) throws -> PreparedWeights {
        PreparedWeights(weights)
    }

    public func experts(_ x: Tensor, routing: ExpertRouting, prepared: PreparedWeights) throws -> Tensor {
        guard let weights = prepared.content as? ExpertWeights<Tensor> else {
            throw ComputeError.foreignPreparation(operation: "experts", device: name)
        }
        return try experts(x, routing: routing, weights: weights).output
    }

    public func prepare(_ router: RouterWeights) throws -> PreparedWeights { PreparedWeights(router) }

    public func route(_ x: Tensor, prepared: PreparedWeights) throws -> (left: Tensor, right: Tensor) {
        guard let router = prepared.content as? RouterWeights else {
            throw ComputeError.foreignPreparation(operation: "router", device: name)
        }
        let logits = try projections(x, weights: router.sides.map(\.weight))
        let probabilities = try zip(logits, router.sides).map { logits, side in
            try route(
                logits.reshaped([x.rowCount, router.heads, logits.columnCount / router.heads]),
                rule: side.rule)
        }
        return (probabilities[0], probabilities[1])
    }
}

extension Backend {
    public var sharesBeginnings: Bool { false }
    public var arithmeticName: String { name }
    public var forManyRows: any Backend { self }
}
