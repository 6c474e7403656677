import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// A forward pass over one sequence and its linearized form, in which attention patterns, the norms' scales, routing
/// probabilities and the activations' gates keep their values.
///
/// In this form the target is a sum over paths from embeddings and biases, equal to its true value at the point. What
/// lies here is the gradient of the target through all paths at every layer's output, and so what every unit
/// contributes.
public struct LinearizedPass {
    /// The sequence.
    public let tokens: [Int32]
    /// What is explained.
    public let target: AttributionTarget
    /// The target's value in the true pass.
    public let value: Double
    /// What the embedding of each position contributes through all paths, `[tokens]`.
    public let embeddings: [Double]
    /// What the biases of each layer contribute through all paths, `[layers]`.
    public let biases: [Double]

    /// What is followed to first order, by layer from the top.
    let opened: [OpenedReading]
    let model: MonetLanguageModel
    let mask: UnitMask?
    let backend: any Backend
    let layers: [LinearizedLayer]
    /// ∂target/∂(the residual stream after the last layer) at the last position, `[d]`.
    let topGradient: [Float]
    /// ∂target/∂(a layer's output) through all paths, `[tokens, d]` for each layer.
    let gradients: [[Float]]
    /// The residual stream before the first layer, `[tokens, d]`.
    let stream: [Float]
    /// What each layer's feed-forward block adds, `[tokens, d]`.
    let blockOutputs: [[Float]]
    /// ∂target/∂(the block's input), and what the block's biases contribute at each token.
    let blocks: [(gradient: [Float], biases: [Double])]

    /// The sum of all contributions, which equals `value` up to rounding where nothing is opened. Opened paths add the
    /// first-order changes that they carry, gradient times stream.
    public var total: Double { embeddings.reduce(0, +) + biases.reduce(0, +) }

    /// Runs a sequence and linearizes.
    ///
    /// - `model`: in the checkpoint's layout, not prepared for inference.
    /// - `opening`: what is followed to first order instead of being held.
    /// - Throws: `ModelError.invalidInput` for an empty sequence or target, `ModelError.contextExceeded`,
    ///   `MemoryLimits` errors for sequences too long for the memory.
    public init(
        _ tokens: [Int32], target: AttributionTarget, model: MonetLanguageModel, mask: UnitMask? = nil,
        opening: Set<OpenedPath> = [], backend: any Backend = CPUBackend()
    ) throws {
        let c = model.configuration
        guard !tokens.isEmpty, !target.terms.isEmpty else {
            throw ModelError.invalidInput(reason: "an attribution needs one or more tokens and a target")
        }
        guard tokens.count <= c.contextLength else {
            throw ModelError.contextExceeded(tokens: tokens.count, context: c.contextLength)
        }
        let patterns = MemoryLimits.product(tokens.count, tokens.count, c.attentionHeads)
        let hidden = MemoryLimits.product(tokens.count, 8 * c.hiddenSize)
        try MemoryLimits.require(
            MemoryLimits.product(patterns + hidden, 4 * c.layerCount),
            for: "the linearized layers of \(tokens.count.grouped) tokens")
        var input = ForwardInput([tokens], mask: mask)
        input.keepsUnits = true
        let kinds = LinearizedLayer.observed + [.mlpOut]
        input.hooks.observed = Set(
            (0..<c.layerCount).flatMap { layer in kinds.map { HookPoint($0, layer: layer) } })
        let output = try model.forward(input, on: backend)
        let layers = try (0..<c.layerCount).map { try model.linearized($0, of: output, on: backend) }
        let rows = try model.headRows(target.terms.map(\.token), on: backend).floats()
        let last = tokens.count - 1
        let width = c.hiddenSize
        var direction = [Float](repeating: 0, count: width)
        for (place, term) in target.terms.enumerated() {
            for column in 0..<width { direction[column] += term.weight * rows[place * width + column] }
        }
        let logits = try model.logits(output.hidden.value.slice(last..<(last + 1)), on: backend).floats()
        value = target.terms.reduce(0.0) { $0 + Double($1.weight) * Double(logits[Int($1.token)]) }
        let norm = try model.linearizedFinalNorm(output.observed(.residPost, c.layerCount - 1))
        topGradient = norm.inputGradient(of: direction, token: last)

        var gradient = [Float](repeating: 0, count: tokens.count * width)
        gradient.replaceSubrange((last * width)..., with: topGradient)
        var opened: [(path: OpenedPath, layer: Int, gradient: [Float])] = []
        func tensor(_ rows: [Float]) throws -> Tensor {
            try backend.tensor(Tensor(rows, shape: [tokens.count, width]))
        }
        /// Adds a gradient of a layer's normalized stream to that of the stream.
        func open(_ path: OpenedPath, _ layer: Int, _ norm: LinearizedNorm, _ inner: Tensor) {
            let values = inner.floats()
            let rows = tokens.indices.flatMap {
                norm.inputGradient(of: values[($0 * width)..<(($0 + 1) * width)], token: $0)
            }
            opened.append((path, layer, rows))
            for place in gradient.indices { gradient[place] += rows[place] }
        }
        var gradients: [[Float]] = []
        var blocks: [(gradient: [Float], biases: [Double])] = []
        var biases: [Double] = []
        for (index, layer) in layers.enumerated().reversed() {
            gradients.append(gradient)
            let (inner, own) = try layer.feedForward.inputGradient(
                of: backend.tensor(Tensor(gradient, shape: [tokens.count, width])))
            let block = (gradient: inner.floats(), biases: own)
            for token in tokens.indices {
                let start = token * width
                let back = layer.norm.inputGradient(of: block.gradient[start..<(start + width)], token: token)
                for column in 0..<width { gradient[start + column] += back[column] }
            }
            if opening.contains(.routing),
                let group = model.units.layersOfGroup.firstIndex(where: { $0.lowerBound == index }),
                let inner = try model.routingGradient(
                    group: group, of: output,
                    for: model.units.layersOfGroup[group].map {
                        try tensor(gradients[c.layerCount - 1 - $0])
                    },
                    on: backend)
            {
                open(.routing, index, layer.norm, inner)
            }
            let through =
                try opening.contains(.patterns)
                ? model.patternGradient(index, of: output, for: tensor(gradient), on: backend) : nil
            let attention = try layer.attention.addInputGradients(to: &gradient, lengths: [tokens.count])
            if let through { open(.patterns, index, layer.attention.norm, through) }
            blocks.append(block)
            biases.append(own.reduce(0, +) + attention.reduce(0, +))
        }
        let stream = try output.observed(.residPre, 0).floats()
        embeddings = tokens.indices.map { token in
            (0..<width).reduce(0.0) {
                $0 + Double(gradient[token * width + $1]) * Double(stream[token * width + $1])
            }
        }
        self.opened = try opened.map { path, layer, gradient in
            let stream = try output.observed(path == .routing ? .residMid : .residPre, layer).floats()
            return OpenedReading(
                path: path, layer: layer, gradient: gradient,
                contributions: tokens.indices.map { token in
                    (0..<width).reduce(0.0) {
                        $0 + Double(gradient[token * width + $1]) * Double(stream[token * width + $1])
                    }
                })
        }
        self.gradients = gradients.reversed()
        self.blocks = blocks.reversed()
        self.biases = biases.reversed()
        self.stream = stream
        blockOutputs = try (0..<c.layerCount).map { try output.observed(.mlpOut, $0).floats() }
        (self.tokens, self.target, self.model, self.backend, self.layers) =
            (tokens, target, model, backend, layers)
        self.mask = mask
    }

    /// What every unit contributes through all paths.
    ///
    /// - `visit`: called with layer, position, unit and contribution.
    public func visitContributions(
        _ visit: (_ layer: Int, _ position: Int, _ unit: Int, _ contribution: Double) -> Void
    ) throws {
        let shape = [tokens.count, model.configuration.hiddenSize]
        for (layer, linearized) in layers.enumerated() {
            let gradient = try backend.tensor(Tensor(gradients[layer], shape: shape))
            try linearized.feedForward.contributions(of: gradient) { visit(layer, $0, $1, $2) }
        }
    }
}

/// What a linearized pass holds and can follow to first order instead.
public enum OpenedPath: String, Sendable, CaseIterable {
    /// Attention patterns, by the gradient of the softmax of queries and keys.
    case patterns
    /// Routing probabilities, by the gradient of the softmax over the selected; the selection stays.
    case routing
}

/// An opened path where it reads the residual stream: in one layer, at every position.
struct OpenedReading {
    let path: OpenedPath
    /// The layer; of routing, the one that owns the router.
    let layer: Int
    /// Gradient at the stream that it reads, before attention for patterns and after it for routing, `[tokens, d]`.
    let gradient: [Float]
    /// Gradient times stream, by position.
    let contributions: [Double]
}
