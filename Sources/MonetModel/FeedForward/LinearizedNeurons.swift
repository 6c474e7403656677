import Foundation
import MonetCompute

/// A SwiGLU block linearized at its inputs: silu(W_gate h) keeps its value, so that a neuron's output is
/// W_down[:, u] · silu(gate) · W_up[u] · h.
struct LinearizedNeurons: LinearizedFeedForward {
    private let gate: Tensor
    private let up: Tensor
    private let down: Tensor
    private let backend: any Backend
    /// Hidden units, `[tokens, units]`, with strengths.
    private let hidden: [Float]
    /// What multiplies W_up h, `[tokens, units]`, with strengths.
    private let gates: [Float]
    /// The strength of each hidden unit at each token, `[tokens, units]`; nil if all are 1.
    private let strengths: [Float]?
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
        gate = try parameters("mlp.gate_proj.weight").tensor
        let before = try backend.linear(point.input, weight: gate, bias: nil)
        // silu(z) · 1: the activation with an up-projection of ones.
        let ones = try backend.tensor(
            Tensor([Float](repeating: 1, count: before.count), shape: before.shape))
        strengths =
            try point.strengths.isEmpty ? nil : backend.scaled(ones, by: point.strengths).floats()
        let gates = try backend.gatedActivation(gate: before, up: ones).floats()
        self.gates = strengths.map { zip(gates, $0).map { $0 * $1 } } ?? gates
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

    func outputs(_ terms: [UnitTerm], forInputs inputs: [Float]) throws -> [Float] {
        let (gates, ups, downs, width) = (gate.floats(), up.floats(), down.floats(), down.rowCount)
        return terms.enumerated().flatMap { place, term -> [Float] in
            func product(_ matrix: [Float]) -> Float {
                (0..<width).reduce(Float(0)) {
                    $0 + matrix[term.unit * width + $1] * inputs[place * width + $1]
                }
            }
            let z = product(gates)
            let strength = strengths?[term.token * units + term.unit] ?? 1
            let value = strength * z / (1 + exp(-z)) * product(ups)
            return (0..<width).map { value * downs[$0 * units + term.unit] }
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
