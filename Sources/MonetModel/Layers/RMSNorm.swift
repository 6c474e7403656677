import MonetCompute

/// y = w · x / sqrt(mean(x²) + ε), with statistics in float32.
struct RMSNorm: Sendable {
    let weight: Parameter
    let epsilon: Float

    func callAsFunction(_ x: Variable, _ pass: ForwardPass) throws -> Variable {
        try pass.tape.rmsNorm(x, weight: pass(weight), epsilon: epsilon)
    }
}
