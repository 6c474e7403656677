import Foundation
import MonetCompute
import MonetModel

/// The linearized decoder in double precision, from its definition: one true pass over a sequence fixes attention patterns,
/// the norms' scales, routing probabilities and the activations' gates; what is left is a sum of linear maps and biases.
///
/// Sequences may have as many tokens as a head has columns.
public struct LinearizedReference {
    private let c: MonetConfiguration
    private let tensors: [String: Reference]
    private let strengths: [Int: [Int: Double]]
    private let reference: ReferenceModel
    public let tokens: [Int32]
    /// The residual stream before each layer, and after the last.
    public private(set) var pre: [Reference] = []
    public private(set) var mid: [Reference] = []
    private var patterns: [Reference] = []
    private var scales: [(attention: [Double], block: [Double])] = []
    private var finalScales: [Double] = []
    /// Scores of units, strengths included, by layer and position.
    public private(set) var scores: [[[Int: Double]]] = []
    /// W h + b at the point, by layer and matrix.
    private var preactivations: [[String: Reference]] = []

    public init(_ model: MonetLanguageModel, _ tokens: [Int32], strengths: [Int: [Int: Double]] = [:]) {
        c = model.configuration
        self.reference = ReferenceModel(model)
        self.strengths = strengths
        self.tokens = tokens
        let tensors = Dictionary(
            uniqueKeysWithValues: model.parameters.all.map { ($0.name, Reference($0.tensor)) })
        self.tensors = tensors
        let table = tensor("model.embed_tokens.weight")
        var x = Reference(
            tokens.flatMap { id in (0..<c.hiddenSize).map { table[Int(id), $0] } },
            shape: [tokens.count, c.hiddenSize])
        let routings = reference([tokens], strengths: strengths).routings
        for layer in 0..<c.layerCount {
            let prefix = "model.layers.\(layer)."
            pre.append(x)
            let first = scales(of: x)
            let normed = ReferenceMath.rmsNorm(
                x, tensor(prefix + "input_layernorm.weight"), epsilon: c.rmsNormEpsilon)
            patterns.append(reference.pattern(normed, layer: layer))
            scales.append((first, []))
            x = sum(x, attention(layer, x, hasBiases: true))
            mid.append(x)
            scales[layer].block = scales(of: x)
            let h = ReferenceMath.rmsNorm(
                x, tensor(prefix + "post_attention_layernorm.weight"), epsilon: c.rmsNormEpsilon)
            var kept: [String: Reference] = [:]
            for name in ["moe.u", "moe.u1", "moe.u2", "mlp.gate_proj"]
            where tensors[prefix + name + ".weight"] != nil {
                kept[name] = ReferenceMath.linear(
                    h, tensor(prefix + name + ".weight"), tensors[prefix + name + ".bias"])
            }
            preactivations.append(kept)
            if let experts = c.experts,
                let routing = routings[layer / experts.layersPerRouter * experts.layersPerRouter]
            {
                scores.append(
                    scores(routing.left, routing.right, strengths[layer / experts.layersPerRouter] ?? [:]))
            } else {
                let up = ReferenceMath.linear(h, tensor(prefix + "mlp.up_proj.weight"))
                scores.append(
                    tokens.indices.map { token in
                        Dictionary(uniqueKeysWithValues: (0..<up.columns).map { ($0, abs(up[token, $0])) })
                    })
            }
            x = sum(x, block(layer, x, hasBiases: true))
        }
        pre.append(x)
        finalScales = scales(of: x)
    }

    private func tensor(_ name: String) -> Reference { tensors[name] ?? Reference(zeros: [0, 0]) }

    private func scales(of x: Reference) -> [Double] {
        (0..<x.rows).map { row in
            let squares = (0..<x.columns).reduce(0.0) { $0 + x[row, $1] * x[row, $1] }
            return 1 / (squares / Double(x.columns) + c.rmsNormEpsilon).squareRoot()
        }
    }

    private func scores(_ left: Reference, _ right: Reference, _ strengths: [Int: Double]) -> [[Int: Double]]
    {
        let (heads, experts) = (left.shape[1], left.shape[2])
        return tokens.indices.map { token in
            var sums: [Int: Double] = [:]
            for head in 0..<heads {
                let row = (token * heads + head) * experts
                for i in 0..<experts {
                    for j in 0..<experts {
                        let product =
                            left.values[row + i] * right.values[row + j] * (strengths[i * experts + j] ?? 1)
                        if product > 0 { sums[i * experts + j, default: 0] += product }
                    }
                }
            }
            return sums
        }
    }

    private func sum(_ x: Reference, _ y: Reference) -> Reference {
        Reference(zip(x.values, y.values).map(+), shape: x.shape)
    }

    private func scaled(_ x: Reference, _ weight: String, _ scales: [Double]) -> Reference {
        let w = tensor(weight)
        var result = x
        for row in 0..<x.rows {
            for column in 0..<x.columns { result[row, column] *= w.values[column] * scales[row] }
        }
        return result
    }

    /// What attention adds to a stream, with patterns and scales held.
    public func attention(_ layer: Int, _ x: Reference, hasBiases: Bool) -> Reference {
        let prefix = "model.layers.\(layer)."
        let h = scaled(x, prefix + "input_layernorm.weight", scales[layer].attention)
        let v = ReferenceMath.linear(
            h, tensor(prefix + "self_attn.v_proj.weight"),
            hasBiases ? tensors[prefix + "self_attn.v_proj.bias"] : nil)
        let width = v.columns / c.keyValueHeads
        var z = Reference(zeros: [x.rows, c.attentionHeads * width])
        for t in 0..<x.rows {
            for head in 0..<c.attentionHeads {
                let group = head / (c.attentionHeads / c.keyValueHeads)
                for s in 0...t {
                    let share = patterns[layer][t, head * width + s]
                    for column in 0..<width {
                        z[t, head * width + column] += share * v[s, group * width + column]
                    }
                }
            }
        }
        return ReferenceMath.linear(
            z, tensor(prefix + "self_attn.o_proj.weight"),
            hasBiases ? tensors[prefix + "self_attn.o_proj.bias"] : nil)
    }

    /// What one unit adds at a token for a stream before the block's norm, with everything but the stream held.
    public func term(_ layer: Int, _ token: Int, _ unit: Int, _ x: Reference, hasBiases: Bool) -> [Double] {
        let prefix = "model.layers.\(layer)."
        let h = scaled(x, prefix + "post_attention_layernorm.weight", scales[layer].block)
        let d = c.hiddenSize
        /// max(0, z) · (W h + b) of some rows of a matrix.
        func gated(_ name: String, _ rows: Range<Int>) -> [Double] {
            let (w, b) = (tensor(prefix + name + ".weight"), tensors[prefix + name + ".bias"])
            return rows.map { row in
                var value = hasBiases ? b?.values[row] ?? 0 : 0
                for column in 0..<d { value += w[row, column] * h[token, column] }
                return max(0, preactivations[layer][name]?[token, row] ?? 0) * value
            }
        }
        guard let experts = c.experts else {
            let gate = preactivations[layer]["mlp.gate_proj"]?[token, unit] ?? 0
            let (up, down) = (tensor(prefix + "mlp.up_proj.weight"), tensor(prefix + "mlp.down_proj.weight"))
            var value = 0.0
            for column in 0..<d { value += up[unit, column] * h[token, column] }
            value *= gate / (1 + exp(-gate)) * (strengths[layer]?[unit] ?? 1)
            return (0..<d).map { down[$0, unit] * value }
        }
        let (i, j) = (unit / experts.perSide, unit % experts.perSide)
        let score = scores[layer][token][unit] ?? 0
        if c.feedForward is HorizontalExperts {
            let (m, v, b) = (experts.width, tensor(prefix + "moe.v.weight"), tensor(prefix + "moe.b"))
            let a = gated("moe.u", (i * m)..<((i + 1) * m))
            return (0..<d).map { out in
                score * a.indices.reduce(hasBiases ? b[j, out] : 0) { $0 + v[out, j * m + $1] * a[$1] }
            }
        }
        let m = experts.width / 2
        let (a, e) = (gated("moe.u1", (i * m)..<((i + 1) * m)), gated("moe.u2", (j * m)..<((j + 1) * m)))
        return (0..<d).map { out in
            let (upper, row) = (out < d / 2, out % (d / 2))
            let own = upper ? i : j
            let (v1, v2) = upper ? ("v11", "v12") : ("v21", "v22")
            let (first, second) = (tensor(prefix + "moe.\(v1).weight"), tensor(prefix + "moe.\(v2).weight"))
            var value = hasBiases ? tensor(prefix + (upper ? "moe.b1" : "moe.b2"))[own, row] : 0
            for unit in 0..<m {
                value += first[row, own * m + unit] * a[unit] + second[row, own * m + unit] * e[unit]
            }
            return score * value
        }
    }

    /// What the block adds.
    public func block(_ layer: Int, _ x: Reference, hasBiases: Bool) -> Reference {
        var result = Reference(zeros: x.shape)
        for token in tokens.indices {
            for unit in scores[layer][token].keys {
                for (column, value) in term(layer, token, unit, x, hasBiases: hasBiases).enumerated() {
                    result[token, column] += value
                }
            }
        }
        return result
    }

    /// The logit of a token after the last one, for a stream after the last layer.
    public func logit(_ token: Int32, _ x: Reference) -> Double {
        let h = scaled(x, "model.norm.weight", finalScales)
        let head = c.tieWordEmbeddings ? tensor("model.embed_tokens.weight") : tensor("lm_head.weight")
        return (0..<c.hiddenSize).reduce(0.0) { $0 + head[Int(token), $1] * h[tokens.count - 1, $1] }
    }

    /// A change of the stream before `layer` carried to the end through all paths, or, without blocks, through the
    /// residual stream and attention alone.
    public func carried(_ x: Reference, from layer: Int, hasBlocks: Bool = true) -> Reference {
        var x = x
        for layer in layer..<c.layerCount {
            x = sum(x, attention(layer, x, hasBiases: false))
            if hasBlocks { x = sum(x, block(layer, x, hasBiases: false)) }
        }
        return x
    }

    /// The change of the stream that a layer's block reads, through residual stream and attention alone.
    public func read(_ x: Reference, from layer: Int, by reader: Int) -> Reference {
        var x = x
        for layer in layer..<reader {
            x = sum(x, attention(layer, x, hasBiases: false))
        }
        return sum(x, attention(reader, x, hasBiases: false))
    }

    /// The logit for another stream before the first layer, with norms and gates held, and patterns or routing answering where
    /// they are opened.
    public func logit(
        _ token: Int32, from start: Reference, patterns opensPatterns: Bool, routing opensRouting: Bool
    )
        -> Double
    {
        var model = self
        var x = start
        for layer in 0..<c.layerCount {
            let prefix = "model.layers.\(layer)."
            if opensPatterns {
                let h = scaled(x, prefix + "input_layernorm.weight", scales[layer].attention)
                model.patterns[layer] = reference.pattern(h, layer: layer)
            }
            x = sum(x, model.attention(layer, x, hasBiases: true))
            if opensRouting, let experts = c.experts, layer % experts.layersPerRouter == 0 {
                let h = scaled(x, prefix + "post_attention_layernorm.weight", scales[layer].block)
                let routing = reference.routing(h, layer: layer)
                let group = layer / experts.layersPerRouter
                let scores = model.scores(routing.left, routing.right, strengths[group] ?? [:])
                for other in layer..<min(c.layerCount, layer + experts.layersPerRouter) {
                    model.scores[other] = scores
                }
            }
            x = sum(x, model.block(layer, x, hasBiases: true))
        }
        return model.logit(token, x)
    }

    /// A stream that is zero but for one row.
    public func row(_ values: [Double], at token: Int) -> Reference {
        var x = Reference(zeros: [tokens.count, c.hiddenSize])
        for (column, value) in values.enumerated() { x[token, column] = value }
        return x
    }
}
