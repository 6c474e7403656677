import MonetCompute
import MonetFoundation

/// SwiGLU, Llama's feed-forward block, W_down (silu(W_gate h) · W_up h), with which Monet is compared.
///
/// Its units are the hidden units, called neurons; a neuron's score is its absolute activation, and a strength
/// multiplies the activation.
public struct DenseFeedForward: FeedForwardFamily {
    public static let name = "dense"
    public static let presetEnding = "llama"
    public static let identity = ModelIdentity(
        modelType: "llama", architecture: "LlamaForCausalLM", activation: "silu", code: nil)

    /// Hidden units.
    public var intermediateSize: Int

    /// A block with this number of hidden units.
    public init(intermediateSize: Int = 5632) { self.intermediateSize = intermediateSize }

    public static func describes(_ keys: ConfigurationKeys) throws -> Bool {
        try keys.optionalString("model_type") == identity.modelType
    }

    public init(_ keys: ConfigurationKeys) throws {
        try keys.requireActivation(Self.identity.activation)
        self.init(intermediateSize: try keys.size("intermediate_size"))
    }

    /// A block with as many parameters as the other family, to the nearest multiple of 8 hidden units.
    public init(replacing other: any FeedForwardFamily, in configuration: MonetConfiguration) throws {
        if let dense = other as? DenseFeedForward {
            self = dense
            return
        }
        var (from, to) = (configuration, configuration)
        from.feedForward = other
        to.feedForward = DenseFeedForward(intermediateSize: 8)
        let perUnit = 3 * configuration.hiddenSize * configuration.layerCount
        let units =
            8 + Int((Double(from.parameterCount - to.parameterCount) / Double(perUnit)).rounded())
        self.init(intermediateSize: max(8, (units + 4) / 8 * 8))
    }

    public var members: [(String, JSONValue)] {
        [("intermediate_size", .integer(intermediateSize)), ("mlp_bias", false)]
    }

    public func validate(
        hiddenSize: Int, _ require: (Bool, _ key: String, _ found: Int, _ expected: String) throws -> Void
    ) throws {}

    public func tensors(layer: Int, hiddenSize: Int) -> [TensorShape] {
        [
            TensorShape(name: "mlp.gate_proj.weight", shape: [intermediateSize, hiddenSize], role: .linear),
            TensorShape(name: "mlp.up_proj.weight", shape: [intermediateSize, hiddenSize], role: .linear),
            TensorShape(name: "mlp.down_proj.weight", shape: [hiddenSize, intermediateSize], role: .linear),
        ]
    }

    public func layer(_ parameters: LayerParameters) throws -> any FeedForwardLayer {
        func linear(_ name: String) throws -> Linear {
            Linear(weight: try parameters("mlp.\(name)_proj.weight"), bias: nil)
        }
        return DenseLayer(
            layer: parameters.layer, gate: try linear("gate"), up: try linear("up"),
            down: try linear("down"))
    }

    public func hooks(_ layer: Int) -> [HookPoint.Kind] { [.mlpPost] }

    public func units(layerCount: Int) -> UnitLayout {
        UnitLayout(
            kind: .neurons, layersOfGroup: (0..<layerCount).map { $0...$0 }, unitsPerGroup: intermediateSize)
    }

    public func linearized(
        at point: FeedForwardPoint, _ parameters: LayerParameters, on backend: any Backend
    ) throws -> any LinearizedFeedForward {
        try LinearizedNeurons(point, parameters, on: backend)
    }

    /// A strength multiplies what a neuron adds, so it multiplies the neuron's column of the down-matrix.
    public func bake(_ mask: UnitMask, into parameters: [Parameter], layerCount: Int) throws -> BakedMask? {
        let baked = parameters.map { parameter in
            guard
                let layer = (0..<layerCount).first(where: {
                    parameter.name == "model.layers.\($0).mlp.down_proj.weight"
                })
            else { return parameter }
            return parameter.scaling(columns: mask.entries(group: layer))
        }
        return BakedMask(
            parameters: baked, parts: mask.count, description: "neurons' columns in the down-matrices changed"
        )
    }

    public var fingerprintNumbers: [Int] { [intermediateSize] }

    public var summary: [(String, String)] {
        [("", "dense Llama"), ("hidden units", intermediateSize.grouped)]
    }
}

extension HookPoint.Kind {
    /// Hidden units of a dense feed-forward, `[tokens, units]`.
    public static let mlpPost = HookPoint.Kind(rawValue: "mlp.hook_post")
}

private struct DenseLayer: FeedForwardLayer {
    let layer: Int
    let gate: Linear
    let up: Linear
    let down: Linear

    func callAsFunction(_ h: Variable, shared: inout (any UnitActivations)?, _ pass: ForwardPass) throws
        -> Variable
    {
        var hidden = try pass.tape.gatedActivation(gate: gate(h, pass), up: up(h, pass))
        hidden = try pass.hook(.mlpPost, layer, hidden)
        let forced = pass.forcedUnits(group: layer)
        if !forced.isEmpty {
            var raised = [Float](repeating: 0, count: hidden.value.count)
            for (row, unit, score) in forced { raised[row * hidden.value.columnCount + unit] += score }
            let tensor = try pass.tape.backend.tensor(Tensor(raised, shape: hidden.value.shape))
            hidden = try pass.tape.add(hidden, Variable(tensor))
        }
        let strengths = pass.strengths(group: layer)
        if !strengths.isEmpty { hidden = try pass.tape.scaled(hidden, by: strengths) }
        if pass.input.keepsUnits {
            shared = NeuronActivations(layer: layer, hidden: hidden)
        }
        return try down(hidden, pass)
    }

    func prepared(on backend: any Backend) throws -> any FeedForwardLayer { self }
}

/// The hidden activations of one dense layer as units.
struct NeuronActivations: UnitActivations {
    let layer: Int
    /// `[tokens, units]`.
    let hidden: Variable

    var group: Int { layer }

    func reader() -> any UnitScoreReader {
        NeuronScores(hidden.value.floats(), units: hidden.value.columnCount)
    }

    func lastRows(_ count: Int) -> any UnitActivations {
        NeuronActivations(layer: layer, hidden: Variable(hidden.value.lastRows(count)))
    }
}

/// Absolute activations, 0 for inactive neurons.
private struct NeuronScores: UnitScoreReader {
    private let values: [Float]
    private let units: Int

    init(_ values: [Float], units: Int) {
        self.values = values
        self.units = units
    }

    mutating func visit(_ row: Int, _ body: (_ unit: Int, _ score: Float) -> Void) {
        for unit in 0..<units where values[row * units + unit] != 0 {
            body(unit, abs(values[row * units + unit]))
        }
    }
}

extension Tensor {
    /// The last `count` rows.
    func lastRows(_ count: Int) -> Tensor { slice((shape[0] - count)..<shape[0]) }
}
