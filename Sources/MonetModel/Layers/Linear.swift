import MonetCompute

/// y = x · Wᵀ + b, with W `[out, in]`.
struct Linear: Sendable {
    let weight: Parameter
    let bias: Parameter?

    func callAsFunction(_ x: Variable, _ pass: ForwardPass) throws -> Variable {
        try pass.tape.linear(x, weight: pass(weight), bias: bias.map { pass($0) })
    }
}
