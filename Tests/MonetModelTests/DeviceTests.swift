import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// A device written outside the package's modules runs models of every family as the processor does.
///
/// The reference device computes in double precision, pair by pair; the processor's float32 sums of a few layers
/// leave errors of about 1e-6, gradients pass through twice as many: bounds 1e-5 and 1e-4.
@Suite struct DeviceTests {
    private let tokens: [[Int32]] = [[1, 5, 9, 33, 66, 2, 8, 8, 40, 3], [7, 7, 0, 12]]

    private func run(
        _ model: MonetLanguageModel, _ input: ForwardInput, on device: Device
    ) throws -> (logits: [Double], output: ForwardOutput) {
        let output = try model.forward(input, on: device.backend)
        let logits = try model.logits(output.hidden.value, on: device.backend)
        return (logits.floats().map(Double.init), output)
    }

    /// Batches of different lengths, each sequence with a mask of its own, with and without preparation.
    @Test(arguments: Family.allCases)
    func forwardWithMasks(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 3)
        for masks in [[nil, nil], [nil, UnitMask.random(share: 0.3, of: model.units, seed: 4)]] {
            let input = ForwardInput(zip(tokens, masks).map { ForwardSequence($0, mask: $1) })
            let expected = try run(model.moved(to: ReferenceBackend()), input, on: .reference)
            for model in [model, try model.prepared(on: CPUBackend())] {
                #expect(
                    relativeError(try run(model, input, on: .processor).logits, expected.logits) < 1e-5)
            }
            let prepared = try run(model.prepared(on: ReferenceBackend()), input, on: .reference)
            #expect(relativeError(prepared.logits, expected.logits) < 1e-6)
        }
    }

    /// Packed and quantized checkpoints are read by a device that knows nothing of their layout.
    @Test(arguments: Family.allCases)
    func quantizedCheckpoints(family: Family) throws {
        try withTemporaryFolder { folder in
            let model = try scrambledModel(smallConfiguration(family), seed: 8)
            try Checkpoint.write(model, dtype: .float32, quantization: .int8, to: folder)
            let input = ForwardInput(tokens)
            let expected = try run(
                MonetLanguageModel.load(folder, on: ReferenceBackend()), input, on: .reference)
            let found = try run(MonetLanguageModel.load(folder), input, on: .processor)
            // Where several rows meet int8 weights, the processor rounds activations to 16 bits.
            #expect(relativeError(found.logits, expected.logits) < 1e-3)
        }
    }

    /// Every parameter's gradient, of the loss and the routers' objective, in float32 against doubles.
    @Test(arguments: Family.allCases, UniformitySource.allCases)
    func gradients(family: Family, uniformity: UniformitySource) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 5)
        var found: [Device: [String: [Double]]] = [:]
        for device in Device.allCases {
            let moved = try model.moved(to: device.backend)
            var input = ForwardInput(tokens, mask: UnitMask.random(share: 0.2, of: model.units, seed: 1))
            input.statistics = .batch
            input.objective = RouterObjectiveSettings(
                uniformity: uniformity, uniformityWeight: 0.3, ambiguityWeight: 0.2)
            let variables = ParameterVariables()
            let output = try moved.forward(input, variables: variables, on: device.backend)
            _ = try moved.crossEntropy(
                output, targets: tokens.flatMap { $0.dropFirst() + [-1] }, scale: 0.1)
            try output.backward()
            found[device] = Dictionary(
                uniqueKeysWithValues: try moved.parameters.trainable.map {
                    ($0.name, try #require(variables.gradient(of: $0)).floats().map(Double.init))
                })
        }
        let expected = try #require(found[.reference])
        #expect(expected.count > 10)
        for (name, gradient) in try #require(found[.processor]) {
            #expect(relativeError(gradient, expected[name] ?? []) < 1e-4, "\(name)")
        }
    }

    /// A model on one device is an error on another, and no wrong number.
    @Test func devicesAreNotMixed() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
        let reference = try model.moved(to: ReferenceBackend())
        #expect(throws: ComputeError.self) { try reference.forward(ForwardInput([[1, 2]])) }
        #expect(throws: ComputeError.self) {
            try model.forward(ForwardInput([[1, 2]]), on: ReferenceBackend())
        }
        // Weights that another device prepared.
        let weights = try ReferenceBackend().prepare(
            ExpertWeights(listed: (0..<4).map { Tensor(zeros: [1, $0]) }))
        let none = Tensor(zeros: [1, 1, 1])
        #expect(
            throws: ComputeError.foreignPreparation(operation: "experts", device: CPUBackend().name)
        ) {
            try CPUBackend().experts(none, routing: ExpertRouting(left: none, right: none), prepared: weights)
        }
    }
}
