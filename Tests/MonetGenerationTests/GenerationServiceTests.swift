import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import MonetText
import TestSupport
import Testing

/// Many texts at once on the service's thread, each as its own stream.
@Suite struct GenerationServiceTests {
    private static func tokenizer() throws -> Tokenizer {
        try Tokenizer(path: Fixture.path("text/trained.model"))
    }

    private static func service(sequences: Int = 4, promptTokens: Int = 16) throws -> GenerationService {
        var limits = BatchEngine.Limits()
        (limits.sequences, limits.promptTokensPerStep) = (sequences, promptTokens)
        let tokenizer = try tokenizer()
        var configuration = smallConfiguration(.vertical)
        configuration.vocabularySize = tokenizer.vocabularySize
        return try GenerationService(
            model: scrambledModel(configuration, seed: 4), tokenizer: tokenizer,
            backend: CPUBackend(isBatchInvariant: true), limits: limits)
    }

    private static func request(_ tokens: [Int32], count: Int, seed: UInt64 = 0) -> TextRequest {
        var settings = GenerationSettings()
        settings.maxNewTokens = count
        settings.endTokenIDs = []
        settings.sampling.seed = seed
        return TextRequest(GenerationRequest(tokens, settings: settings))
    }

    private static func result(_ service: GenerationService, _ request: TextRequest) async throws
        -> GenerationResult
    {
        for try await event in service.events(request) {
            if case .finished(let result) = event { return result }
        }
        throw CancellationError()
    }

    /// A text's tokens and log-probabilities are those of the text alone, bit for bit.
    @Test func companyChangesNothing() async throws {
        let prompts = (0..<12).map { n in (0..<(3 + 5 * (n % 4))).map { Int32(3 + ($0 * 7 + n) % 50) } }
        let alone = try Self.service(sequences: 1, promptTokens: 256)
        var expected: [[GeneratedToken]] = []
        for (n, prompt) in prompts.enumerated() {
            expected.append(
                try await Self.result(alone, Self.request(prompt, count: 6 + n, seed: UInt64(n))).tokens)
        }
        let together = try Self.service()
        try await withThrowingTaskGroup(of: (Int, [GeneratedToken]).self) { group in
            for (n, prompt) in prompts.enumerated() {
                group.addTask {
                    (
                        n,
                        try await Self.result(together, Self.request(prompt, count: 6 + n, seed: UInt64(n)))
                            .tokens
                    )
                }
            }
            for try await (n, tokens) in group { #expect(tokens == expected[n], "text \(n)") }
        }
        #expect(together.status.ended["length"] == 12)
    }

    /// A dropped stream ends its text and nobody else's.
    @Test func droppedStreamsEndTheirTexts() async throws {
        let service = try Self.service()
        let other = Task { try await Self.result(service, Self.request([5, 6, 7], count: 40)) }
        do {
            var count = 0
            for try await event in service.events(Self.request([8, 9], count: 50)) {
                if case .step = event { count += 1 }
                if count == 3 { break }
            }
        }
        #expect(try await other.value.tokens.count == 40)
        let cancelled = Task { try await Self.result(service, Self.request([1, 2], count: 50)) }
        cancelled.cancel()
        await #expect(throws: (any Error).self) { try await cancelled.value }
        // Both are gone within a step of their end.
        for _ in 0..<100 where service.status.running + service.status.waiting > 0 {
            try await Task.sleep(for: .milliseconds(20))
        }
        #expect(service.status.running + service.status.waiting == 0)
    }

    @Test func invalidRequestsFailAlone() async throws {
        let service = try Self.service()
        await #expect(throws: GenerationError.emptyPrompt) {
            try await Self.result(service, Self.request([], count: 1))
        }
        await #expect(throws: GenerationError.self) {
            try await Self.result(service, Self.request([-1], count: 1))
        }
        #expect(try await Self.result(service, Self.request([4], count: 2)).tokens.count == 2)
        service.stop()
        for _ in 0..<100 where !service.status.hasStopped { try await Task.sleep(for: .milliseconds(20)) }
        await #expect(throws: GenerationError.stopped) {
            try await Self.result(service, Self.request([4], count: 1))
        }
    }

    /// Scores of prompt tokens against the logits of one pass over the whole prompt.
    @Test(arguments: [1, 5, 37])
    func promptsAreScored(length: Int) async throws {
        let service = try Self.service(promptTokens: 8)
        let tokens = (0..<length).map { Int32(3 + ($0 * 11) % 60) }
        var request = Self.request(tokens, count: 1)
        request.generation.scoredAlternatives = 3
        var scored: [ScoredToken] = []
        for try await event in service.events(request) {
            if case .scored(let part) = event { scored += part }
        }
        #expect(scored.map(\.id) == tokens)
        #expect(scored.first?.logProbability == nil)
        let model = service.model
        let logits = ReferenceModel(model)([tokens]).logits
        let width = model.configuration.vocabularySize
        for place in 1..<max(1, length) {
            let row = Array(logits.values[((place - 1) * width)..<(place * width)])
            let largest = row.max() ?? 0
            let sum = largest + log(row.reduce(0) { $0 + exp($1 - largest) })
            // float32 logits of a few units, through two layers.
            let found = try #require(scored[place].logProbability)
            #expect(abs(found - (row[Int(tokens[place])] - sum)) < 1e-4)
            #expect(scored[place].alternatives.count == 3)
            #expect(abs((scored[place].alternatives.first?.logProbability ?? 0) - (largest - sum)) < 1e-4)
        }
    }

    /// Requests with one prompt wait for each other's keys and values instead of computing them again.
    @Test func equalPromptsAreReadOnce() async throws {
        let service = try Self.service(sequences: 6, promptTokens: 8)
        let prompt = (0..<40).map { Int32(3 + $0) }
        let results = try await withThrowingTaskGroup(of: GenerationResult.self) { group in
            for seed in 0..<6 {
                group.addTask {
                    try await Self.result(service, Self.request(prompt, count: 4, seed: UInt64(seed)))
                }
            }
            return try await group.reduce(into: []) { $0.append($1) }
        }
        #expect(results.map(\.cachedTokens).sorted() == [0, 39, 39, 39, 39, 39])
        #expect(service.status.reusedTokens == 5 * 39)
    }

    /// Scores of units are those of the trace.
    @Test func unitsAreReported() async throws {
        let service = try Self.service(promptTokens: 4)
        let tokens = (0..<11).map { Int32(3 + $0 * 3) }
        var request = Self.request(tokens, count: 0)
        request.units = .highest(.max)
        var rows: [[UnitScore]] = []
        for try await event in service.events(request) {
            if case .ran(_, let units, _) = event { rows += units }
        }
        try #require(rows.count == 11)
        var input = ForwardInput([tokens])
        input.keepsUnits = true
        let output = try service.model.forward(input, on: CPUBackend())
        for group in output.groups {
            var reader = group.reader()
            for row in tokens.indices {
                var expected: [Int: Float] = [:]
                reader.visit(row) { expected[$0] = $1 }
                let own = rows[row].filter { $0.group == group.group }
                #expect(Set(own.map(\.index)) == Set(expected.keys))
                // The same sums in another order.
                for score in own { #expect(abs(score.score - (expected[score.index] ?? 0)) < 1e-5) }
                #expect(zip(own, own.dropFirst()).allSatisfy { $0.score >= $1.score })
            }
        }
        request.units = .of([(0, 3), (0, 0)])
        rows = []
        for try await event in service.events(request) {
            if case .ran(_, let units, _) = event { rows += units }
        }
        #expect(rows.allSatisfy { $0.map(\.index) == [3, 0] })
    }
}
