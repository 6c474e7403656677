import MonetCompute

/// SwiGLU, Llama's feed-forward: W_down (silu(W_gate h) · W_up h).
struct DenseFeedForward: Sendable {
    let gate: Linear
    let up: Linear
    let down: Linear

    func callAsFunction(_ h: Variable, _ context: ForwardContext) throws -> Variable {
        try down(context.tape.gatedActivation(gate: gate(h, context), up: up(h, context)), context)
    }
}
