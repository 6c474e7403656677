import MonetCompute

extension HorizontalWeights {
    /// From a list in the order u, its bias, v, b.
    public init(listed t: [Tensor]) {
        self.init(u: t[0], uBias: t[1], v: t[2], b: t[3])
    }
}

extension VerticalWeights {
    /// From a list in the order u1, its bias, u2, its bias, v11, v12, v21, v22, b1, b2.
    public init(listed t: [Tensor]) {
        self.init(
            u1: t[0], u1Bias: t[1], u2: t[2], u2Bias: t[3], v11: t[4], v12: t[5], v21: t[6], v22: t[7],
            b1: t[8], b2: t[9])
    }
}
