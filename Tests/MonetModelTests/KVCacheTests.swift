import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// Caches as values: what a pass gives is what the whole text gives, whatever else was continued from the same cache.
@Suite struct KVCacheTests {
    private func model(_ family: Family = .vertical, context: Int = 64) throws -> MonetLanguageModel {
        var c = smallConfiguration(family)
        (c.attentionHeads, c.keyValueHeads, c.headWidth) = (4, 2, 6)
        c.maxPositionEmbeddings = context
        return try scrambledModel(c, seed: 21)
    }

    /// One cache continued twice gives what each continuation gives alone, in whichever order they go on.
    @Test(arguments: Device.allCases)
    func cachesAreValues(device: Device) throws {
        let (model, backend) = (try model().prepared(on: device.backend), device.backend)
        func step(_ tokens: [Int32], _ cache: KVCache) throws -> (hidden: [Double], cache: KVCache) {
            let output = try model.forward(
                ForwardInput([ForwardSequence(tokens, cache: cache)]), on: backend)
            return (Array(output.hidden.value.floats().map(Double.init).suffix(36)), output.caches[0])
        }
        func whole(_ tokens: [Int32]) throws -> [Double] {
            Array(
                try model.forward(ForwardInput([tokens]), on: backend).hidden.value.floats()
                    .map(Double.init).suffix(36))
        }
        let start = try step([1, 5, 9], KVCache(configuration: model.configuration)).cache
        let first = try step([3, 4], start)
        let second = try step([60], start)
        #expect(start.tokens == [1, 5, 9] && first.cache.tokens == [1, 5, 9, 3, 4])
        let firstOn = try step([8], first.cache)
        let secondOn = try step([7], second.cache)
        var cut = firstOn.cache
        cut.truncate(to: 4)
        let third = try step([50, 51], cut)
        let fourth = try step([2], firstOn.cache)
        for (found, tokens) in [
            (first.hidden, [1, 5, 9, 3, 4]), (second.hidden, [1, 5, 9, 60]),
            (firstOn.hidden, [1, 5, 9, 3, 4, 8]), (secondOn.hidden, [1, 5, 9, 60, 7]),
            (third.hidden, [1, 5, 9, 3, 50, 51]), (fourth.hidden, [1, 5, 9, 3, 4, 8, 2]),
        ] as [([Double], [Int32])] {
            #expect(relativeError(found, try whole(tokens)) < 1e-5, "\(tokens)")
        }
    }

    @Test func cachesGrowToTheirLimit() throws {
        let model = try model(context: 300)
        var cache = KVCache(configuration: model.configuration, limit: 300, dtype: .bfloat16)
        #expect(cache.capacity == 0 && cache.byteCount == 0)
        func run(_ count: Int) throws {
            let output = try model.forward(
                ForwardInput([ForwardSequence([Int32](repeating: 3, count: count), cache: cache)]))
            cache = output.caches[0]
        }
        try run(10)
        #expect(cache.count == 10 && cache.capacity == 256)
        #expect(cache.byteCount == 2 * 3 * 2 * 256 * 6 * 2)
        try run(280)
        #expect(cache.count == 290 && cache.capacity == 300)
        #expect(throws: ModelError.contextExceeded(tokens: 301, context: 300)) { try run(11) }
        // The failed pass took nothing.
        try run(10)
        #expect(cache.count == 300)
    }

    /// A beginning continues like the whole text up to there, and lengths outside the cache are cut to it.
    @Test func beginnings() throws {
        let model = try model()
        let empty = KVCache(configuration: model.configuration)
        let cache = try model.forward(
            ForwardInput([ForwardSequence([1, 5, 9, 33], cache: empty)])
        ).caches[0]
        #expect(cache.prefix(2).tokens == [1, 5] && cache.prefix(9).tokens == cache.tokens)
        #expect(cache.prefix(-1).tokens.isEmpty && cache.count == 4)
        let continued = try model.forward(ForwardInput([ForwardSequence([7], cache: cache.prefix(2))]))
        let whole = try model.forward(ForwardInput([[1, 5, 7]]))
        #expect(relativeError(continued.hidden.value, whole.hidden.value.slice(2..<3)) < 1e-5)
        #expect(continued.caches[0].tokens == [1, 5, 7] && cache.tokens == [1, 5, 9, 33])
    }
}
