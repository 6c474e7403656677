import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import TestSupport
import Testing

/// Texts that run together are those that run alone: the same tokens, whatever joins and leaves.
@Suite struct BatchEngineTests {
    private func model(_ kind: MonetConfiguration.FeedForward, dynamicRope: Bool = false) throws
        -> MonetLanguageModel
    {
        var c = smallConfiguration(kind)
        c.attentionHeads = 4
        c.keyValueHeads = 2
        c.headWidth = 6
        c.maxPositionEmbeddings = dynamicRope ? 32 : 256
        if dynamicRope { c.ropeScaling = .dynamic(factor: 4) }
        c.endTokenIDs = [2]
        return try scrambledModel(c, seed: 11)
    }

    private func prompts() -> [[Int32]] {
        [
            [1, 5, 9], Array(3..<50), [7], (0..<30).map { Int32($0 * 7 % 61) }, [1, 5, 9, 4],
            Array(3..<40) + [9, 9], [60, 1],
        ]
    }

    private func settings(_ index: Int) -> GenerationSettings {
        var settings = GenerationSettings()
        settings.maxNewTokens = [12, 0, 5, 20, 1, 9, 30][index]
        settings.sampling.temperature = index % 2 == 0 ? 0 : 0.9
        settings.sampling.seed = UInt64(index)
        return settings
    }

    @Test(
        arguments: [MonetConfiguration.FeedForward.horizontal, .vertical, .dense], [1, 3, 8])
    func agreesWithOneByOne(kind: MonetConfiguration.FeedForward, sequences: Int) throws {
        let model = try model(kind).packedForInference()
        try check(model, sequences: sequences)
    }

    /// Beyond the trained length, dynamic scaling rotates anew: such texts run alone, and still agree.
    @Test func agreesWithDynamicScaling() throws {
        try check(try model(.vertical, dynamicRope: true).packedForInference(), sequences: 3)
    }

    private func check(_ model: MonetLanguageModel, sequences: Int) throws {
        let backend = CPUBackend()
        var limits = BatchEngine.Limits()
        limits.sequences = sequences
        limits.promptTokensPerStep = 10
        let engine = try BatchEngine(model: model, tokenizer: nil, backend: backend, limits: limits)
        let requests = try prompts().enumerated().map { try engine.submit($1, settings: settings($0)) }
        var drawn: [Int: [Int32]] = [:]
        var most = 0
        while !engine.isIdle {
            for event in try engine.step() {
                drawn[event.request, default: []] += event.step.token.map { [$0.id] } ?? []
            }
            most = max(most, engine.runningCount)
        }
        #expect(most <= sequences)
        let generator = TextGenerator(model: model, tokenizer: nil, backend: backend)
        for (index, prompt) in prompts().enumerated() {
            let alone = try generator.generate(prompt, settings: settings(index))
            let together = try #require(engine.takeResult(requests[index]))
            #expect(together.ids == alone.ids, "prompt \(index)")
            #expect(together.finishReason == alone.finishReason)
            #expect(together.promptTokens == prompt.count)
            #expect(drawn[requests[index]] ?? [] == alone.ids)
            #expect(engine.takeResult(requests[index]) == nil)
            for (x, y) in zip(together.tokens, alone.tokens) {
                #expect(abs(x.logProbability - y.logProbability) < 1e-4)
            }
        }
    }

    /// A prompt that begins like an earlier one takes its keys and values over and gives the same text.
    @Test func prefixesAreReused() throws {
        let model = try model(.vertical).packedForInference()
        let engine = try BatchEngine(model: model, tokenizer: nil, backend: CPUBackend())
        var settings = GenerationSettings()
        settings.maxNewTokens = 6
        settings.sampling.temperature = 0
        let start = Array<Int32>(3..<50)
        func run(_ prompt: [Int32]) throws -> GenerationResult {
            let request = try engine.submit(prompt, settings: settings)
            while !engine.isIdle { _ = try engine.step() }
            return try #require(engine.takeResult(request))
        }
        let first = try run(start)
        #expect(engine.reusedTokens == 0)
        let again = try run(start)
        #expect(again.ids == first.ids && engine.reusedTokens == start.count - 1)
        let longer = try run(start + first.ids + [9])
        #expect(engine.reusedTokens > 2 * start.count)
        let alone = try TextGenerator(model: model, tokenizer: nil, backend: CPUBackend())
            .generate(start + first.ids + [9], settings: settings)
        #expect(longer.ids == alone.ids)
    }

    @Test func cancelledAndRefusedTexts() throws {
        let model = try model(.horizontal).packedForInference()
        let engine = try BatchEngine(model: model, tokenizer: nil, backend: CPUBackend(), contextLength: 20)
        #expect(throws: GenerationError.emptyPrompt) { try engine.submit([]) }
        #expect(throws: ModelError.contextExceeded(tokens: 21, context: 20)) {
            try engine.submit([Int32](repeating: 3, count: 21))
        }
        var settings = GenerationSettings()
        settings.stopStrings = ["x"]
        #expect(throws: GenerationError.missingTokenizer(purpose: "a stop string")) {
            try engine.submit([3], settings: settings)
        }
        var limits = BatchEngine.Limits()
        limits.sequences = 0
        #expect(throws: GenerationError.self) {
            try BatchEngine(model: model, tokenizer: nil, backend: CPUBackend(), limits: limits)
        }
        let request = try engine.submit([1, 2, 3])
        _ = try engine.step()
        engine.cancel(request)
        while !engine.isIdle { _ = try engine.step() }
        #expect(engine.takeResult(request)?.finishReason == .cancelled)
        // A full context ends a text.
        let full = try engine.submit([1, 4, 3])
        while !engine.isIdle { _ = try engine.step() }
        let result = try #require(engine.takeResult(full))
        #expect(result.finishReason == .stop || result.ids.count == 17)
    }
}
