import MonetCompute

/// y = x · Wᵀ + b, with W `[out, in]`.
struct Linear: Sendable {
    let weight: Parameter
    let bias: Parameter?

    func callAsFunction(_ x: Variable, _ context: ForwardContext) throws -> Variable {
        try context.tape.linear(x, weight: context(weight), bias: bias.map { context($0) })
    }
}
