import Foundation
import MonetCompute

/// One decoder layer at one sequence, linearized: attention patterns, the norms' scales, routing probabilities and the
/// activations' gates keep the values that they have there. At the point it equals the true layer.
public struct LinearizedLayer {
    /// Attention with its norm.
    public let attention: LinearizedAttention
    /// The norm before the feed-forward block.
    public let norm: LinearizedNorm
    /// The feed-forward block, for the normalized residual stream.
    public let feedForward: any LinearizedFeedForward

    /// The hook points that a pass must observe in every layer.
    public static let observed: [HookPoint.Kind] = [.residPre, .residMid, .residPost, .mlpIn, .pattern]
}

/// A root-mean-square norm with its scales held: y = w · x · r for a number r of each token.
public struct LinearizedNorm: Sendable {
    /// w, `[d]`.
    let weight: [Float]
    /// r of each token.
    let scales: [Float]
    private let epsilon: Double

    init(_ x: [Float], weight: Tensor, epsilon: Double) {
        self.epsilon = epsilon
        self.weight = weight.floats()
        let width = self.weight.count
        scales = stride(from: 0, to: x.count, by: width).map { start in
            let squares = x[start..<(start + width)].reduce(0.0) { $0 + Double($1) * Double($1) }
            return Float(1 / (squares / Double(width) + epsilon).squareRoot())
        }
    }

    /// The true norm of another row, `[d]`, with its own scale.
    public func trueOutput(of x: [Float]) -> [Float] {
        let squares = x.reduce(0.0) { $0 + Double($1) * Double($1) }
        let scale = Float(1 / (squares / Double(x.count) + epsilon).squareRoot())
        return zip(x, weight).map { $0 * $1 * scale }
    }

    /// Rows of another stream normalized with the scales held, for one or more sequences of as many tokens, `[rows, d]`.
    public func output(of x: [Float]) -> [Float] {
        x.indices.map { place in
            x[place] * weight[place % weight.count] * scales[place / weight.count % scales.count]
        }
    }

    /// Gradient of the input of a token, `[d]`, for one of the output.
    public func inputGradient(of gradient: some Sequence<Float>, token: Int) -> [Float] {
        let scale = scales[token]
        return zip(gradient, weight).map { $0 * $1 * scale }
    }
}

/// Attention with its patterns held, which is then linear in the residual stream: every head moves values from tokens to
/// later ones.
public struct LinearizedAttention {
    /// The norm before attention.
    public let norm: LinearizedNorm
    /// `[tokens, heads, tokens]`.
    private let pattern: [Float]
    private let (value, valueBias): (Tensor, [Float]?)
    private let (output, outputBias): (Tensor, [Float]?)
    private let tokens: Int
    private let heads: Int
    private let keyValueHeads: Int
    private let backend: any Backend

    init(
        _ layer: Int, norm: LinearizedNorm, pattern: Tensor, _ model: MonetLanguageModel,
        on backend: any Backend
    ) throws {
        func parameter(_ name: String) throws -> Tensor {
            try model.parameters("model.layers.\(layer).self_attn.\(name)").tensor
        }
        let hasBias = model.configuration.attentionBias
        self.norm = norm
        self.pattern = pattern.floats()
        value = try parameter("v_proj.weight")
        output = try parameter("o_proj.weight")
        valueBias = try hasBias ? parameter("v_proj.bias").floats() : nil
        outputBias = try hasBias ? parameter("o_proj.bias").floats() : nil
        tokens = pattern.shape[0]
        heads = model.configuration.attentionHeads
        keyValueHeads = model.configuration.keyValueHeads
        self.backend = backend
    }

    /// Adds to gradients of the residual stream after attention what flows back through attention, so that they become
    /// those of the stream before it.
    ///
    /// - `gradients`: of several functionals, each with rows for the tokens from the first on, `[rows, d]`.
    /// - `lengths`: the number of rows of each functional.
    /// - Returns: what attention's biases contribute to each functional.
    public func addInputGradients(to gradients: inout [Float], lengths: [Int]) throws -> [Double] {
        let rows = lengths.reduce(0, +)
        let width = output.rowCount
        guard rows > 0 else { return [] }
        let mixed = try transposed(Tensor(gradients, shape: [rows, width]), output)
        let headWidth = mixed.columnCount / heads
        let values = values(of: mixed.floats(), lengths: lengths, headWidth: headWidth)
        var biases = [Double](repeating: 0, count: lengths.count)
        var first = 0
        for (functional, length) in lengths.enumerated() {
            for row in first..<(first + length) {
                if let outputBias { biases[functional] += dot(gradients, row * width, outputBias) }
                if let valueBias { biases[functional] += dot(values, row * valueBias.count, valueBias) }
            }
            first += length
        }
        let back = try transposed(Tensor(values, shape: [rows, keyValueHeads * headWidth]), value).floats()
        var row = 0
        for length in lengths {
            for token in 0..<length {
                let (start, scale) = (row * width, norm.scales[token])
                for column in 0..<width {
                    gradients[start + column] += back[start + column] * norm.weight[column] * scale
                }
                row += 1
            }
        }
        return biases
    }

    /// Values of the normalized stream, `[rows, key-value heads × head width]`, for one of `[rows, d]`.
    public func values(of normed: Tensor) throws -> Tensor {
        let bias = try valueBias.map { try backend.tensor(Tensor($0, shape: [$0.count])) }
        return try backend.linear(backend.tensor(normed), weight: value, bias: bias)
    }

    /// What attention adds to the stream for a change of it, `[tokens, d]` both.
    public func outputs(ofChange change: [Float]) throws -> [Float] {
        let width = output.rowCount
        var normed = change
        for token in 0..<tokens {
            for column in 0..<width {
                normed[token * width + column] *= norm.weight[column] * norm.scales[token]
            }
        }
        let values = try backend.linear(
            backend.tensor(Tensor(normed, shape: [tokens, width])), weight: value, bias: nil
        ).floats()
        let headWidth = output.columnCount / heads
        let group = heads / keyValueHeads
        var mixed = [Float](repeating: 0, count: tokens * heads * headWidth)
        for query in 0..<tokens {
            for head in 0..<heads {
                let to = (query * heads + head) * headWidth
                for key in 0...query {
                    let share = pattern[(query * heads + head) * tokens + key]
                    let from = (key * keyValueHeads + head / group) * headWidth
                    for column in 0..<headWidth { mixed[to + column] += share * values[from + column] }
                }
            }
        }
        return try backend.linear(
            backend.tensor(Tensor(mixed, shape: [tokens, heads * headWidth])), weight: output, bias: nil
        ).floats()
    }

    /// Gradients of values `[rows, key-value heads × head width]` for those of the heads' sums.
    private func values(of mixed: [Float], lengths: [Int], headWidth: Int) -> [Float] {
        let (columns, valueColumns) = (heads * headWidth, keyValueHeads * headWidth)
        let group = heads / keyValueHeads
        var result = [Float](repeating: 0, count: mixed.count / columns * valueColumns)
        mixed.withUnsafeBufferPointer { mixed in
            pattern.withUnsafeBufferPointer { pattern in
                result.withUnsafeMutableBufferPointer { result in
                    var first = 0
                    for length in lengths {
                        for query in 0..<length {
                            for head in 0..<heads {
                                let from = (first + query) * columns + head * headWidth
                                let probabilities = (query * heads + head) * tokens
                                for key in 0...query {
                                    let share = pattern[probabilities + key]
                                    let to = (first + key) * valueColumns + head / group * headWidth
                                    for column in 0..<headWidth {
                                        result[to + column] += share * mixed[from + column]
                                    }
                                }
                            }
                        }
                        first += length
                    }
                }
            }
        }
        return result
    }

    /// y · weight, for weight `[out, in]` and y `[rows, out]`.
    private func transposed(_ y: Tensor, _ weight: Tensor) throws -> Tensor {
        try backend.transposedProduct(backend.tensor(y), weight: weight)
    }

    private func dot(_ x: [Float], _ start: Int, _ y: [Float]) -> Double {
        y.indices.reduce(0.0) { $0 + Double(x[start + $1]) * Double(y[$1]) }
    }
}

extension Backend {
    /// `y · weight`, with weight `[out, in]` and y `[rows, out]`: the gradient of `linear` with respect to its input.
    func transposedProduct(_ y: Tensor, weight: Tensor) throws -> Tensor {
        let result = try zeros([y.rowCount, weight.columnCount], dtype: .float32)
        try linearGradient(
            y, x: result, weight: weight, into: LinearGradient(x: result, weight: nil, bias: nil))
        return result
    }
}

extension MonetLanguageModel {
    /// A layer linearized where a pass over one sequence, without a cache, observed it.
    ///
    /// - `output`: a pass that observed `LinearizedLayer.observed` and kept units.
    /// - Throws: `ModelError.invalidInput` for another pass, or for weights in a packed layout.
    public func linearized(_ layer: Int, of output: ForwardOutput, on backend: any Backend) throws
        -> LinearizedLayer
    {
        let prefix = "model.layers.\(layer)."
        if let packed = parameters.all.first(where: {
            $0.name.hasPrefix(prefix) && $0.tensor.dtype.isQuantized
        }) {
            throw ModelError.invalidInput(
                reason:
                    "\(packed.name) is \(packed.tensor.dtype.torchName): linearizing needs the checkpoint "
                    + "before it was quantized, in float32, bfloat16 or float16")
        }
        let pattern = try output.observed(.pattern, layer)
        guard output.pass.input.sequences.count == 1, pattern.shape[0] == pattern.shape[2] else {
            throw ModelError.invalidInput(
                reason: "linearizing needs a pass over one sequence, without a cache")
        }
        func norm(_ name: String, _ kind: HookPoint.Kind) throws -> LinearizedNorm {
            LinearizedNorm(
                try output.observed(kind, layer).floats(),
                weight: try parameters("model.layers.\(layer).\(name).weight").tensor,
                epsilon: configuration.rmsNormEpsilon)
        }
        return LinearizedLayer(
            attention: try LinearizedAttention(
                layer, norm: norm("input_layernorm", .residPre), pattern: pattern, self, on: backend),
            norm: try norm("post_attention_layernorm", .residMid),
            feedForward: try linearizedFeedForward(layer, of: output, on: backend))
    }

    /// A layer's feed-forward block linearized where a pass has been.
    ///
    /// - `output`: a pass that observed the block's input, `HookPoint.Kind.mlpIn`, and kept units.
    /// - Throws: as `linearized`.
    public func linearizedFeedForward(_ layer: Int, of output: ForwardOutput, on backend: any Backend) throws
        -> any LinearizedFeedForward
    {
        guard let group = units.layersOfGroup.firstIndex(where: { $0.contains(layer) }),
            let active = output.groups.first(where: { $0.group == group })
        else { throw ModelError.invalidInput(reason: "linearizing needs a pass that keeps units") }
        return try configuration.feedForward.linearized(
            at: FeedForwardPoint(
                input: output.observed(.mlpIn, layer), units: active,
                strengths: output.pass.strengths(group: group)),
            LayerParameters(parameters, layer: layer), on: backend)
    }

    /// The norm before the output head, with the scales that it has for a residual stream after the last layer.
    ///
    /// - `stream`: `[tokens, d]`.
    public func linearizedFinalNorm(_ stream: Tensor) throws -> LinearizedNorm {
        LinearizedNorm(
            stream.floats(), weight: try parameters("model.norm.weight").tensor,
            epsilon: configuration.rmsNormEpsilon)
    }

    /// Rows of the output head, `[ids, d]`.
    ///
    /// - Throws: `ModelError.invalidInput` for ids outside the vocabulary.
    public func headRows(_ ids: [Int32], on backend: any Backend) throws -> Tensor {
        guard ids.allSatisfy({ $0 >= 0 && Int($0) < configuration.vocabularySize }) else {
            throw ModelError.invalidInput(
                reason: "tokens outside the vocabulary of \(configuration.vocabularySize)")
        }
        return try backend.embed(ids, table: headWeight)
    }
}

extension ForwardOutput {
    /// The value at a hook point that the pass observed.
    ///
    /// - Throws: `ModelError.invalidInput` if it did not.
    public func observed(_ kind: HookPoint.Kind, _ layer: Int) throws -> Tensor {
        let point = HookPoint(kind, layer: layer)
        guard let value = observations[point]?.value else {
            throw ModelError.invalidInput(reason: "this needs a pass that observed \(point)")
        }
        return value
    }
}
