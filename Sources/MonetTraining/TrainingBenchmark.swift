import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Measures complete AdamW steps on random tokens, without a corpus or a run folder.
public struct TrainingBenchmark {
    private let configuration: MonetConfiguration
    private let backend: CPUBackend
    private let sequences: Int
    private let length: Int

    /// A fresh model of `configuration`, batches of `sequences × length` tokens.
    public init(configuration: MonetConfiguration, backend: CPUBackend, sequences: Int, length: Int) {
        self.configuration = configuration
        self.backend = backend
        self.sequences = sequences
        self.length = length
    }

    /// Seconds of each of `steps` steps, after one for warm-up.
    public func run(steps: Int, seed: UInt64) throws -> [Double] {
        let model = try MonetLanguageModel.random(configuration, seed: seed)
        let objective = TrainingObjective(uniformity: .full, uniformityWeight: 1e-3, ambiguityWeight: 1e-3)
        let optimizer = try AdamW(
            model.parameters.trainable,
            settings: AdamW.Settings(
                beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, decaysEverything: false),
            on: backend)
        var generator = SplitMix64(seed: seed)
        var seconds: [Double] = []
        for step in 0...steps {
            let tokens = (0..<(sequences * length)).map { _ in
                Int32(generator.next() % UInt64(configuration.vocabularySize))
            }
            let inputs = (0..<sequences).map { Array(tokens[($0 * length)..<(($0 + 1) * length)]) }
            let start = ContinuousClock.now
            let variables = ParameterVariables()
            _ = try objective.addGradient(
                model: model, inputs: inputs, targets: Array(tokens.dropFirst()) + [-1],
                backend: backend, variables: variables)
            let norm = try optimizer.gradientNorm(variables, on: backend)
            try optimizer.update(
                variables, learningRate: 5e-4, gradientScale: norm > 1 ? 1 / norm : 1, on: backend)
            if step > 0 { seconds.append((ContinuousClock.now - start).seconds) }
        }
        return seconds
    }
}
