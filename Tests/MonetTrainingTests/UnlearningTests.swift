import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetTraining
import TestSupport
import Testing

@Suite struct UnlearningTests {
    private func models(_ family: Family) throws -> (
        trained: MonetLanguageModel, original: MonetLanguageModel
    ) {
        let c = smallConfiguration(family)
        return (try scrambledModel(c, seed: 7), try scrambledModel(c, seed: 7))
    }

    private static let settings: RepresentationMisdirection.Settings = {
        var settings = RepresentationMisdirection.Settings()
        (settings.layer, settings.trainedLayers) = (1, [0, 1])
        (settings.steering, settings.retainWeight) = (3, 2)
        (settings.learningRate, settings.steps, settings.length) = (1e-3, 20, 12)
        return settings
    }()

    private static let forget: [[Int32]] = [
        [1, 5, 9, 30, 7], [1, 60, 61], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    ]
    private static let retain: [[Int32]] = [[1, 40, 41, 42, 43, 44], [1, 20]]

    /// The loss as it is written, in double precision from one pass of each model.
    private func loss(
        _ model: MonetLanguageModel, _ original: MonetLanguageModel, _ target: [Float]
    ) throws -> (forget: Double, retain: Double) {
        let point = HookPoint(.residPost, layer: 1)
        func hidden(_ model: MonetLanguageModel, _ texts: [[Int32]]) throws -> [Double] {
            let reference = try model.moved(to: ReferenceBackend())
            var input = ForwardInput(texts)
            input.hooks = Hooks(observing: [point])
            return try #require(
                reference.forward(input, on: ReferenceBackend()).observations[point]?.value.floats()
                    .map(Double.init))
        }
        func mean(_ values: [Double]) -> Double { values.reduce(0) { $0 + $1 * $1 } / Double(values.count) }
        let (own, kept, before) = (
            try hidden(model, Self.forget), try hidden(model, Self.retain), try hidden(original, Self.retain)
        )
        return (
            mean(own.enumerated().map { $1 - Double(target[$0 % target.count]) }),
            mean(zip(kept, before).map { $0 - $1 })
        )
    }

    /// Gradients of all trained tensors by central differences along their own direction, within 1% (float32 values and
    /// a step of 1e-3), and the loss itself within 1e-4.
    @Test(arguments: Family.allCases) func gradientsOfMisdirection(_ family: Family) throws {
        let (model, original) = try models(family)
        let unlearning = try RepresentationMisdirection(Self.settings, model: model, original: original)
        #expect(abs(unlearning.target.reduce(0) { $0 + $1 * $1 }.squareRoot() - 3) < 1e-5)
        #expect(unlearning.target.allSatisfy { $0 >= 0 })
        // Away from the original, where what is kept has a gradient too.
        var random = SplitMix64(seed: 1)
        for parameter in unlearning.trained {
            try parameter.tensor.write(
                parameter.tensor.floats().map { $0 + Float.random(in: -0.05...0.05, using: &random) })
        }
        let variables = unlearning.variables()
        let found = try unlearning.addGradients(forget: Self.forget, retain: Self.retain, into: variables)
        let expected = try loss(model, original, unlearning.target)
        #expect(abs(found.forget - expected.forget) < 1e-4 * expected.forget)
        #expect(abs(found.retain - expected.retain) < 1e-4 * expected.retain)
        var compared = 0
        for parameter in unlearning.trained {
            let gradient = try #require(variables.gradient(of: parameter)).floats()
            let norm = gradient.reduce(0.0) { $0 + Double($1) * Double($1) }.squareRoot()
            guard norm > 1e-6 else { continue }
            compared += 1
            let values = parameter.tensor.floats()
            func total(_ step: Double) throws -> Double {
                try parameter.tensor.write(
                    zip(values, gradient).map { Float(Double($0) + step * Double($1) / norm) })
                let loss = try loss(model, original, unlearning.target)
                return loss.forget + 2 * loss.retain
            }
            let slope = (try total(1e-3) - total(-1e-3)) / 2e-3
            try parameter.tensor.write(values)
            #expect(abs(slope - norm) < 0.01 * norm + 1e-4, "\(parameter.name): \(slope) and \(norm)")
        }
        #expect(compared >= 2)
    }

    @Test(arguments: Family.allCases) func misdirectionChangesDownProjectionsAlone(_ family: Family) throws {
        let (model, original) = try models(family)
        let unlearning = try RepresentationMisdirection(Self.settings, model: model, original: original)
        let names = Set(unlearning.trained.map(\.name))
        #expect(!names.isEmpty)
        #expect(names.allSatisfy { $0.contains(".moe.v") || $0.contains("down_proj") })
        #expect(names.allSatisfy { $0.contains("layers.0.") || $0.contains("layers.1.") })
        var losses: [RepresentationMisdirection.Progress] = []
        let isComplete = try unlearning.run(forget: Self.forget, retain: Self.retain) {
            losses.append($0)
            return true
        }
        #expect(isComplete && losses.count == 20)
        #expect(losses[19].forgetLoss < losses[0].forgetLoss)
        #expect(losses[0].retainLoss < 1e-9)
        for (own, before) in zip(model.parameters.all, original.parameters.all) {
            #expect(
                (own.tensor.floats() == before.tensor.floats()) != names.contains(own.name), "\(own.name)")
        }
        let stopped = try unlearning.run(forget: Self.forget, retain: Self.retain) { _ in false }
        #expect(!stopped)
    }

    @Test func impossibleMisdirectionIsRefused() throws {
        let (model, original) = try models(.vertical)
        for (key, change) in [
            ("layer", { $0.layer = 9 }), ("layers", { $0.trainedLayers = [2] }), ("steps", { $0.steps = 0 }),
            ("length", { $0.length = 65 }), ("lr", { $0.learningRate = .nan }),
        ] as [(String, (inout RepresentationMisdirection.Settings) -> Void)] {
            var settings = Self.settings
            change(&settings)
            do {
                _ = try RepresentationMisdirection(settings, model: model, original: original)
                Issue.record("\(key) was accepted")
            } catch { #expect("\(error)".contains(key), "\(error)") }
        }
        let unlearning = try RepresentationMisdirection(Self.settings, model: model, original: original)
        #expect(throws: TrainingError.self) { _ = try unlearning.run(forget: [], retain: Self.retain) }
    }

    // MARK: Relearning

    @Test(arguments: Family.allCases) func relearningBringsTextsBack(_ family: Family) throws {
        let plain = try models(family).trained
        let mask = UnitMask.random(share: 0.3, of: plain.units, seed: 5)
        let model = try MonetLanguageModel(
            configuration: plain.configuration, parameters: plain.parameters, ownMask: mask)
        var settings = Relearning.Settings()
        (settings.batchSize, settings.length, settings.learningRate) = (3, 10, 3e-3)
        (settings.tokens, settings.tokensPerMeasurement) = (1000, 300)
        let texts: [[Int32]] = [Array(1...25), Array(30...45)]
        func accuracy(_ model: MonetLanguageModel) throws -> [Double] {
            var (hits, count) = (0, 0)
            for text in texts {
                let output = try model.forward(ForwardInput([text]))
                let best = try CPUBackend().largestColumns(model.logits(output.hidden.value)).integers()
                for place in 1..<text.count {
                    hits += best[place - 1] == Int(text[place]) ? 1 : 0
                    count += 1
                }
            }
            return [Double(hits) / Double(count)]
        }
        var losses: [Double] = []
        let run = try Relearning(settings, model: model, texts: texts, measure: accuracy) { _, loss in
            losses.append(loss)
        }
        // 30 tokens a step: measured before the first, then as the steps reach the marks, and at the end.
        #expect(run.points.map(\.tokens) == [0, 300, 600, 900, 1020])
        #expect(losses.count == 34)
        #expect(losses.suffix(3).reduce(0, +) / 3 < 0.8 * losses[0])
        #expect((run.points.last?.values[0] ?? 0) > run.points[0].values[0])
        #expect(model.ownMask == mask)
    }

    @Test func relearningTheSameTwiceIsTheSame() throws {
        var settings = Relearning.Settings()
        (settings.batchSize, settings.length, settings.tokens, settings.tokensPerMeasurement) = (
            2, 8, 100, 50
        )
        func losses(_ seed: UInt64) throws -> [Double] {
            settings.seed = seed
            var losses: [Double] = []
            _ = try Relearning(
                settings, model: models(.vertical).trained, texts: Self.forget, measure: { _ in [0] }
            ) { losses.append($1) }
            return losses
        }
        #expect(try losses(1) == losses(1))
        #expect(try losses(1) != losses(2))
        #expect(throws: TrainingError.self) {
            _ = try Relearning(
                settings, model: models(.vertical).trained, texts: [[], [4]], measure: { _ in [0] })
        }
        settings.length = 65
        #expect(throws: TrainingError.self) {
            _ = try Relearning(
                settings, model: models(.vertical).trained, texts: Self.forget, measure: { _ in [0] })
        }
    }
}
