import Foundation
import MonetCompute
import MonetModel
import MonetTraining
import TestSupport
import Testing

/// Activations that are computed twice give the gradients of those that are kept, bit for bit.
@Suite struct ActivationCheckpointingTests {
    @Test(
        arguments: [Family.vertical, .horizontal, .dense],
        [(rows: 1, length: 1), (rows: 1, length: 13), (rows: 3, length: 7)])
    func gradientsAreTheSame(family: Family, size: (rows: Int, length: Int)) throws {
        var c = smallConfiguration(family)
        c.layerCount = 5
        for device in Device.allCases {
            var results: [(losses: TrainingLosses, gradients: [[Float]], statistics: [[Float]], bytes: Int)] =
                []
            for recomputes in [false, true] {
                let model = try scrambledModel(c, seed: 6).moved(to: device.backend)
                var objective = TrainingObjective(
                    uniformity: .full, uniformityWeight: 0.2, ambiguityWeight: 0.1)
                objective.recomputesActivations = recomputes
                let inputs = (0..<size.rows).map { row in
                    (0..<size.length).map { Int32((row * 31 + $0 * 7 + 1) % c.vocabularySize) }
                }
                let targets = inputs.flatMap { $0.map { ($0 + 3) % Int32(c.vocabularySize) } }
                let variables = ParameterVariables()
                let losses = try objective.addGradient(
                    model: model, inputs: inputs, targets: targets, backend: device.backend,
                    variables: variables)
                let gradients = try model.parameters.trainable.map {
                    try #require(variables.gradient(of: $0)).floats()
                }
                let statistics = model.parameters.all.filter { $0.name.contains("running") }
                    .map { $0.tensor.floats() }
                var input = ForwardInput(inputs)
                input.recomputesActivations = recomputes
                let output = try model.forward(input, variables: ParameterVariables(), on: device.backend)
                results.append((losses, gradients, statistics, output.recordedBytes))
            }
            #expect(results[0].losses == results[1].losses)
            #expect(results[0].gradients == results[1].gradients)
            #expect(results[0].statistics == results[1].statistics)
            #expect(results[0].gradients.contains { $0.contains { $0 != 0 } })
            #expect(4 * results[1].bytes < results[0].bytes, "\(results.map(\.bytes))")
        }
    }

    @Test func observedPassesAreRefused() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 6)
        var input = ForwardInput([[1, 2, 3]])
        input.recomputesActivations = true
        input.hooks.observed = [HookPoint(.residPost, layer: 0)]
        #expect(throws: ModelError.self) {
            try model.forward(input, variables: ParameterVariables())
        }
        // Without gradients nothing is kept anyway.
        #expect(try model.forward(input).observations.count == 1)
    }
}
