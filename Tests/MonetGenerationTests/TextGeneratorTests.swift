import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

@Suite struct TextGeneratorTests {
    static let backend = CPUBackend()

    /// A random model with the vocabulary of the test tokenizer, so that it writes text.
    private func generator(_ change: (inout MonetConfiguration) -> Void = { _ in }) throws -> TextGenerator {
        var c = MonetConfiguration()
        (c.vocabularySize, c.hiddenSize, c.layerCount, c.attentionHeads, c.keyValueHeads, c.headWidth) = (
            4096, 16, 3, 2, 1, 8
        )
        c.experts = ExpertSettings(width: 4, heads: 2, perSide: 5, topK: 2, layersPerRouter: 2)
        c.maxPositionEmbeddings = 64
        change(&c)
        return TextGenerator(
            model: try scrambledModel(c, seed: 12),
            tokenizer: try Tokenizer(path: Fixture.path("text/trained.model")),
            backend: Self.backend)
    }

    private func settings(_ change: (inout GenerationSettings) -> Void) -> GenerationSettings {
        var settings = GenerationSettings()
        settings.maxNewTokens = 24
        settings.sampling = .greedy
        settings.endTokenIDs = []
        change(&settings)
        return settings
    }

    @Test func cacheOrNotTheGreedyTextIsTheSame() throws {
        for scaling: MonetConfiguration.RopeScaling? in [nil, .linear(factor: 2), .dynamic(factor: 3)] {
            let generator = try generator {
                $0.ropeScaling = scaling
                if scaling != nil { $0.maxPositionEmbeddings = 16 }
            }
            let prompt: [Int32] = [1, 77, 300, 12]
            let cached = try generator.generate(prompt, settings: settings { _ in })
            var withoutCache = generator
            withoutCache.usesCache = false
            let plain = try withoutCache.generate(prompt, settings: settings { _ in })
            #expect(cached.ids == plain.ids && cached.text == plain.text)
            #expect(cached.ids.count == 24 && cached.finishReason == .length)
        }
    }

    /// Earlier text in a cache counts without one too, and a prompt of several blocks runs in them.
    @Test func earlierTextRunsAgainWithoutACache() throws {
        let generator = try generator { $0.maxPositionEmbeddings = 1300 }
        var withoutCache = generator
        withoutCache.usesCache = false
        let settings = settings { $0.maxNewTokens = 4 }
        let earlier = (0..<600).map { Int32(3 + $0 * 7 % 900) }
        func continued(_ generator: TextGenerator) throws -> GenerationResult {
            var cache = KVCache(configuration: generator.model.configuration)
            _ = try generator.generate(
                earlier, settings: self.settings { $0.maxNewTokens = 0 }, cache: &cache)
            return try generator.generate([9, 40], settings: settings, cache: &cache)
        }
        let expected = try generator.generate(earlier + [9, 40], settings: settings)
        let results = [try continued(generator), try continued(withoutCache)]
        for result in results {
            #expect(result.ids == expected.ids)
            for (x, y) in zip(result.tokens, expected.tokens) {
                #expect(abs(x.logProbability - y.logProbability) < 1e-4)
            }
        }
        // Embeddings in a cache cannot run again.
        let rows = Variable(try generator.model.parameters("model.embed_tokens.weight").tensor.slice(3..<5))
        let output = try generator.model.forward(
            ForwardInput([
                ForwardSequence(
                    segments: [.embeddings(rows)],
                    cache: KVCache(configuration: generator.model.configuration))
            ]))
        var cache = output.caches[0]
        #expect(throws: ModelError.self) {
            try withoutCache.generate([9], settings: settings, cache: &cache)
        }
    }

    @Test func streamedTextIsTheResult() throws {
        let generator = try generator()
        var streamed = ""
        var ids: [Int32] = []
        let result = try generator.generate(
            [1, 5, 900],
            settings: settings {
                $0.sampling.temperature = 1.3; $0.sampling.topP = 1
            }
        ) { step in
            streamed += step.text
            if let token = step.token { ids.append(token.id) }
            return true
        }
        #expect(streamed == result.text)
        #expect(ids == result.ids)
        // Equal seeds, equal text; the log-probabilities are those of the model.
        let again = try generator.generate(
            [1, 5, 900],
            settings: settings {
                $0.sampling.temperature = 1.3; $0.sampling.topP = 1
            })
        #expect(again.ids == result.ids)
        let output = try generator.model.forward(ForwardInput([[1, 5, 900]]), on: Self.backend)
        let logits = try generator.model.logits(output.hidden.value, on: Self.backend).floats().suffix(4096)
        let reference = log(ReferenceMath.softmax(logits.map(Double.init))[Int(result.ids[0])])
        #expect(abs(result.tokens[0].logProbability - reference) < 1e-4)
    }

    @Test func stopStringsEndBeforeThem() throws {
        let generator = try generator()
        let whole = try generator.generate([1, 5, 900], settings: settings { _ in })
        let characters = Array(whole.text)
        #expect(characters.count > 12)
        // A stop string that begins inside one token and ends in another.
        let stop = String(characters[5..<9])
        let place = try #require(whole.text.range(of: stop))
        var streamed = ""
        let stopped = try generator.generate(
            [1, 5, 900], settings: settings { _ in }, stopStrings: ["never there", stop]
        ) {
            streamed += $0.text
            return true
        }
        #expect(stopped.finishReason == .stop)
        #expect(stopped.text == String(whole.text[..<place.lowerBound]))
        #expect(streamed == stopped.text)
    }

    @Test func endTokensEnd() throws {
        let generator = try generator()
        let whole = try generator.generate([1, 5, 900], settings: settings { _ in })
        let end = whole.ids[6]
        let stopped = try generator.generate([1, 5, 900], settings: settings { $0.endTokenIDs = [Int(end)] })
        #expect(stopped.finishReason == .stop)
        #expect(stopped.ids == Array(whole.ids.prefix((whole.ids.firstIndex(of: end) ?? 0) + 1)))
    }

    @Test func theContextIsALimit() throws {
        let generator = try generator()
        #expect(throws: (any Error).self) {
            try generator.generate([Int32](repeating: 5, count: 65), settings: settings { _ in })
        }
        #expect(throws: (any Error).self) { try generator.generate([], settings: settings { _ in }) }
        #expect(throws: (any Error).self) { try generator.generate([1, 4096], settings: settings { _ in }) }
        let full = try generator.generate(
            [Int32](repeating: 5, count: 60), settings: settings { $0.maxNewTokens = 100 })
        #expect(full.finishReason == .length && full.ids.count <= 5)
        #expect(try generator.generate([1], settings: settings { $0.maxNewTokens = 0 }).ids.isEmpty)
    }

    @Test func aCallerCanStop() throws {
        var count = 0
        let result = try generator().generate([1, 5], settings: settings { _ in }) { _ in
            count += 1
            return count < 3
        }
        #expect(result.ids.count == 3)
    }

    @Test(arguments: [(64, 32), (16, 8), (16, 1), (16, 15), (7, 3)])
    func perplexityIsTheMeanOverWindows(context: Int, stride: Int) throws {
        let generator = try generator()
        var source = TensorSource(seed: 40)
        let ids = source.ids(40, below: 4096)
        let found = try Perplexity(
            of: ids, model: generator.model, window: context, stride: stride, backend: Self.backend)
        // Every token but the first once, each with what its window shows of the text before it.
        let reference = ReferenceModel(generator.model)
        var total = 0.0
        var scored = 1
        var end = min(ids.count, context)
        while true {
            let start = max(0, end - context)
            let logits = reference([Array(ids[start..<end])]).logits
            while scored < end {
                let row = scored - 1 - start
                total -= log(ReferenceMath.softmax((0..<4096).map { logits[row, $0] })[Int(ids[scored])])
                scored += 1
            }
            if end == ids.count { break }
            end = min(ids.count, end + stride)
        }
        #expect(found.tokens == ids.count - 1)
        #expect(abs(found.negativeLogLikelihood - total) < 1e-3 * total)
    }

    @Test func traceScoresAreTheSumsOverHeads() throws {
        let generator = try generator()
        let ids: [Int32] = [1, 70, 71]
        let trace = try RoutingTrace(
            of: ids, model: generator.model, tokenizer: generator.tokenizer, backend: Self.backend)
        let reference = ReferenceModel(generator.model)([ids])
        #expect(trace.layersOfGroup == [[0, 1], [2]])
        for (position, token) in trace.tokens.enumerated() {
            for (group, layer) in [0, 2].enumerated() {
                guard let (left, right) = reference.routings[layer] else { continue }
                var scores = [Double](repeating: 0, count: 25)
                for head in 0..<2 {
                    for i in 0..<5 {
                        for j in 0..<5 {
                            scores[i * 5 + j] +=
                                left.values[(position * 2 + head) * 5 + i]
                                * right.values[(position * 2 + head) * 5 + j]
                        }
                    }
                }
                let routing = token.groups[group]
                #expect(routing.activeExperts == scores.count { $0 > 0 })
                let ranked = scores.sorted(by: >)
                for (place, expert) in routing.experts.enumerated() {
                    #expect(abs(expert.score - ranked[place]) < 1e-5)
                    #expect(abs(expert.score - scores[expert.expert.index]) < 1e-5)
                    let halves = try #require(expert.halves)
                    #expect(
                        expert.expert.group == group
                            && expert.expert.index == halves.left * 5 + halves.right)
                }
            }
        }
        let html = trace.html(origin: PageOrigin(command: "monet trace", model: "a <b> & \"c\""))
        #expect(html.contains("a &lt;b&gt; &amp;") && !html.contains("<b> &"))
        #expect(!html.contains("http://") && !html.contains("https://"))
    }
}
