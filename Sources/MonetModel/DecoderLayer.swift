import MonetCompute

/// One layer: attention and experts (or a dense feed-forward), each on the normalized residual stream.
struct DecoderLayer: Sendable {
    enum FeedForward: Sendable {
        case horizontal(HorizontalExperts)
        case vertical(VerticalExperts)
        case packed(PackedExpertLayer)
        case dense(DenseFeedForward)
    }

    let inputNorm: RMSNorm
    let attention: Attention
    let postAttentionNorm: RMSNorm
    /// Present in the first layer of a group.
    let router: Router?
    let feedForward: FeedForward

    /// - Parameter routing: the group's routing so far; replaced by a layer that owns a router.
    func callAsFunction(
        _ x: Variable, routing: inout Routing?, positions: SequencePositions, layer: Int,
        _ context: ForwardContext
    ) throws -> Variable {
        let tape = context.tape
        let attended = try attention(inputNorm(x, context), positions: positions, layer: layer, context)
        let x = try tape.add(x, attended)
        let h = try postAttentionNorm(x, context)
        if let router { routing = try router(h, context) }
        var expertOutput: Variable
        switch (feedForward, routing) {
        case (.dense(let dense), _): expertOutput = try dense(h, layer: layer, context)
        case (.horizontal(let experts), let routing?): expertOutput = try experts(h, routing, context)
        case (.vertical(let experts), let routing?): expertOutput = try experts(h, routing, context)
        case (.packed(let experts), let routing?): expertOutput = try experts(h, routing, context)
        case (_, nil): throw ModelError.invalidInput(reason: "a layer of experts stands before any router")
        }
        if let observe = context.observesExperts, let routing {
            let (left, right) = (routing.left.value, routing.right.value)
            expertOutput = tape.observing(expertOutput) { gradient in
                try observe(
                    ExpertFlow(
                        layer: layer, input: h.value, left: left, right: right, outputGradient: gradient))
            }
        }
        return try tape.add(x, expertOutput)
    }
}

extension DecoderLayer {
    init(_ layer: Int, _ configuration: MonetConfiguration, _ parameters: ParameterSet) throws {
        let prefix = "model.layers.\(layer)."
        func parameter(_ name: String) throws -> Parameter { try parameters(prefix + name) }
        func linear(_ name: String, bias: Bool = false) throws -> Linear {
            Linear(weight: try parameter(name + ".weight"), bias: bias ? try parameter(name + ".bias") : nil)
        }
        func norm(_ name: String) throws -> RMSNorm {
            RMSNorm(weight: try parameter(name + ".weight"), epsilon: Float(configuration.rmsNormEpsilon))
        }
        func side(_ index: Int) throws -> Router.Side {
            Router.Side(
                weight: try parameter("router.w\(index).weight"),
                screen: parameters.routerScreen(of: prefix + "router.w\(index).weight"),
                runningMean: try parameter("router.norm\(index).running_mean").tensor,
                runningVariance: try parameter("router.norm\(index).running_var").tensor,
                batchCount: try parameter("router.norm\(index).num_batches_tracked").tensor)
        }
        let bias = configuration.attentionBias
        inputNorm = try norm("input_layernorm")
        attention = Attention(
            query: try linear("self_attn.q_proj", bias: bias),
            key: try linear("self_attn.k_proj", bias: bias),
            value: try linear("self_attn.v_proj", bias: bias),
            output: try linear("self_attn.o_proj", bias: bias),
            heads: configuration.attentionHeads, keyValueHeads: configuration.keyValueHeads)
        postAttentionNorm = try norm("post_attention_layernorm")
        router =
            configuration.hasRouter(layer)
            ? Router(
                try side(1), try side(2), configuration: configuration,
                group: layer / configuration.layersPerRouter) : nil
        switch configuration.feedForward {
        case .horizontal where parameters.layout == .packed, .vertical where parameters.layout == .packed:
            feedForward = .packed(try PackedExpertLayer(configuration.feedForward, parameter))
        case .horizontal:
            feedForward = .horizontal(
                HorizontalExperts(
                    u: try parameter("moe.u.weight"), uBias: try parameter("moe.u.bias"),
                    v: try parameter("moe.v.weight"), b: try parameter("moe.b")))
        case .vertical:
            feedForward = .vertical(
                VerticalExperts(
                    u1: try parameter("moe.u1.weight"), u1Bias: try parameter("moe.u1.bias"),
                    u2: try parameter("moe.u2.weight"), u2Bias: try parameter("moe.u2.bias"),
                    v11: try parameter("moe.v11.weight"), v12: try parameter("moe.v12.weight"),
                    v21: try parameter("moe.v21.weight"), v22: try parameter("moe.v22.weight"),
                    b1: try parameter("moe.b1"), b2: try parameter("moe.b2")))
        case .dense:
            feedForward = .dense(
                DenseFeedForward(
                    gate: try linear("mlp.gate_proj"), up: try linear("mlp.up_proj"),
                    down: try linear("mlp.down_proj")))
        }
    }
}
