import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Representation Misdirection for Unlearning (RMU; Li et al. 2024, arXiv 2403.03218): the usual baseline of unlearning by
/// gradient.
///
/// At one layer, the residual stream of texts to forget is pushed to a fixed random direction, and that of texts to keep is
/// held where it was in the original model:
/// L = ‖h(forget) − c · u‖² + α ‖h(retain) − h₀(retain)‖², both means over tokens and dimensions. Only the
/// down-projections of a few layers are trained.
public final class RepresentationMisdirection {
    /// The hyperparameters; the defaults are those of the authors' code.
    public struct Settings: Sendable {
        /// The layer after which the residual stream is compared.
        public var layer = 7
        /// The layers whose down-projections are trained.
        public var trainedLayers = [5, 6, 7]
        /// c, the length of the direction.
        public var steering = 20.0
        /// α, the weight of what is kept.
        public var retainWeight = 100.0
        /// The learning rate of AdamW, which is constant.
        public var learningRate = 5e-5
        public var steps = 80
        /// Texts of either kind in a step.
        public var batchSize = 4
        /// Tokens of a text; the rest of a longer one is left out.
        public var length = 512
        /// Of the direction and of the order of texts.
        public var seed: UInt64 = 42

        /// The authors' defaults.
        public init() {}

        /// - Throws: `TrainingError.invalidSetting`.
        func validate(_ configuration: MonetConfiguration) throws {
            func require(_ holds: Bool, _ key: String, _ found: String, _ expected: String) throws {
                guard holds else {
                    throw TrainingError.invalidSetting(
                        source: "RMU", key: key, found: found, expected: expected)
                }
            }
            let last = configuration.layerCount - 1
            try require((0...last).contains(layer), "layer", "\(layer)", "0 to \(last)")
            try require(
                !trainedLayers.isEmpty && trainedLayers.allSatisfy { (0...layer).contains($0) }, "layers",
                "\(trainedLayers)", "one or more from 0 to \(layer), the layer that is compared")
            for (key, value) in [
                ("steering", steering), ("alpha", retainWeight), ("lr", learningRate),
            ] {
                try require(value >= 0 && value.isFinite, key, "\(value)", "0 or more")
            }
            for (key, value) in [("steps", steps), ("batch_size", batchSize)] {
                try require(value > 0, key, "\(value)", "1 or more")
            }
            try require(
                (1...configuration.contextLength).contains(length), "length", "\(length)",
                "1 to the model's context of \(configuration.contextLength)")
        }
    }

    /// One step.
    public struct Progress: Sendable {
        public let step: Int
        public let steps: Int
        /// Both terms of the loss, without their weights.
        public let forgetLoss: Double
        public let retainLoss: Double
    }

    private let settings: Settings
    private let model: MonetLanguageModel
    private let original: MonetLanguageModel
    private let backend: any Backend
    private let point: HookPoint
    /// c · u.
    package let target: [Float]
    package let trained: [Parameter]

    /// Prepares the unlearning of a model.
    ///
    /// - `model`: loaded for training; it is changed.
    /// - `original`: the same model, which stays as it is.
    /// - Throws: `TrainingError.invalidSetting`.
    public init(
        _ settings: Settings, model: MonetLanguageModel, original: MonetLanguageModel,
        backend: any Backend = CPUBackend()
    ) throws {
        try settings.validate(model.configuration)
        (self.settings, self.model, self.original, self.backend) = (settings, model, original, backend)
        point = HookPoint(.residPost, layer: settings.layer)
        var generator = SplitMix64(seed: settings.seed)
        let direction = (0..<model.configuration.hiddenSize).map { _ in
            Double.random(in: 0..<1, using: &generator)
        }
        let norm = direction.reduce(0) { $0 + $1 * $1 }.squareRoot()
        target = direction.map { Float($0 / norm * settings.steering) }
        trained = model.parameters.trainable.filter { Self.isDownProjection($0, of: settings.trainedLayers) }
        guard !trained.isEmpty else {
            throw TrainingError.invalidSetting(
                source: "RMU", key: "layers", found: "\(settings.trainedLayers)",
                expected: "layers with feed-forward parts")
        }
    }

    private static func isDownProjection(_ parameter: Parameter, of layers: [Int]) -> Bool {
        layers.contains { layer in
            let name = parameter.name
            return name.hasPrefix("model.layers.\(layer).moe.v") && parameter.role == .expert
                || name == "model.layers.\(layer).mlp.down_proj.weight"
        }
    }

    /// Unlearns.
    ///
    /// - `forget`, `retain`: token ids of texts.
    /// - `progress`: called after each step; false stops.
    /// - Returns: whether all steps were done.
    /// - Throws: `TrainingError`, `ModelError`.
    public func run(
        forget: [[Int32]], retain: [[Int32]], progress: (Progress) throws -> Bool = { _ in true }
    ) throws -> Bool {
        let optimizer = try AdamW(
            trained,
            settings: .init(beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0, decaysEverything: false),
            on: backend)
        var (own, other) = (
            try TextCycle(forget, name: "forget", settings), try TextCycle(retain, name: "retain", settings)
        )
        for step in 1...settings.steps {
            let variables = self.variables()
            let (forgetLoss, retainLoss) = try addGradients(
                forget: own.next(), retain: other.next(), into: variables)
            let norm = try optimizer.gradientNorm(variables, on: backend)
            guard norm.isFinite else {
                throw TrainingError.diverged(
                    step: step, reason: "the gradient's norm is \(norm)", lastCheckpoint: nil)
            }
            try optimizer.update(
                variables, learningRate: settings.learningRate, gradientScale: 1, on: backend)
            let report = Progress(
                step: step, steps: settings.steps, forgetLoss: forgetLoss, retainLoss: retainLoss)
            if try !progress(report) { return step == settings.steps }
        }
        return true
    }

    /// Variables of which the trained ones alone get gradients.
    package func variables() -> ParameterVariables {
        let names = Set(trained.map(\.name))
        return ParameterVariables { !names.contains($0) }
    }

    /// Adds the gradients of the loss on two batches; returns its terms.
    package func addGradients(
        forget: [[Int32]], retain: [[Int32]], into variables: ParameterVariables
    ) throws -> (forget: Double, retain: Double) {
        let width = target.count
        let forgetLoss = try addGradient(forget, weight: 1, into: variables) { index in target[index % width]
        }
        var input = ForwardInput(retain)
        input.hooks = Hooks(observing: [point])
        let before = try observed(original.forward(input, on: backend)).value.floats()
        let retainLoss = try addGradient(retain, weight: settings.retainWeight, into: variables) {
            before[$0]
        }
        return (forgetLoss, retainLoss)
    }

    private func observed(_ output: ForwardOutput) throws -> Variable {
        guard let value = output.observations[point] else {
            throw ModelError.invalidInput(reason: "the model has no \(point)")
        }
        return value
    }

    /// Adds the gradient of weight · mean((h − wanted)²); returns the mean.
    private func addGradient(
        _ batch: [[Int32]], weight: Double, into variables: ParameterVariables, wanted: (Int) -> Float
    ) throws -> Double {
        var input = ForwardInput(batch)
        input.hooks = Hooks(observing: [point])
        let output = try model.forward(input, variables: variables, on: backend)
        let hidden = try observed(output)
        let values = hidden.value.floats()
        var (sum, gradient) = (0.0, [Float](repeating: 0, count: values.count))
        let scale = Float(2 * weight / Double(values.count))
        for (index, value) in values.enumerated() {
            let difference = value - wanted(index)
            sum += Double(difference) * Double(difference)
            gradient[index] = scale * difference
        }
        try hidden.add(try backend.tensor(Tensor(gradient, shape: hidden.value.shape)), on: backend)
        try output.backward()
        return sum / Double(values.count)
    }
}

/// Batches of texts, in a random order that begins again when all have been used.
struct TextCycle {
    private let texts: [[Int32]]
    private let batchSize: Int
    private var order: [Int] = []
    private var generator: SplitMix64

    /// - Throws: `TrainingError.invalidSetting` for no texts.
    init(_ texts: [[Int32]], name: String, _ settings: RepresentationMisdirection.Settings) throws {
        self.texts = texts.filter { !$0.isEmpty }.map { Array($0.prefix(settings.length)) }
        guard !self.texts.isEmpty else {
            throw TrainingError.invalidSetting(
                source: "RMU", key: "the texts to \(name)", found: "none", expected: "one or more")
        }
        batchSize = settings.batchSize
        generator = SplitMix64(seed: settings.seed ^ StableHash.of(name))
    }

    mutating func next() -> [[Int32]] {
        (0..<min(batchSize, texts.count)).map { _ in
            if order.isEmpty { order = texts.indices.shuffled(using: &generator) }
            return texts[order.removeLast()]
        }
    }
}
