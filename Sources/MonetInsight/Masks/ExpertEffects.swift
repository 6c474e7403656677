import MonetCompute
import MonetFoundation
import MonetModel

/// How the loss on documents would change, to first order, if each expert were removed.
///
/// With a strength s_ij on every term of expert (i, j), all of them 1, the effect of removing it is
/// −∂L/∂s_ij = −Σ over layers, tokens and heads of ĝ1_hi ĝ2_hj · (∂L/∂y · f_ij(h)), where f_ij is the
/// expert's function. One backward pass gives ∂L/∂y of every layer, and with it all pairs at once.
public struct ExpertEffects: Sendable {
    /// By group and expert index: positive where removal raises the mean loss per token.
    public private(set) var values: [[Double]]
    /// Tokens whose prediction counted.
    public private(set) var tokens = 0
    /// Mean loss per token.
    public private(set) var loss = 0.0

    private let expertsPerSide: Int

    /// Runs all documents forward and backward.
    ///
    /// - Parameters:
    ///   - model: loaded for training, that is in the checkpoint's layout.
    ///   - progress: called with the tokens so far; false stops.
    /// - Throws: `InsightError.noExperts`, `ModelError`, `ComputeError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend,
        window: Int? = nil, progress: (Int) -> Bool = { _ in true }
    ) throws {
        let c = model.configuration
        guard c.feedForward != .dense else { throw InsightError.noExperts }
        expertsPerSide = c.expertsPerSide
        let total = c.expertsPerSide * c.expertsPerSide
        var sums = Array(repeating: Array(repeating: 0.0, count: total), count: c.routerLayers.count)
        let length = window ?? min(c.contextLength, 512)
        var sumOfLosses = 0.0
        reading: for document in 0..<documents.count {
            let all = documents.tokens(document)
            try documents.check(all, vocabularySize: c.vocabularySize)
            for start in stride(from: 0, to: all.count, by: length) {
                let piece = Array(all[start..<min(all.count, start + length)])
                guard piece.count > 1 else { continue }
                let context = ForwardContext(observingOn: backend, model: model)
                context.observesExperts = { flow in
                    try Self.add(flow, model, backend, into: &sums[flow.layer / c.layersPerRouter])
                }
                let output = try model.forward([piece], context)
                let losses = try model.crossEntropy(
                    output.hidden, targets: piece.dropFirst() + [-1], scale: 1, context)
                try context.tape.backward()
                sumOfLosses += losses.reduce(0.0) { $0 + Double($1) }
                tokens += piece.count - 1
                if !progress(tokens) { break reading }
            }
        }
        let count = Double(max(1, tokens))
        loss = sumOfLosses / count
        values = sums.map { $0.map { -$0 / count } }
    }

    /// The `count` experts whose removal raises the loss most (or lowers it most).
    public func strongest(_ count: Int, raising: Bool = true) -> [ExpertID] {
        let sign = raising ? 1.0 : -1.0
        let all = values.enumerated().flatMap { group, effects in
            effects.indices.filter { sign * effects[$0] > 0 }.map { (sign * effects[$0], group, $0) }
        }
        return all.sorted { ($1.0, $0.1, $0.2) < ($0.0, $1.1, $1.2) }.prefix(max(0, count))
            .map { ExpertID(group: $0.1, index: $0.2) }
    }

    /// Adds ĝ1 ĝ2 · (∂L/∂y · f_ij) of every selected pair in one layer.
    private static func add(
        _ flow: ExpertFlow, _ model: MonetLanguageModel, _ backend: any Backend, into sums: inout [Double]
    ) throws {
        let c = model.configuration
        let terms = try PairTerms(flow, model, backend)
        var scores = PairScores(heads: c.routingHeads, experts: c.expertsPerSide)
        for token in 0..<flow.input.rowCount {
            scores.read(token, left: flow.left.pointer, right: flow.right.pointer)
            for index in scores.indices {
                sums[index] +=
                    Double(scores[index])
                    * terms(token, left: index / c.expertsPerSide, right: index % c.expertsPerSide)
            }
        }
    }
}

/// ∂L/∂y · f_ij(h) of any pair, from products that each half has by itself.
private struct PairTerms {
    private let units: Int
    private let experts: Int
    /// σ(U h + b) of the left side; of the right side in vertical experts.
    private let left: Tensor
    private let right: Tensor?
    /// ∂L/∂y projected back through the down-projections, `[tokens, E · units]`, by what it multiplies.
    private let leftByLeft: Tensor?
    private let leftByRight: Tensor?
    private let rightByLeft: Tensor
    private let rightByRight: Tensor?
    /// ∂L/∂y · output bias, `[tokens, E]`.
    private let leftBias: Tensor?
    private let rightBias: Tensor

    init(_ flow: ExpertFlow, _ model: MonetLanguageModel, _ backend: any Backend) throws {
        let prefix = "model.layers.\(flow.layer).moe."
        func weight(_ name: String) throws -> Tensor { try model.parameters(prefix + name).tensor }
        func hidden(_ name: String) throws -> Tensor {
            let values = try backend.linear(
                flow.input, weight: weight(name + ".weight"), bias: weight(name + ".bias"))
            return Tensor(values.floats().map { max(0, $0) * max(0, $0) }, shape: values.shape)
        }
        /// gradient · W for a down-projection W `[width, E · units]`.
        func back(_ gradient: Tensor, _ name: String) throws -> Tensor {
            let matrix = try weight(name)
            let result = Tensor(zeros: [gradient.rowCount, matrix.columnCount])
            try backend.linearGradient(
                gradient, x: result, weight: matrix,
                into: LinearGradient(x: result, weight: nil, bias: nil))
            return result
        }
        let c = model.configuration
        experts = c.expertsPerSide
        let dy = flow.outputGradient
        if c.feedForward == .horizontal {
            units = c.expertWidth
            left = try hidden("u")
            (right, leftByLeft, leftByRight, rightByRight, leftBias) = (nil, nil, nil, nil, nil)
            rightByLeft = try back(dy, "v.weight")
            rightBias = try backend.linear(dy, weight: weight("b"), bias: nil)
        } else {
            units = c.expertWidth / 2
            let half = c.hiddenSize / 2
            let (upper, lower) = (dy.columns(0..<half), dy.columns(half..<(2 * half)))
            left = try hidden("u1")
            right = try hidden("u2")
            leftByLeft = try back(upper, "v11.weight")
            leftByRight = try back(upper, "v12.weight")
            rightByLeft = try back(lower, "v21.weight")
            rightByRight = try back(lower, "v22.weight")
            leftBias = try backend.linear(upper, weight: weight("b1"), bias: nil)
            rightBias = try backend.linear(lower, weight: weight("b2"), bias: nil)
        }
    }

    func callAsFunction(_ token: Int, left i: Int, right j: Int) -> Double {
        func dot(_ x: Tensor, _ expertOfX: Int, _ y: Tensor, _ expertOfY: Int) -> Double {
            let row = token * experts
            let a = x.pointer + (row + expertOfX) * units
            let b = y.pointer + (row + expertOfY) * units
            return (0..<units).reduce(0.0) { $0 + Double(a[$1]) * Double(b[$1]) }
        }
        var sum = dot(rightByLeft, j, left, i) + Double(rightBias.pointer[token * experts + j])
        if let right, let leftByLeft, let leftByRight, let rightByRight, let leftBias {
            sum += dot(leftByLeft, i, left, i) + dot(leftByRight, i, right, j)
            sum += dot(rightByRight, j, right, j) + Double(leftBias.pointer[token * experts + i])
        }
        return sum
    }
}

extension Tensor {
    /// A copy of some columns.
    fileprivate func columns(_ range: Range<Int>) -> Tensor {
        let result = Tensor(uninitialized: [rowCount, range.count])
        for row in 0..<rowCount {
            (result.pointer + row * range.count).update(
                from: pointer + row * columnCount + range.lowerBound, count: range.count)
        }
        return result
    }
}
