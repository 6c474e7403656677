import Foundation
import MonetCompute
import MonetModel

/// The whole decoder in double precision, written from the design's formulas with plain loops.
public struct ReferenceModel {
    let configuration: MonetConfiguration
    let tensors: [String: Reference]

    public init(_ model: MonetLanguageModel) {
        configuration = model.configuration
        tensors = Dictionary(
            uniqueKeysWithValues: model.parameters.all.map { ($0.name, Reference($0.tensor)) })
    }

    public struct Output {
        public let logits: Reference
        /// Probabilities `[tokens, heads, experts]` of both sides, of the layers that own a router.
        public let routings: [Int: (left: Reference, right: Reference)]
    }

    private func tensor(_ name: String) -> Reference { tensors[name] ?? Reference(zeros: [0, 0]) }

    private func projected(_ x: Reference, _ name: String) -> Reference {
        ReferenceMath.linear(x, tensor(name + ".weight"), tensors[name + ".bias"])
    }

    /// - Parameter strengths: of single experts, by router group and index i · E + j.
    public func callAsFunction(_ sequences: [[Int32]], strengths: [Int: [Int: Double]] = [:]) -> Output {
        let (c, length) = (configuration, sequences[0].count)
        let table = tensor("model.embed_tokens.weight")
        let ids = sequences.flatMap { $0 }
        var x = Reference(
            ids.flatMap { id in (0..<c.hiddenSize).map { table[Int(id), $0] } },
            shape: [ids.count, c.hiddenSize])
        let (cosine, sine) = rotations(length)
        var routing: (left: Reference, right: Reference)?
        var routings: [Int: (left: Reference, right: Reference)] = [:]
        for layer in 0..<c.layerCount {
            let prefix = "model.layers.\(layer)."
            let normed = ReferenceMath.rmsNorm(
                x, tensor(prefix + "input_layernorm.weight"), epsilon: c.rmsNormEpsilon)
            let attended = ReferenceMath.attention(
                projected(normed, prefix + "self_attn.q_proj"),
                projected(normed, prefix + "self_attn.k_proj"),
                projected(normed, prefix + "self_attn.v_proj"), cosine: cosine, sine: sine,
                heads: c.attentionHeads,
                keyValueHeads: c.keyValueHeads, sequences: sequences.count)
            x = sum(x, projected(attended, prefix + "self_attn.o_proj"))
            let h = ReferenceMath.rmsNorm(
                x, tensor(prefix + "post_attention_layernorm.weight"), epsilon: c.rmsNormEpsilon)
            guard let experts = c.experts else {
                let activated = ReferenceMath.gatedActivation(
                    projected(h, prefix + "mlp.gate_proj"), projected(h, prefix + "mlp.up_proj"),
                    strengths: strengths[layer] ?? [:])
                x = sum(x, projected(activated, prefix + "mlp.down_proj"))
                continue
            }
            if layer % experts.layersPerRouter == 0 {
                routing = (
                    side(h, prefix + "router.w1", prefix + "router.norm1"),
                    side(h, prefix + "router.w2", prefix + "router.norm2")
                )
                routings[layer] = routing
            }
            guard let (left, right) = routing else { continue }
            x = sum(
                x,
                expertOutput(
                    h, left, right, prefix + "moe.", strengths[layer / experts.layersPerRouter] ?? [:]))
        }
        let hidden = ReferenceMath.rmsNorm(x, tensor("model.norm.weight"), epsilon: c.rmsNormEpsilon)
        let head = c.tieWordEmbeddings ? table : tensor("lm_head.weight")
        return Output(logits: ReferenceMath.linear(hidden, head), routings: routings)
    }

    /// Attention probabilities of one sequence, `[tokens, heads × head width]` with the keys as columns: what attention
    /// makes of values that are the columns of an identity. At most as many tokens as a head has columns.
    func pattern(_ normed: Reference, layer: Int) -> Reference {
        let (c, prefix) = (configuration, "model.layers.\(layer).self_attn.")
        let (cosine, sine) = rotations(normed.rows)
        var identity = Reference(zeros: [normed.rows, c.keyValueHeads * c.headWidth])
        for row in 0..<normed.rows {
            for head in 0..<c.keyValueHeads { identity[row, head * c.headWidth + row] = 1 }
        }
        return ReferenceMath.attention(
            projected(normed, prefix + "q_proj"), projected(normed, prefix + "k_proj"), identity,
            cosine: cosine,
            sine: sine, heads: c.attentionHeads, keyValueHeads: c.keyValueHeads, sequences: 1)
    }

    private func sum(_ x: Reference, _ y: Reference) -> Reference {
        Reference(zip(x.values, y.values).map(+), shape: x.shape)
    }

    /// Probabilities of a layer's router for its normalized input.
    func routing(_ h: Reference, layer: Int) -> (left: Reference, right: Reference) {
        let prefix = "model.layers.\(layer).router."
        return (side(h, prefix + "w1", prefix + "norm1"), side(h, prefix + "w2", prefix + "norm2"))
    }

    private func side(_ h: Reference, _ weight: String, _ norm: String) -> Reference {
        let settings = configuration.experts ?? ExpertSettings()
        let logits = ReferenceMath.linear(h, tensor(weight + ".weight"))
            .reshaped([h.rows, settings.heads, settings.perSide])
        let selection = ReferenceMath.selection(
            logits, mean: tensor(norm + ".running_mean").values,
            variance: tensor(norm + ".running_var").values,
            epsilon: 1e-5, threshold: Self.quantile(1 - Double(settings.topK) / Double(settings.perSide)))
        return ReferenceMath.route(logits, selection: selection)
    }

    private func expertOutput(
        _ h: Reference, _ left: Reference, _ right: Reference, _ prefix: String, _ strengths: [Int: Double]
    ) -> Reference {
        if configuration.feedForward is HorizontalExperts {
            return ReferenceMath.horizontalExperts(
                h, left: left, right: right, u: tensor(prefix + "u.weight"), uBias: tensor(prefix + "u.bias"),
                v: tensor(prefix + "v.weight"), b: tensor(prefix + "b"), strengths: strengths)
        }
        let names = [
            "u1.weight", "u1.bias", "u2.weight", "u2.bias", "v11.weight", "v12.weight", "v21.weight",
            "v22.weight",
            "b1", "b2",
        ]
        return ReferenceMath.verticalExperts(
            h, left: left, right: right, weights: names.map { tensor(prefix + $0) }, strengths: strengths)
    }

    /// The standard normal quantile, by bisection of erfc.
    public static func quantile(_ p: Double) -> Double {
        if p <= 0 { return -.infinity }
        var (low, high) = (-40.0, 40.0)
        for _ in 0..<200 {
            let middle = (low + high) / 2
            if 0.5 * erfc(-middle / 2.0.squareRoot()) < p { low = middle } else { high = middle }
        }
        return low
    }

    private func rotations(_ length: Int) -> (cosine: Reference, sine: Reference) {
        let (c, half) = (configuration, configuration.headWidth / 2)
        var (base, stretch) = (c.ropeTheta, 1.0)
        switch c.ropeScaling {
        case .linear(let factor)?: stretch = factor
        case .dynamic(let factor)? where length > c.maxPositionEmbeddings:
            let ratio = factor * Double(length) / Double(c.maxPositionEmbeddings) - (factor - 1)
            base *= pow(ratio, Double(c.headWidth) / Double(c.headWidth - 2))
        default: break
        }
        var (cosine, sine) = (Reference(zeros: [length, half]), Reference(zeros: [length, half]))
        for position in 0..<length {
            for index in 0..<half {
                let angle = Double(position) / stretch * pow(base, -2 * Double(index) / Double(c.headWidth))
                cosine[position, index] = cos(angle)
                sine[position, index] = sin(angle)
            }
        }
        return (cosine, sine)
    }
}

/// A model with random weights in every tensor, norms, biases and running statistics included.
public func scrambledModel(_ configuration: MonetConfiguration, seed: UInt64) throws -> MonetLanguageModel {
    let model = try MonetLanguageModel.random(configuration, seed: seed)
    var source = TensorSource(seed: seed)
    for parameter in model.parameters.all where parameter.tensor.dtype == .float32 {
        let values = source.normal([parameter.tensor.count]).floats()
        let width = Float(max(1, parameter.tensor.columnCount)).squareRoot()
        if parameter.name.hasSuffix("running_var") {
            try parameter.tensor.write(values.map { 0.5 + abs($0) })
        } else if parameter.name.contains("norm") && parameter.name.hasSuffix("weight") {
            try parameter.tensor.write(values.map { 1 + 0.2 * $0 })
        } else if parameter.name.contains("running_mean") || parameter.name.hasSuffix("bias") {
            try parameter.tensor.write(values.map { 0.2 * $0 })
        } else {
            try parameter.tensor.write(values.map { $0 / width })
        }
    }
    return model
}
