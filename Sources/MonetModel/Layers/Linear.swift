import MonetCompute

/// y = x · Wᵀ + b, with W `[out, in]`, and what an adapter adds.
struct Linear: Sendable {
    /// A change of low rank, scale · (x · Aᵀ) · Bᵀ.
    struct Adapter: Sendable {
        /// A, `[rank, in]`.
        let down: Parameter
        /// B, `[out, rank]`.
        let up: Parameter
        let scale: Float
    }

    let weight: Parameter
    let bias: Parameter?
    var adapter: Adapter?

    /// Whether it is a product with one matrix and nothing else.
    var isPlain: Bool { bias == nil && adapter == nil }

    func callAsFunction(_ x: Variable, _ pass: ForwardPass) throws -> Variable {
        let y = try pass.tape.linear(x, weight: pass(weight), bias: bias.map { pass($0) })
        guard let adapter else { return y }
        let inner = try pass.tape.linear(x, weight: pass(adapter.down), bias: nil)
        return try pass.tape.add(
            y, pass.tape.linear(pass.scaled(inner, by: adapter.scale), weight: pass(adapter.up), bias: nil))
    }
}

extension ForwardPass {
    /// A few values for each token, times a number.
    fileprivate func scaled(_ x: Variable, by factor: Float) throws -> Variable {
        func product(_ tensor: Tensor) throws -> Tensor {
            try tape.backend.tensor(Tensor(tensor.floats().map { $0 * factor }, shape: tensor.shape))
        }
        return tape.record(try product(x.value), from: [x]) { [backend = tape.backend] gradient in
            let values = gradient.floats().map { $0 * factor }
            try x.add(backend.tensor(Tensor(values, shape: gradient.shape)), on: backend)
        }
    }
}
