import MonetCompute

/// Experts of either decomposition for inference, from packed weights; the same numbers as
/// `HorizontalExperts` and `VerticalExperts`.
struct PackedExpertLayer: Sendable {
    let weights: PackedExperts

    func callAsFunction(_ h: Variable, _ routing: Routing, _ context: ForwardContext) throws -> Variable {
        guard !context.tape.isRecording else {
            throw ModelError.invalidInput(reason: "a model with packed expert weights cannot be trained")
        }
        return Variable(
            try context.tape.backend.packedExperts(h.value, routing: routing.experts, weights: weights))
    }

    init(_ kind: MonetConfiguration.FeedForward, _ parameter: (String) throws -> Parameter) throws {
        func up(_ name: String) throws -> PackedExperts.UpProjection {
            .init(weight: try parameter(name + ".weight").tensor, bias: try parameter(name + ".bias").tensor)
        }
        func down(_ name: String, bias: String) throws -> PackedExperts.DownProjection {
            .init(weight: try parameter(name + ".weight").tensor, bias: try parameter(bias).tensor)
        }
        weights = PackedExperts(
            kind == .horizontal
                ? .horizontal(up: try up("moe.u"), down: try down("moe.down", bias: "moe.b"))
                : .vertical(
                    left: try up("moe.u1"), right: try up("moe.u2"),
                    upper: try down("moe.down1", bias: "moe.b1"), lower: try down("moe.down2", bias: "moe.b2")
                ))
    }
}
