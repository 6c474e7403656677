import MonetCompute

/// A tensor of a checkpoint as a configuration asks for it.
public struct TensorShape: Sendable, Equatable {
    /// What a tensor is, which decides its initial value, its type and its weight decay.
    public enum Role: Sendable {
        case embedding
        case linear
        case router
        case expert
        case norm
        case bias
        /// A router's running mean, running variance or batch count.
        case runningMean
        case runningVariance
        case batchCount
        /// A router's weights in int8 and the bounds of what that changes, in quantized checkpoints.
        case routerScreen
        case routerScreenBounds

        /// Whether training changes it by gradient.
        public var isParameter: Bool {
            switch self {
            case .embedding, .linear, .router, .expert, .norm, .bias: true
            case .runningMean, .runningVariance, .batchCount, .routerScreen, .routerScreenBounds: false
            }
        }
    }

    /// The name in the checkpoint.
    public let name: String
    /// Extents; empty for a scalar.
    public let shape: [Int]
    /// What it is.
    public let role: Role
    /// Number of elements.
    public var count: Int { shape.reduce(1, *) }
}

extension MonetConfiguration {
    /// Every tensor of the checkpoint, in the order of the layers.
    public func shapes() -> [TensorShape] {
        var result: [TensorShape] = []
        func add(_ name: String, _ shape: [Int], _ role: TensorShape.Role) {
            result.append(TensorShape(name: name, shape: shape, role: role))
        }
        let d = hiddenSize
        add("model.embed_tokens.weight", [vocabularySize, d], .embedding)
        for layer in 0..<layerCount {
            let prefix = "model.layers.\(layer)."
            add(prefix + "input_layernorm.weight", [d], .norm)
            for (name, out, input) in [
                ("q", attentionHeads * headWidth, d), ("k", keyValueHeads * headWidth, d),
                ("v", keyValueHeads * headWidth, d), ("o", d, attentionHeads * headWidth),
            ] {
                add(prefix + "self_attn.\(name)_proj.weight", [out, input], .linear)
                if attentionBias { add(prefix + "self_attn.\(name)_proj.bias", [out], .bias) }
            }
            add(prefix + "post_attention_layernorm.weight", [d], .norm)
            if hasRouter(layer) {
                for side in 1...2 {
                    add(prefix + "router.w\(side).weight", [routingHeads * expertsPerSide, d], .router)
                    add(prefix + "router.norm\(side).running_mean", [routingHeads], .runningMean)
                    add(prefix + "router.norm\(side).running_var", [routingHeads], .runningVariance)
                    add(prefix + "router.norm\(side).num_batches_tracked", [], .batchCount)
                }
            }
            switch feedForward {
            case .horizontal:
                let hidden = expertsPerSide * expertWidth
                add(prefix + "moe.u.weight", [hidden, d], .expert)
                add(prefix + "moe.u.bias", [hidden], .bias)
                add(prefix + "moe.v.weight", [d, hidden], .expert)
                add(prefix + "moe.b", [expertsPerSide, d], .bias)
            case .vertical:
                let hidden = expertsPerSide * (expertWidth / 2)
                for side in 1...2 {
                    add(prefix + "moe.u\(side).weight", [hidden, d], .expert)
                    add(prefix + "moe.u\(side).bias", [hidden], .bias)
                }
                for name in ["v11", "v12", "v21", "v22"] {
                    add(prefix + "moe.\(name).weight", [d / 2, hidden], .expert)
                }
                add(prefix + "moe.b1", [expertsPerSide, d / 2], .bias)
                add(prefix + "moe.b2", [expertsPerSide, d / 2], .bias)
            case .dense:
                add(prefix + "mlp.gate_proj.weight", [intermediateSize, d], .linear)
                add(prefix + "mlp.up_proj.weight", [intermediateSize, d], .linear)
                add(prefix + "mlp.down_proj.weight", [d, intermediateSize], .linear)
            }
        }
        add("model.norm.weight", [d], .norm)
        if !tieWordEmbeddings { add("lm_head.weight", [vocabularySize, d], .embedding) }
        return result
    }

    /// Number of trainable parameters.
    public var parameterCount: Int { shapes().reduce(0) { $0 + ($1.role.isParameter ? $1.count : 0) } }
}
