import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// A feed-forward family that is defined here alone, with an operation that neither the tape nor any backend has:
/// y = W_down (W_up h)³.
private struct CubedFeedForward: FeedForwardFamily {
    static let name = "cubed"
    static let presetEnding = "cubed"
    static let identity = ModelIdentity(
        modelType: "cubed", architecture: "CubedForCausalLM", activation: "cube", code: nil)

    var neurons = 14

    init(neurons: Int) { self.neurons = neurons }
    init(_ keys: ConfigurationKeys) throws { neurons = try keys.size("intermediate_size") }
    init(replacing other: any FeedForwardFamily, in configuration: MonetConfiguration) throws {
        throw ModelError.invalidInput(reason: "no conversion")
    }

    static func describes(_ keys: ConfigurationKeys) throws -> Bool {
        try keys.optionalString("model_type") == identity.modelType
    }

    var members: [(String, JSONValue)] { [("intermediate_size", .integer(neurons))] }
    var fingerprintNumbers: [Int] { [neurons] }
    var summary: [(String, String)] { [("", "cubed")] }

    func validate(
        hiddenSize: Int, _ require: (Bool, _ key: String, _ found: Int, _ expected: String) throws -> Void
    ) throws {}

    func tensors(layer: Int, hiddenSize: Int) -> [TensorShape] {
        [
            TensorShape(name: "cubed.up.weight", shape: [neurons, hiddenSize], role: .linear),
            TensorShape(name: "cubed.down.weight", shape: [hiddenSize, neurons], role: .linear),
        ]
    }

    func layer(_ parameters: LayerParameters) throws -> any FeedForwardLayer {
        CubedLayer(
            layer: parameters.layer, up: try parameters("cubed.up.weight"),
            down: try parameters("cubed.down.weight"))
    }

    func hooks(_ layer: Int) -> [HookPoint.Kind] { [.cubed] }

    func units(layerCount: Int) -> UnitLayout {
        UnitLayout(
            kind: .neurons, layersOfGroup: (0..<layerCount).map { $0...$0 }, unitsPerGroup: neurons)
    }
}

extension HookPoint.Kind {
    fileprivate static let cubed = HookPoint.Kind(rawValue: "cubed.hook_post")
}

private struct CubedLayer: FeedForwardLayer {
    let layer: Int
    let up: Parameter
    let down: Parameter

    func callAsFunction(_ h: Variable, shared: inout (any UnitActivations)?, _ pass: ForwardPass) throws
        -> Variable
    {
        let before = try pass.tape.linear(h, weight: pass(up), bias: nil)
        let after = try pass.hook(.cubed, layer, cube(before, pass.tape))
        let strengths = pass.strengths(group: layer)
        let hidden = strengths.isEmpty ? after : try pass.tape.scaled(after, by: strengths)
        return try pass.tape.linear(hidden, weight: pass(down), bias: nil)
    }

    private func cube(_ x: Variable, _ tape: GradientTape) throws -> Variable {
        let values = x.value.onHost.floats()
        let value = try tape.backend.tensor(Tensor(values.map { $0 * $0 * $0 }, shape: x.value.shape))
        return tape.record(value, from: [x]) { [backend = tape.backend] gradient in
            let slopes = zip(gradient.onHost.floats(), values).map { $0 * 3 * $1 * $1 }
            try x.add(backend.tensor(Tensor(slopes, shape: x.value.shape)), on: backend)
        }
    }

    func prepared(on backend: any Backend) throws -> any FeedForwardLayer { self }
}

/// Whatever a model does with a feed-forward family works for one that this file alone defines.
@Suite struct OwnFamilyTests {
    private let tokens: [[Int32]] = [[1, 5, 9, 33, 66, 2, 8], [7, 7, 0]]

    private func model() throws -> MonetLanguageModel {
        var configuration = smallConfiguration(.dense)
        configuration.feedForward = CubedFeedForward(neurons: 14)
        return try scrambledModel(configuration, seed: 17)
    }

    private func loss(
        _ model: MonetLanguageModel, _ backend: any Backend, _ variables: ParameterVariables? = nil
    ) throws -> Double {
        let input = ForwardInput(tokens, mask: UnitMask.random(share: 0.2, of: model.units, seed: 1))
        let output =
            try variables.map { try model.forward(input, variables: $0, on: backend) }
            ?? model.forward(input, on: backend)
        let losses = try model.crossEntropy(
            output, targets: tokens.flatMap { $0.dropFirst() + [-1] }, scale: 1)
        if variables != nil { try output.backward() }
        return losses.onHost.floats().reduce(0) { $0 + Double($1) }
    }

    /// Gradients through the family's own operation on both devices, against differences of the loss on the
    /// double-precision device. Parameters are float32, so a step of 1e-2 is off by up to 1e-5 of itself, and the
    /// third derivative of the cubes leaves about 1e-4 of the largest gradient: bound 1e-3.
    @Test func gradientsPassThroughItsOwnOperation() throws {
        let reference = ReferenceBackend()
        let model = try model()
        var gradients: [Device: [String: [Float]]] = [:]
        for device in Device.allCases {
            let moved = try model.moved(to: device.backend)
            let variables = ParameterVariables()
            _ = try loss(moved, device.backend, variables)
            gradients[device] = Dictionary(
                uniqueKeysWithValues: try moved.parameters.trainable.map {
                    ($0.name, try #require(variables.gradient(of: $0)).onHost.floats())
                })
        }
        for name in [
            "model.layers.1.cubed.up.weight", "model.layers.0.cubed.down.weight", "model.norm.weight",
        ] {
            let tensor = try model.parameters(name).tensor
            let values = tensor.floats()
            for place in [0, 7, 35] {
                let step: Float = 1e-2
                let losses = try [step, -step].map { change in
                    var changed = values
                    changed[place] += change
                    try tensor.write(changed)
                    defer { try? tensor.write(values) }
                    return try loss(model.moved(to: reference), reference)
                }
                let expected = (losses[0] - losses[1]) / Double(2 * step)
                for (device, found) in gradients {
                    let all = try #require(found[name])
                    let scale = all.reduce(0) { max($0, abs($1)) }
                    #expect(
                        abs(Double(all[place]) - expected) < 1e-3 * Double(scale),
                        "\(name) \(place) \(device)")
                }
            }
        }
    }

    @Test func masksHooksAndFilesNeedNothingElse() throws {
        try withTemporaryFolder { folder in
            let model = try model()
            #expect(model.hookPoints.contains(HookPoint(.cubed, layer: 2)))
            #expect(throws: ModelError.self) { try model.check([HookPoint(.g1, layer: 0)]) }
            // A removed neuron adds nothing: the same as zeros in its column of the down-matrix.
            var mask = UnitMask(model.units)
            mask.remove([3], group: 1)
            let masked = try model.forward(ForwardInput(tokens, mask: mask)).hidden.value
            #expect(relativeError(masked, try model.forward(ForwardInput(tokens)).hidden.value) > 1e-3)
            let down = try model.parameters("model.layers.1.cubed.down.weight").tensor
            var values = down.floats()
            for row in 0..<down.rowCount { values[row * 14 + 3] = 0 }
            try down.write(values)
            #expect(relativeError(masked, try model.forward(ForwardInput(tokens)).hidden.value) < 1e-6)
            try Checkpoint.write(model, dtype: .float32, to: folder)
            let read = try Checkpoint.tensors(folder).parameters(for: model.configuration)
            #expect(try read("model.layers.1.cubed.down.weight").tensor.floats() == values)
        }
    }
}
