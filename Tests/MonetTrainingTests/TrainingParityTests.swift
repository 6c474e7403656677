import MonetCompute
import MonetModel
import MonetTraining
import TestSupport
import Testing

/// Three AdamW steps against the values that the authors' PyTorch implementation computed.
///
/// Gradients and losses within 1e-4, norm-wise. AdamW's first steps divide a gradient by its own
/// size, so that a gradient of rounding noise still moves a weight by the learning rate; weights
/// after the steps are compared relative to their norm, which those few do not move by 1e-4.
@Suite struct TrainingParityTests {
    @Test(arguments: ["tiny-vd", "tiny-hd"], Device.allCases)
    func lossesGradientsAndUpdatesAgreeWithPyTorch(fixture: String, device: Device) throws {
        let backend = device.backend
        let model = try MonetLanguageModel.load(Fixture.path(fixture), for: .training).moved(to: backend)
        let expected = try SafetensorsFile(path: Fixture.path("\(fixture)/expected_training.safetensors"))
        let ids = try expected.tensor("input_ids").integers().map { Int32($0) }
        let losses = try expected.tensor("losses").floats().map(Double.init)
        let objective = TrainingObjective(
            uniformity: .selected, uniformityWeight: 0.01, ambiguityWeight: 0.01)
        let optimizer = try AdamW(
            model.parameters.trainable,
            settings: AdamW.Settings(
                beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, decaysEverything: true),
            on: backend)
        for step in 0..<3 {
            let rows = (0..<3).map { row in Array(ids[((step * 3 + row) * 32)..<((step * 3 + row + 1) * 32)])
            }
            let targets = rows.flatMap { $0.dropFirst() + [-1] }
            let variables = ParameterVariables()
            let found = try objective.addGradient(
                model: model, inputs: rows, targets: targets, backend: backend, variables: variables
            )
            for (index, value) in [found.languageModel, found.uniformity, found.ambiguity, found.total]
                .enumerated()
            {
                let reference = losses[step * 4 + index]
                #expect(abs(value - reference) < 1e-4 * abs(reference), "step \(step), loss \(index)")
            }
            if step == 0 {
                for parameter in model.parameters.trainable {
                    let gradient = try #require(variables.gradient(of: parameter))
                    let error = relativeError(gradient, try expected.tensor("grad.\(parameter.name)"))
                    #expect(error < 1e-4, "\(parameter.name): \(error)")
                }
                let norm = try optimizer.gradientNorm(variables, on: backend)
                let reference = Double(try expected.tensor("grad_norm").floats()[0])
                #expect(abs(norm - reference) < 1e-4 * reference)
            }
            try optimizer.update(variables, learningRate: 1e-3, gradientScale: 1, on: backend)
        }
        for parameter in model.parameters.all {
            let reference = try expected.tensor("after.\(parameter.name)")
            let error = relativeError(parameter.tensor, reference)
            #expect(error < 1e-4, "\(parameter.name) after three steps: \(error)")
        }
    }
}
