import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import MonetText
import TestSupport
import Testing

/// Texts that run together are those that run alone: the same tokens, whatever joins and leaves.
@Suite struct BatchEngineTests {
    private func model(_ kind: Family, dynamicRope: Bool = false) throws
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
        arguments: [Family.horizontal, .vertical, .dense], [1, 3, 8])
    func agreesWithOneByOne(kind: Family, sequences: Int) throws {
        let model = try model(kind).prepared(on: CPUBackend())
        try check(model, sequences: sequences)
    }

    /// Beyond the trained length, dynamic scaling rotates anew: such texts run alone, and still agree.
    @Test func agreesWithDynamicScaling() throws {
        try check(try model(.vertical, dynamicRope: true).prepared(on: CPUBackend()), sequences: 3)
    }

    /// Runs an engine until it is idle: results, drawn ids and errors by request.
    private struct Outcome {
        var results: [Int: GenerationResult] = [:]
        var drawn: [Int: [Int32]] = [:]
        var errors: [Int: any Error] = [:]
        var observed: [Int: [BatchEngine.Observation]] = [:]
        var mostRunning = 0

        init(_ engine: BatchEngine) {
            var steps = 0
            while !engine.isIdle {
                for event in engine.step() {
                    switch event.kind {
                    case .token(let token): drawn[event.request, default: []].append(token.id)
                    case .finished(let result): results[event.request] = result
                    case .failed(let error): errors[event.request] = error
                    case .scored: continue
                    case .observed(let values): observed[event.request, default: []].append(values)
                    }
                }
                mostRunning = max(mostRunning, engine.runningCount)
                steps += 1
                guard steps < 1000 else {
                    Issue.record("the engine does not come to an end")
                    return
                }
            }
        }
    }

    private func check(_ model: MonetLanguageModel, sequences: Int) throws {
        let backend = CPUBackend()
        var limits = BatchEngine.Limits()
        limits.sequences = sequences
        limits.promptTokensPerStep = 10
        let engine = try BatchEngine(model: model, backend: backend, limits: limits)
        let requests = try prompts().enumerated().map {
            try engine.submit(GenerationRequest($1, settings: settings($0)))
        }
        let outcome = Outcome(engine)
        #expect(outcome.mostRunning <= sequences)
        let generator = TextGenerator(model: model, tokenizer: nil, backend: backend)
        for (index, prompt) in prompts().enumerated() {
            let alone = try generator.generate(prompt, settings: settings(index))
            let together = try #require(outcome.results[requests[index]])
            #expect(together.ids == alone.ids, "prompt \(index)")
            #expect(together.finishReason == alone.finishReason)
            #expect(together.promptTokens == prompt.count)
            #expect(outcome.drawn[requests[index]] ?? [] == alone.ids)
            for (x, y) in zip(together.tokens, alone.tokens) {
                #expect(abs(x.logProbability - y.logProbability) < 1e-4)
            }
        }
    }

    private var greedy: GenerationSettings {
        var settings = GenerationSettings()
        settings.maxNewTokens = 6
        settings.sampling = .greedy
        return settings
    }

    /// A prompt that begins like an earlier one takes its keys and values over and gives the same text.
    @Test func prefixesAreReused() throws {
        let model = try model(.vertical).prepared(on: CPUBackend())
        let engine = try BatchEngine(model: model)
        let start = Array<Int32>(3..<50)
        func run(_ prompt: [Int32]) throws -> GenerationResult {
            let request = try engine.submit(GenerationRequest(prompt, settings: greedy))
            return try #require(Outcome(engine).results[request])
        }
        let first = try run(start)
        #expect(engine.reusedTokens == 0)
        let again = try run(start)
        #expect(again.ids == first.ids && engine.reusedTokens == start.count - 1)
        let longer = try run(start + first.ids + [9])
        #expect(engine.reusedTokens > 2 * start.count)
        let alone = try TextGenerator(model: model, tokenizer: nil)
            .generate(start + first.ids + [9], settings: greedy)
        #expect(longer.ids == alone.ids)
    }

    /// Requests of one batch carry masks of their own, and a beginning is shared only among equal masks.
    @Test(arguments: Family.allCases)
    func requestsHaveTheirOwnMasks(family: Family) throws {
        let model = try model(family).prepared(on: CPUBackend())
        let masks: [UnitMask?] =
            [nil] + (1...3).map { .random(share: 0.3 * Double($0), of: model.units, seed: UInt64($0)) }
        let engine = try BatchEngine(model: model)
        let prompt = Array<Int32>(3..<40)
        // Twice: the second round finds beginnings of every mask.
        for round in 0..<2 {
            let requests = try masks.map {
                try engine.submit(GenerationRequest(prompt, settings: greedy, mask: $0))
            }
            let outcome = Outcome(engine)
            for (mask, request) in zip(masks, requests) {
                var alone = TextGenerator(model: model, tokenizer: nil)
                alone.mask = mask
                let expected = try alone.generate(prompt, settings: greedy)
                let found = try #require(outcome.results[request])
                #expect(found.ids == expected.ids, "round \(round)")
                for (x, y) in zip(found.tokens, expected.tokens) {
                    #expect(abs(x.logProbability - y.logProbability) < 1e-4)
                }
            }
            #expect(engine.reusedTokens == round * masks.count * (prompt.count - 1))
        }
    }

    @Test func refusedRequests() throws {
        let model = try model(.horizontal).prepared(on: CPUBackend())
        let engine = try BatchEngine(model: model, contextLength: 20)
        #expect(throws: GenerationError.emptyPrompt) { try engine.submit(GenerationRequest([])) }
        #expect(throws: ModelError.contextExceeded(tokens: 21, context: 20)) {
            try engine.submit(GenerationRequest([Int32](repeating: 3, count: 21)))
        }
        for bad: Int32 in [-1, 67] {
            #expect(throws: GenerationError.invalidToken(id: Int(bad), vocabularySize: 67)) {
                try engine.submit(GenerationRequest([1, bad]))
            }
        }
        #expect(throws: ModelError.self) {
            try engine.submit(GenerationRequest([1], mask: UnitMask(unitsPerGroup: 7)))
        }
        var missing = GenerationRequest([1])
        missing.observed = [HookPoint(.mlpPost, layer: 0)]
        #expect(throws: ModelError.self) { try engine.submit(missing) }
        #expect(throws: GenerationError.missingTokenizer(purpose: "a stop string")) {
            try TextGenerator(model: model, tokenizer: nil).generate([3], stopStrings: ["x"])
        }
        var limits = BatchEngine.Limits()
        limits.sequences = 0
        #expect(throws: GenerationError.self) { try BatchEngine(model: model, limits: limits) }
        // None of them holds the engine up.
        #expect(engine.isIdle)
        let request = try engine.submit(GenerationRequest([1, 2, 3]))
        _ = engine.step()
        engine.finish(request)
        #expect(Outcome(engine).results[request]?.finishReason == .cancelled)
        // A full context ends a sequence.
        let full = try engine.submit(GenerationRequest([1, 4, 3]))
        let result = try #require(Outcome(engine).results[full])
        #expect(result.finishReason == .stop || result.ids.count == 17)
    }

    /// Weights that overflow for one token fail the requests that have it, and no other.
    @Test(arguments: [1, 4])
    func anErrorBelongsToItsRequest(promptTokensPerStep: Int) throws {
        let model = try model(.vertical)
        let table = try model.parameters("model.embed_tokens.weight").tensor
        var values = table.floats()
        for column in 0..<table.columnCount { values[60 * table.columnCount + column] = .nan }
        try table.write(values)
        var limits = BatchEngine.Limits()
        limits.promptTokensPerStep = promptTokensPerStep
        let engine = try BatchEngine(model: model, limits: limits)
        // Those that do not draw the token themselves.
        let generator = TextGenerator(model: model, tokenizer: nil)
        let prompts = (0..<20).map { [1, 5, Int32($0)] }.filter {
            (try? generator.generate($0, settings: greedy)) != nil
        }
        #expect(prompts.count > 5)
        let good = try prompts.map { try engine.submit(GenerationRequest($0, settings: greedy)) }
        let bad = try engine.submit(GenerationRequest([1, 60, 5], settings: greedy))
        let after = try engine.submit(GenerationRequest(prompts[0], settings: greedy))
        let outcome = Outcome(engine)
        #expect(outcome.errors.keys.sorted() == [bad])
        guard case .notFinite? = outcome.errors[bad] as? ModelError else {
            Issue.record("\(String(describing: outcome.errors[bad]))")
            return
        }
        for request in good + [after] { #expect(outcome.results[request] != nil) }
    }

    /// What a request observes is what its sequence alone gives; others observe nothing.
    @Test func observationsAreThoseOfTheSequenceAlone() throws {
        let model = try model(.vertical).prepared(on: CPUBackend())
        let point = HookPoint(.residPost, layer: 1)
        let engine = try BatchEngine(model: model)
        var request = GenerationRequest([4, 9, 12, 7], settings: greedy)
        request.observed = [point]
        request.observesUnits = true
        let other = try engine.submit(GenerationRequest([1, 2, 3], settings: greedy))
        let number = try engine.submit(request)
        let outcome = Outcome(engine)
        #expect(outcome.observed[other] == nil)
        let observed = try #require(outcome.observed[number])
        let ids = request.tokens + (outcome.drawn[number] ?? []).dropLast()
        #expect(observed.map(\.positions.lowerBound) == [0] + Array(4..<ids.count))
        var input = ForwardInput([ids])
        input.hooks.observed = [point]
        let whole = try model.forward(input)
        let expected = try #require(whole.observations[point]?.value)
        for part in observed {
            let found = try #require(part.values[point])
            #expect(relativeError(found, expected.slice(part.positions)) < 1e-4)
            for (group, alone) in zip(part.groups, whole.groups) {
                for (row, position) in zip(part.rows, part.positions) {
                    var (a, b): ([Int: Float], [Int: Float]) = ([:], [:])
                    var (first, second) = (group.reader(), alone.reader())
                    first.visit(row) { a[$0] = $1 }
                    second.visit(position) { b[$0] = $1 }
                    #expect(!a.isEmpty && a.keys.sorted() == b.keys.sorted())
                }
            }
        }
    }

    /// Attention patterns have the keys of their own text, whatever runs beside it.
    @Test func patternsAreThoseOfTheSequenceAlone() throws {
        let model = try model(.vertical).prepared(on: CPUBackend())
        let engine = try BatchEngine(model: model)
        let point = HookPoint(.pattern, layer: 1)
        var request = GenerationRequest([4, 9, 12, 7], settings: greedy)
        request.observed = [point]
        let others = try prompts().map { try engine.submit(GenerationRequest($0, settings: greedy)) }
        let number = try engine.submit(request)
        let outcome = Outcome(engine)
        #expect(others.allSatisfy { outcome.results[$0] != nil && outcome.observed[$0] == nil })
        let ids = request.tokens + (outcome.drawn[number] ?? []).dropLast()
        var input = ForwardInput([ids])
        input.hooks.observed = [point]
        let whole = try #require(try model.forward(input).observations[point]?.value)
        let (heads, keys) = (whole.shape[1], whole.shape[2])
        let expected = whole.floats()
        for part in try #require(outcome.observed[number]) {
            let found = try #require(part.values[point])
            #expect(found.shape == [part.positions.count, heads, part.positions.upperBound])
            let values = found.floats()
            for (row, position) in part.positions.enumerated() {
                for head in 0..<heads {
                    for key in 0..<part.positions.upperBound {
                        let own = values[(row * heads + head) * part.positions.upperBound + key]
                        #expect(abs(own - expected[(position * heads + head) * keys + key]) < 1e-5)
                    }
                }
            }
        }
    }

    /// Another device than the processor generates the same texts, one by one and together.
    @Test(arguments: Family.allCases)
    func otherDevicesGenerateTheSame(family: Family) throws {
        let model = try model(family)
        let device = Device.reference.backend
        let moved = try model.prepared(on: device)
        let engine = try BatchEngine(model: moved, backend: device)
        let requests = try prompts().map { try engine.submit(GenerationRequest($0, settings: greedy)) }
        let outcome = Outcome(engine)
        for (prompt, request) in zip(prompts(), requests) {
            let expected = try TextGenerator(model: model, tokenizer: nil).generate(prompt, settings: greedy)
            #expect(outcome.results[request]?.ids == expected.ids)
            var generator = TextGenerator(model: moved, tokenizer: nil, backend: device)
            #expect(try generator.generate(prompt, settings: greedy).ids == expected.ids)
            generator.usesCache = false
            #expect(try generator.generate(prompt, settings: greedy).ids == expected.ids)
        }
    }
}

/// Text above the engine.
@Suite struct TextEngineTests {
    @Test func textsAreThoseOfTheGenerator() throws {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(.vertical)
        c.vocabularySize = 4096
        let model = try scrambledModel(c, seed: 3).prepared(on: CPUBackend())
        let engine = TextEngine(try BatchEngine(model: model), tokenizer: tokenizer)
        var settings = GenerationSettings()
        settings.maxNewTokens = 20
        settings.sampling = .greedy
        settings.endTokenIDs = []
        let generator = TextGenerator(model: model, tokenizer: tokenizer)
        let prompts: [[Int32]] = [[1, 5, 900], [7, 8], [1, 300, 12, 9]]
        let plain = try prompts.map { try generator.generate($0, settings: settings) }
        // The second ends at a stop string out of its own text.
        let stop = String(Array(plain[1].text)[4..<7])
        let stops: [[String]] = [[], [stop], []]
        let requests = try zip(prompts, stops).map {
            try engine.submit(GenerationRequest($0, settings: settings), stopStrings: $1)
        }
        var texts: [Int: String] = [:]
        var results: [Int: GenerationResult] = [:]
        while !engine.isIdle {
            for event in engine.step() {
                switch event.kind {
                case .step(let step): texts[event.request, default: ""] += step.text
                case .finished(let result): results[event.request] = result
                case .failed(let error): Issue.record("\(error)")
                case .observed, .scored: Issue.record("nothing was asked for")
                }
            }
        }
        for (index, request) in requests.enumerated() {
            let expected = try generator.generate(
                prompts[index], settings: settings, stopStrings: stops[index])
            let result = try #require(results[request])
            #expect(result.text == expected.text && texts[request] ?? "" == expected.text)
            #expect(result.finishReason == expected.finishReason && result.ids == expected.ids)
        }
        #expect(results[requests[1]]?.finishReason == .stop)
        // A stop string that the last allowed token completes is still a stop string.
        settings.maxNewTokens = try #require(results[requests[1]]).ids.count
        let last = try engine.submit(GenerationRequest(prompts[1], settings: settings), stopStrings: [stop])
        var reason: FinishReason?
        while !engine.isIdle {
            for case .finished(let result) in engine.step().filter({ $0.request == last }).map(\.kind) {
                reason = result.finishReason
            }
        }
        #expect(reason == .stop)
    }

    /// The steps of a stream are those of the call, and a reader that leaves ends it.
    @Test func streamsGiveEveryStep() async throws {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(.horizontal)
        c.vocabularySize = 4096
        let generator = TextGenerator(model: try scrambledModel(c, seed: 4), tokenizer: tokenizer)
        var settings = GenerationSettings()
        settings.maxNewTokens = 12
        settings.sampling = .greedy
        settings.endTokenIDs = []
        var text = ""
        for try await step in generator.steps([1, 5, 900], settings: settings) { text += step.text }
        #expect(try text == generator.generate([1, 5, 900], settings: settings).text)
        for try await _ in generator.steps([1, 5, 900], settings: settings) { break }
        await #expect(throws: GenerationError.emptyPrompt) {
            for try await _ in generator.steps([]) {}
        }
    }
}
