import MonetCompute

/// y = w · x / sqrt(mean(x²) + ε), statistics in float32.
struct RMSNorm: Sendable {
    let weight: Parameter
    let epsilon: Float

    func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        try context.tape.rmsNorm(x, weight: context(weight), epsilon: epsilon)
    }
}
