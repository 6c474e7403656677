import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Fine-tuning on texts that a model should not know: how many tokens bring the knowledge back?
///
/// Knowledge that was removed needs as many as a model that never had it; knowledge that was only hidden returns at once.
public struct Relearning: Sendable {
    /// The fine-tuning.
    public struct Settings: Sendable {
        /// Constant, after ten steps of warm-up.
        public var learningRate = 3e-4
        public var batchSize = 8
        /// Tokens of a sequence.
        public var length = 256
        /// Tokens of the whole fine-tuning.
        public var tokens = 100_000
        /// Tokens between measurements.
        public var tokensPerMeasurement = 10_000
        /// Of the order of texts.
        public var seed: UInt64 = 0

        /// A hundred thousand tokens in batches of 8 · 256.
        public init() {}

        /// - Throws: `TrainingError.invalidSetting`.
        func validate(_ configuration: MonetConfiguration) throws {
            for (key, value, least) in [
                ("batch_size", batchSize, 1), ("length", length, 1), ("tokens", tokens, 1),
                ("every", tokensPerMeasurement, 1),
            ] where value < least {
                throw TrainingError.invalidSetting(
                    source: "relearning", key: key, found: "\(value)", expected: "\(least) or more")
            }
            guard length <= configuration.contextLength else {
                throw TrainingError.invalidSetting(
                    source: "relearning", key: "length", found: "\(length)",
                    expected: "at most the model's context of \(configuration.contextLength)")
            }
            guard learningRate > 0, learningRate.isFinite else {
                throw TrainingError.invalidSetting(
                    source: "relearning", key: "lr", found: "\(learningRate)", expected: "more than 0")
            }
        }
    }

    /// A measurement.
    public struct Point: Sendable, Equatable {
        /// Tokens of fine-tuning before it.
        public let tokens: Int
        /// What was measured, such as the accuracy on held-out texts of the forgotten kind.
        public let values: [Double]

        /// Joins both.
        public init(tokens: Int, values: [Double]) { (self.tokens, self.values) = (tokens, values) }
    }

    /// The measurements, before the first step first.
    public let points: [Point]

    /// Fine-tunes a model and measures it on the way.
    ///
    /// - `model`: loaded for training; it is changed. Its own mask stays in force.
    /// - `texts`: token ids of what is relearned.
    /// - `measure`: what to know of the model as it is.
    /// - `progress`: called after each step with the tokens so far and the loss; throws to stop.
    /// - Throws: `TrainingError`, `ModelError`, and what the closures throw.
    public init(
        _ settings: Settings, model: MonetLanguageModel, texts: [[Int32]],
        backend: any Backend = CPUBackend(), measure: (MonetLanguageModel) throws -> [Double],
        progress: (_ tokens: Int, _ loss: Double) throws -> Void = { _, _ in }
    ) throws {
        try settings.validate(model.configuration)
        var windows = try TokenWindows(texts, settings)
        let optimizer = try AdamW(
            model.parameters.trainable,
            settings: .init(beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0, decaysEverything: false),
            on: backend)
        let objective = TrainingObjective(uniformity: .selected, uniformityWeight: 0, ambiguityWeight: 0)
        var points = [Point(tokens: 0, values: try measure(model))]
        var (tokens, next, step) = (0, settings.tokensPerMeasurement, 0)
        while tokens < settings.tokens {
            step += 1
            let batch = windows.next()
            let variables = ParameterVariables()
            let losses = try objective.addGradient(
                model: model, inputs: batch.inputs, targets: batch.targets, backend: backend,
                variables: variables)
            let norm = try optimizer.gradientNorm(variables, on: backend)
            guard norm.isFinite else {
                throw TrainingError.diverged(
                    step: step, reason: "the gradient's norm is \(norm)", lastCheckpoint: nil)
            }
            try optimizer.update(
                variables, learningRate: settings.learningRate * min(1, Double(step) / 10),
                gradientScale: norm > 1 ? 1 / (norm + 1e-6) : 1, on: backend)
            tokens += batch.targets.count
            try progress(tokens, losses.languageModel)
            if tokens >= next || tokens >= settings.tokens {
                points.append(Point(tokens: tokens, values: try measure(model)))
                while next <= tokens { next += settings.tokensPerMeasurement }
            }
        }
        self.points = points
    }
}

/// Windows over texts in a random order, one text after another, again and again.
private struct TokenWindows {
    private let texts: [[Int32]]
    private let settings: Relearning.Settings
    private var order: [Int] = []
    private var rest: [Int32] = []
    private var generator: SplitMix64

    /// - Throws: `TrainingError.invalidSetting` for no tokens.
    init(_ texts: [[Int32]], _ settings: Relearning.Settings) throws {
        self.texts = texts.filter { !$0.isEmpty }
        guard self.texts.reduce(0, { $0 + $1.count }) > 1 else {
            throw TrainingError.invalidSetting(
                source: "relearning", key: "the texts", found: "fewer than two tokens", expected: "texts")
        }
        self.settings = settings
        generator = SplitMix64(seed: settings.seed)
    }

    mutating func next() -> (inputs: [[Int32]], targets: [Int32]) {
        let windows = (0..<settings.batchSize).map { _ -> [Int32] in
            while rest.count < settings.length + 1 {
                if order.isEmpty { order = texts.indices.shuffled(using: &generator) }
                rest += texts[order.removeLast()]
            }
            defer { rest.removeFirst(settings.length) }
            return Array(rest.prefix(settings.length + 1))
        }
        return (windows.map { Array($0.dropLast()) }, windows.flatMap { $0.dropFirst() })
    }
}
