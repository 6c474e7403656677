import MonetCompute
import MonetFoundation
import MonetModel

/// How the loss on documents would change, to first order, if each unit were removed.
///
/// With a strength s_ij on every term of expert (i, j), all of them 1, the effect of removing it is
/// −∂L/∂s_ij = −Σ over layers, tokens and heads of ĝ1_hi ĝ2_hj · (∂L/∂y · f_ij(h)), where f_ij is the
/// expert's function; likewise for neurons. One backward pass gives ∂L/∂y of every layer, and so all pairs.
public struct UnitEffects: Sendable {
    /// The effects by group and unit; positive where removal raises the mean loss per token.
    public private(set) var values: [[Double]]
    /// The number of tokens whose prediction counted.
    public private(set) var tokens = 0
    /// Mean loss per token.
    public private(set) var loss = 0.0

    /// Runs all documents forward and backward.
    ///
    /// - `model`: loaded for training, that is in the checkpoint's layout.
    /// - `progress`: called with the tokens so far; false stops.
    /// - Throws: `ModelError`, `ComputeError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        window: Int? = nil, progress: (Int) -> Bool = { _ in true }
    ) throws {
        let (c, units) = (model.configuration, model.units)
        try MemoryLimits.require(
            MemoryLimits.product(units.count, 16),
            for: "the effects of \(units.count.grouped) \(units.kind.rawValue)")
        var sums = Array(repeating: Array(repeating: 0.0, count: units.unitsPerGroup), count: units.groups)
        let length = window ?? min(c.contextLength, 512)
        var sumOfLosses = 0.0
        reading: for document in 0..<documents.count {
            let all = documents.tokens(document)
            try documents.check(all, vocabularySize: c.vocabularySize)
            for start in stride(from: 0, to: all.count, by: length) {
                let piece = Array(all[start..<min(all.count, start + length)])
                guard piece.count > 1 else { continue }
                sumOfLosses += try Self.add(piece, model, units, backend, into: &sums)
                tokens += piece.count - 1
                if !progress(tokens) { break reading }
            }
        }
        let count = Double(max(1, tokens))
        loss = sumOfLosses / count
        values = sums.map { $0.map { -$0 / count } }
        for (group, effects) in values.enumerated() {
            guard let index = effects.firstIndex(where: { !$0.isFinite }) else { continue }
            throw ModelError.notFinite(
                what: "the gradient of \(UnitID(group: group, index: index))'s strength", place: nil)
        }
    }

    /// Adds ∂L/∂s of every unit over one piece; returns its loss.
    private static func add(
        _ piece: [Int32], _ model: MonetLanguageModel, _ units: UnitLayout, _ backend: any Backend,
        into sums: inout [[Double]]
    ) throws -> Double {
        let layers = 0..<model.configuration.layerCount
        var input = ForwardInput([piece])
        input.keepsUnits = true
        input.hooks.observed = Set(
            layers.flatMap { [HookPoint(.mlpIn, layer: $0), HookPoint(.mlpOut, layer: $0)] })
        // One parameter with a gradient at the bottom makes gradients flow through all layers.
        let variables = ParameterVariables { $0 != "model.embed_tokens.weight" }
        let output = try model.forward(input, variables: variables, on: backend)
        let losses = try model.crossEntropy(output, targets: piece.dropFirst() + [-1]).floats()
        try output.backward()
        for (group, layers) in units.layersOfGroup.enumerated() {
            for layer in layers {
                let block = try model.linearizedFeedForward(layer, of: output, on: backend)
                guard let gradient = output.observations[HookPoint(.mlpOut, layer: layer)]?.gradient else {
                    throw ModelError.notFinite(what: "the gradient of layer \(layer)", place: nil)
                }
                try block.contributions(of: gradient) { _, unit, value in sums[group][unit] += value }
            }
        }
        return losses.reduce(0.0) { $0 + Double($1) }
    }

    /// The `count` units whose removal raises the loss most (or lowers it most).
    public func strongest(_ count: Int, raising: Bool = true) -> [UnitID] {
        let sign = raising ? 1.0 : -1.0
        let all = values.enumerated().flatMap { group, effects in
            effects.indices.filter { sign * effects[$0] > 0 }.map { (sign * effects[$0], group, $0) }
        }
        return all.sorted { ($1.0, $0.1, $0.2) < ($0.0, $1.1, $1.2) }.prefix(max(0, count))
            .map { UnitID(group: $0.1, index: $0.2) }
    }
}
