import MonetCompute

/// One layer: attention and feed-forward, each on the normalized residual stream.
struct DecoderLayer: Sendable {
    let index: Int
    let inputNorm: RMSNorm
    let attention: Attention
    let postAttentionNorm: RMSNorm
    let feedForward: any FeedForwardLayer

    /// - Parameter shared: what the layers of a group share; replaced by the first layer of a group.
    func callAsFunction(
        _ x: Variable, shared: inout (any UnitActivations)?, positions: SequencePositions, _ pass: ForwardPass
    ) throws -> Variable {
        let x = try pass.hook(.residPre, index, x)
        let attended = try attention(inputNorm(x, pass), positions: positions, layer: index, pass)
        let middle = try pass.hook(
            .residMid, index, pass.tape.add(x, pass.hook(.attnOut, index, attended)))
        let h = try pass.hook(.mlpIn, index, postAttentionNorm(middle, pass))
        let output = try pass.hook(.mlpOut, index, feedForward(h, shared: &shared, pass))
        return try pass.hook(.residPost, index, pass.tape.add(middle, output))
    }

    func prepared(on backend: any Backend) throws -> DecoderLayer {
        DecoderLayer(
            index: index, inputNorm: inputNorm, attention: attention, postAttentionNorm: postAttentionNorm,
            feedForward: try feedForward.prepared(on: backend))
    }
}

extension DecoderLayer {
    init(
        _ layer: Int, _ configuration: MonetConfiguration, _ parameters: ParameterSet,
        _ adapters: LowRankAdapters?
    ) throws {
        let parameter = LayerParameters(parameters, layer: layer)
        let bias = configuration.attentionBias
        func projection(_ name: String, hasBias: Bool) throws -> Linear {
            Linear(
                weight: try parameter("self_attn.\(name)_proj.weight"),
                bias: hasBias ? try parameter("self_attn.\(name)_proj.bias") : nil,
                adapter: try adapters.map {
                    Linear.Adapter(
                        down: try parameter("self_attn.\(name)_proj.lora_A.weight"),
                        up: try parameter("self_attn.\(name)_proj.lora_B.weight"), scale: $0.scale)
                })
        }
        func norm(_ name: String) throws -> RMSNorm {
            RMSNorm(weight: try parameter(name + ".weight"), epsilon: Float(configuration.rmsNormEpsilon))
        }
        index = layer
        inputNorm = try norm("input_layernorm")
        attention = Attention(
            query: try projection("q", hasBias: bias), key: try projection("k", hasBias: bias),
            value: try projection("v", hasBias: bias), output: try projection("o", hasBias: bias),
            heads: configuration.attentionHeads, keyValueHeads: configuration.keyValueHeads)
        postAttentionNorm = try norm("post_attention_layernorm")
        feedForward = try configuration.feedForward.layer(parameter)
    }
}
