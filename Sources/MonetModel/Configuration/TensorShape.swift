import MonetCompute

/// A tensor of a checkpoint as a configuration requires it.
public struct TensorShape: Sendable, Equatable {
    /// The role of a tensor, which determines its initial value, its type and its weight decay.
    public enum Role: Sendable {
        case embedding
        case linear
        case router
        case expert
        case norm
        case bias
        /// A bias of the experts, of which a token needs only the selected ones.
        case expertBias
        /// A router's running mean, running variance or batch count.
        case runningMean
        case runningVariance
        case batchCount
        /// A matrix of a low-rank adapter, which no checkpoint of a whole model has.
        case adapter
        /// A router's weights in int8 and their error bounds, in quantized checkpoints.
        case routerScreen
        case routerScreenBounds

        /// Whether it belongs to experts, so that a token needs only the parts of selected ones.
        public var isOfExperts: Bool { self == .expert || self == .expertBias }
        /// Whether it is a vector, to which weight decay does not apply.
        public var isNormOrBias: Bool { self == .norm || self == .bias || self == .expertBias }

        /// Whether training changes it by gradient.
        public var isParameter: Bool {
            switch self {
            case .embedding, .linear, .router, .expert, .norm, .bias, .expertBias, .adapter: true
            case .runningMean, .runningVariance, .batchCount, .routerScreen, .routerScreenBounds: false
            }
        }
    }

    /// The name in the checkpoint.
    public let name: String
    /// Dimensions; empty for a scalar.
    public let shape: [Int]
    /// The tensor's role.
    public let role: Role
    /// A tensor of a checkpoint, or of a layer without its prefix.
    public init(name: String, shape: [Int], role: Role) {
        self.name = name
        self.shape = shape
        self.role = role
    }

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
            for tensor in feedForward.tensors(layer: layer, hiddenSize: d) {
                add(prefix + tensor.name, tensor.shape, tensor.role)
            }
        }
        add("model.norm.weight", [d], .norm)
        if !tieWordEmbeddings { add("lm_head.weight", [vocabularySize, d], .embedding) }
        return result
    }

    /// Number of trainable parameters.
    public var parameterCount: Int { shapes().reduce(0) { $0 + ($1.role.isParameter ? $1.count : 0) } }
}
