import MonetCompute

/// Values and gradients of one layer's feed-forward block after a pass with gradients.
public struct FeedForwardFlow {
    /// The layer.
    public let layer: Int
    /// The block's input, `[tokens, d]`.
    public let input: Tensor
    /// The activations of its group of units.
    public let units: any UnitActivations
    /// Gradient of the loss with respect to the block's output, `[tokens, d]`.
    public let outputGradient: Tensor

    /// The hook points that a pass must observe.
    public static let observed: [HookPoint.Kind] = [.mlpIn, .mlpOut]
    /// The flow through a layer of an observed pass, after `backward`.
    ///
    /// - Throws: `ModelError.invalidInput` for a pass without these observations or without gradients.
    public init(_ output: ForwardOutput, layer: Int, units layout: UnitLayout) throws {
        guard let input = output.observations[HookPoint(.mlpIn, layer: layer)],
            let gradient = output.observations[HookPoint(.mlpOut, layer: layer)]?.gradient,
            let group = layout.layersOfGroup.firstIndex(where: { $0.contains(layer) }),
            let units = output.groups.first(where: { $0.group == group })
        else {
            throw ModelError.invalidInput(
                reason: "effects of layer \(layer) need a pass with gradients, run back, that observed "
                    + Self.observed.map(\.rawValue).joined(separator: " and "))
        }
        self.layer = layer
        self.input = input.value
        self.units = units
        outputGradient = gradient
    }
}

/// ∂L/∂y · f_ij(h) of any pair (i, j), where f_ij is the expert's function: the plan's terms for a single pair,
/// computed from products of each half alone.
struct PairTerms {
    private let plan: ExpertPlan
    private let experts: Int
    private let units: Int
    /// For every projection and source, the index of the source among the hidden sides.
    private let sources: [[Int]]
    /// σ(U h + b) of each hidden side, `[tokens, E · units]`.
    private let hidden: [[Float]]
    /// For every projection and source, ∂L/∂y through the down-matrix, `[tokens, E · units]`.
    private let back: [[[Float]]]
    /// For every projection, ∂L/∂y · output bias, `[tokens, E]`.
    private let bias: [[Float]]

    init(_ flow: FeedForwardFlow, _ weights: ExpertWeights<Tensor>, on backend: any Backend) throws {
        self.plan = weights.plan
        guard let up = weights.up.first, let bias = weights.down.first?.bias, bias.rowCount > 0,
            weights.up.count == weights.plan.hidden.count,
            weights.down.count == weights.plan.projections.count
        else { throw ModelError.invalidInput(reason: "weights that do not fit the equations of the layer") }
        experts = bias.rowCount
        units = up.weight.rowCount / experts
        let plan = weights.plan
        sources = try plan.projections.map { projection in
            try projection.sources.map { source in
                guard let place = plan.hidden.firstIndex(of: source) else {
                    throw ModelError.invalidInput(reason: "a projection from a side without hidden units")
                }
                return place
            }
        }
        hidden = try weights.up.map { up in
            try backend.linear(flow.input, weight: up.weight, bias: up.bias).floats()
                .map { max(0, $0) * max(0, $0) }
        }
        let tokens = flow.outputGradient.rowCount
        let part = flow.outputGradient.columnCount / plan.projections.count
        let gradient = flow.outputGradient.floats()
        var back: [[[Float]]] = []
        var biases: [[Float]] = []
        for (place, down) in weights.down.enumerated() {
            guard case .columns(let matrices) = down.matrices else {
                throw ModelError.invalidInput(
                    reason: "effects of experts need the checkpoint's layout, not packed weights")
            }
            let columns = (0..<tokens).flatMap { token in
                gradient[(token * part * weights.down.count + place * part)...].prefix(part)
            }
            let dy = try backend.tensor(Tensor(Array(columns), shape: [tokens, part]))
            back.append(
                try matrices.map { matrix in
                    // dy · V for V [part, E · units].
                    let result = try backend.zeros([tokens, matrix.columnCount], dtype: .float32)
                    try backend.linearGradient(
                        dy, x: result, weight: matrix,
                        into: LinearGradient(x: result, weight: nil, bias: nil))
                    return result.floats()
                })
            biases.append(try backend.linear(dy, weight: down.bias, bias: nil).floats())
        }
        self.back = back
        self.bias = biases
    }

    func callAsFunction(_ token: Int, left: Int, right: Int) -> Double {
        func half(_ side: ExpertSide) -> Int { side == .left ? left : right }
        var sum = 0.0
        for (place, projection) in plan.projections.enumerated() {
            let row = token * experts + half(projection.side)
            sum += Double(bias[place][row])
            for (index, source) in projection.sources.enumerated() {
                let from = (token * experts + half(source)) * units
                for unit in 0..<units {
                    sum +=
                        Double(hidden[sources[place][index]][from + unit])
                        * Double(back[place][index][row * units + unit])
                }
            }
        }
        return sum
    }
}
