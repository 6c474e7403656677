import MonetCompute

/// A SwiGLU block linearized at its inputs: silu(W_gate h) keeps its value, so that a neuron's output is
/// W_down[:, u] · silu(gate) · W_up[u] · h.
struct LinearizedNeurons: LinearizedFeedForward {
    private let up: Tensor
    private let down: Tensor
    private let backend: any Backend
    /// Hidden units, `[tokens, units]`, with strengths.
    private let hidden: [Float]
    /// What multiplies W_up h, `[tokens, units]`, with strengths.
    private let gates: [Float]
    private let units: Int

    init(_ point: FeedForwardPoint, _ parameters: LayerParameters, on backend: any Backend) throws {
        guard let neurons = point.units as? NeuronActivations else {
            throw ModelError.invalidInput(reason: "effects of neurons need a pass that keeps units")
        }
        self.backend = backend
        up = try parameters("mlp.up_proj.weight").tensor
        down = try parameters("mlp.down_proj.weight").tensor
        units = up.rowCount
        hidden = neurons.hidden.value.floats()
        // silu(z) · 1: the activation with an up-projection of ones.
        let gate = try backend.linear(
            point.input, weight: parameters("mlp.gate_proj.weight").tensor, bias: nil)
        let ones = try backend.tensor(
            Tensor([Float](repeating: 1, count: gate.count), shape: gate.shape))
        let gates = try backend.gatedActivation(gate: gate, up: ones)
        self.gates =
            try point.strengths.isEmpty ? gates.floats() : backend.scaled(gates, by: point.strengths).floats()
    }

    func contributions(
        of gradient: Tensor, _ visit: (_ token: Int, _ unit: Int, _ contribution: Double) -> Void
    ) throws {
        let back = try backend.transposedProduct(gradient, weight: down).floats()
        for (place, value) in hidden.enumerated() where value != 0 {
            visit(place / units, place % units, Double(value) * Double(back[place]))
        }
    }

    func score(_ term: UnitTerm) -> Double { Double(abs(hidden[term.token * units + term.unit])) }

    func outputs(_ terms: [UnitTerm]) throws -> [Float] {
        let (matrix, width) = (down.floats(), down.rowCount)
        return terms.flatMap { term in
            let value = hidden[term.token * units + term.unit]
            return (0..<width).map { value * matrix[$0 * units + term.unit] }
        }
    }

    func inputGradient(of gradient: Tensor) throws -> (gradient: Tensor, biases: [Double]) {
        let back = try backend.transposedProduct(gradient, weight: down).floats()
        let gated = zip(back, gates).map { $0 * $1 }
        let result = try backend.transposedProduct(
            backend.tensor(Tensor(gated, shape: [gradient.rowCount, units])), weight: up)
        return (result, [Double](repeating: 0, count: gradient.rowCount))
    }

    func inputGradients(_ terms: [UnitTerm], of gradients: [Float]) throws -> (
        gradients: [Float], biases: [Double]
    ) {
        let (downs, ups, width) = (down.floats(), up.floats(), down.rowCount)
        var result: [Float] = []
        result.reserveCapacity(terms.count * width)
        for (place, term) in terms.enumerated() {
            let back = (0..<width).reduce(Float(0)) {
                $0 + gradients[place * width + $1] * downs[$1 * units + term.unit]
            }
            let factor = back * gates[term.token * units + term.unit]
            result += ups[(term.unit * width)..<((term.unit + 1) * width)].map { factor * $0 }
        }
        return (result, [Double](repeating: 0, count: terms.count))
    }
}
