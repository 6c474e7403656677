import Foundation
import MonetGeneration
import TestSupport
import Testing

@Suite struct SamplerTests {
    static let logits: [Float] = [2, 1, 0, -1, 0.5]

    private var probabilities: [Double] { ReferenceMath.softmax(Self.logits.map(Double.init)) }

    private func settings(_ change: (inout SamplingSettings) -> Void) -> SamplingSettings {
        var settings = SamplingSettings()
        (settings.temperature, settings.topP) = (1, 1)
        change(&settings)
        return settings
    }

    /// Shares of the tokens in many draws.
    private func shares(_ settings: SamplingSettings, history: [Int32] = []) throws -> [Double] {
        var sampler = try Sampler(settings)
        var counts = [Double](repeating: 0, count: Self.logits.count)
        let draws = 40_000
        for _ in 0..<draws { counts[Int(try sampler.next(Self.logits, history: history))] += 1 }
        return counts.map { $0 / Double(draws) }
    }

    /// The softmax of some logits, zero for the others.
    private func restricted(_ kept: [Int], temperature: Double = 1) -> [Double] {
        let weights = ReferenceMath.softmax(kept.map { Double(Self.logits[$0]) / temperature })
        var result = [Double](repeating: 0, count: Self.logits.count)
        for (place, index) in kept.enumerated() { result[index] = weights[place] }
        return result
    }

    /// 40,000 draws: a share's standard deviation is at most 0.0025, so 0.012 is almost five of them.
    private func expectClose(_ found: [Double], _ expected: [Double], _ comment: Comment) {
        for (x, y) in zip(found, expected) {
            #expect(abs(x - y) < 0.012, comment)
            // What is cut off never comes.
            if y == 0 { #expect(x == 0, comment) }
        }
    }

    @Test func distributions() throws {
        expectClose(try shares(settings { _ in }), probabilities, "plain")
        expectClose(
            try shares(settings { $0.temperature = 0.5 }), restricted([0, 1, 2, 3, 4], temperature: 0.5),
            "temperature")
        expectClose(try shares(settings { $0.topK = 2 }), restricted([0, 1]), "top-k")
        expectClose(try shares(settings { $0.topK = 99 }), probabilities, "top-k beyond the vocabulary")
        // Probabilities 0.563, 0.207, 0.126 (id 4), 0.076, 0.028: two reach 0.77, three 0.9.
        expectClose(try shares(settings { $0.topP = 0.7 }), restricted([0, 1]), "top-p")
        expectClose(try shares(settings { $0.topP = 0.8 }), restricted([0, 1, 4]), "top-p")
        expectClose(
            try shares(settings { $0.topP = 0.01 }), restricted([0]), "a tiny top-p keeps the likeliest")
        expectClose(try shares(settings { $0.minP = 0.2 }), restricted([0, 1, 4]), "min-p")
        expectClose(try shares(settings { $0.minP = 1 }), restricted([0]), "min-p of 1")
    }

    /// Positive logits are divided by the penalty, negative ones multiplied (Keskar et al. 2019).
    @Test func repetitionPenalty() throws {
        let found = try shares(settings { $0.repetitionPenalty = 2 }, history: [0, 3, 0])
        expectClose(found, ReferenceMath.softmax([1, 1, 0, -2, 0.5]), "penalty")
    }

    @Test func greedyTakesTheFirstOfTheLikeliest() throws {
        var sampler = try Sampler(.greedy)
        #expect(try sampler.next([0, 3, 3, 1], history: []) == 1)
        #expect(try sampler.next([-5, -.infinity, -4], history: []) == 2)
        #expect(try sampler.next([7], history: []) == 0)
    }

    @Test func equalSeedsGiveEqualDraws() throws {
        func draws(_ seed: UInt64) throws -> [Int32] {
            var sampler = try Sampler(settings { $0.seed = seed })
            return try (0..<50).map { _ in try sampler.next(Self.logits, history: []) }
        }
        #expect(try draws(3) == draws(3))
        #expect(try draws(3) != draws(4))
    }

    @Test func badSettingsAndLogitsAreErrors() throws {
        for bad in [
            settings { $0.temperature = -1 }, settings { $0.temperature = .nan }, settings { $0.topK = -1 },
            settings { $0.topP = 0 }, settings { $0.topP = 1.5 }, settings { $0.minP = -0.1 },
            settings { $0.minP = 2 },
            settings { $0.repetitionPenalty = 0 }, settings { $0.repetitionPenalty = .infinity },
        ] {
            #expect(throws: GenerationError.self) { try Sampler(bad) }
        }
        var sampler = try Sampler(settings { _ in })
        for bad: [Float] in [[], [.nan, 1], [-.infinity, -.infinity]] {
            #expect(throws: GenerationError.self) { try sampler.next(bad, history: []) }
        }
    }

    @Test func logProbabilities() {
        let log = LogProbabilities(Self.logits)
        for id in 0..<5 { #expect(abs(log[Int32(id)] - Foundation.log(probabilities[id])) < 1e-6) }
        #expect(log.top(3).map(\.id) == [0, 1, 4])
        #expect(log.top(99).count == 5)
        #expect(log.top(0).isEmpty)
    }
}
