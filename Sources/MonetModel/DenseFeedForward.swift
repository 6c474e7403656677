import MonetCompute

/// SwiGLU, Llama's feed-forward: W_down (silu(W_gate h) · W_up h).
struct DenseFeedForward: Sendable {
    let gate: Linear
    let up: Linear
    let down: Linear

    func callAsFunction(_ h: Variable, layer: Int, _ context: ForwardContext) throws -> Variable {
        var hidden = try context.tape.gatedActivation(gate: gate(h, context), up: up(h, context))
        context.observesNeurons?(layer, hidden.value)
        if let removed = context.removedNeurons[layer], !removed.isEmpty {
            guard !context.tape.isRecording else {
                throw ModelError.invalidInput(reason: "neurons cannot be removed in a run with gradients")
            }
            hidden = Variable(hidden.value.zeroing(columns: removed))
        }
        return try down(hidden, context)
    }
}

extension Tensor {
    /// A copy with zeros in some columns.
    fileprivate func zeroing(columns: [Int]) -> Tensor {
        let result = copy()
        for row in 0..<rowCount {
            for column in columns { result.pointer[row * columnCount + column] = 0 }
        }
        return result
    }
}
