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
