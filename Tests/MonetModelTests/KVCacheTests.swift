import Foundation
import MonetCompute
import MonetFoundation
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

    /// Continuations that share the memory of what they begin with give the same bits as those that copy it: branches
    /// of branches, steps of one token and of several, and caches cut to less than what they share.
    @Test(arguments: [DType.float32, .bfloat16, .int8Rows])
    func sharedBeginnings(dtype: DType) throws {
        let model = try model(context: 200)
        for name in Kernels.available {
            let kernels = try #require(Kernels(named: name))
            let backend = CPUBackend(
                pool: WorkerPool(threadCount: 2), instructionSet: kernels, isBatchInvariant: true)
            var random = SplitMix64(seed: 5)
            func tokens(_ count: Int) -> [Int32] {
                (0..<count).map { _ in Int32(random.next() % UInt64(model.configuration.vocabularySize)) }
            }
            var copied = [KVCache(configuration: model.configuration, dtype: dtype)]
            var shared = copied
            shared[0].sharesBeginning = true
            for round in 0..<40 {
                // The first step makes the common beginning; later ones continue any cache, whole or cut.
                let from = round == 0 ? 0 : Int(random.next() % UInt64(copied.count))
                var (a, b) = (copied[from], shared[from])
                if round % 5 == 4 {
                    let length = Int(random.next() % UInt64(a.count + 1))
                    a.truncate(to: length)
                    b.truncate(to: length)
                } else if round % 7 == 6 {
                    (a, b) = (a.prefix(36), b.prefix(36))
                }
                let new = tokens(round == 0 ? 40 : [1, 1, 3, 7, 19][round % 5])
                guard a.count + new.count <= 200 else { continue }
                let expected = try model.forward(ForwardInput([ForwardSequence(new, cache: a)]), on: backend)
                let found = try model.forward(ForwardInput([ForwardSequence(new, cache: b)]), on: backend)
                #expect(found.hidden.value.floats() == expected.hidden.value.floats(), "\(name) \(round)")
                #expect(found.caches[0].tokens == expected.caches[0].tokens)
                copied.append(expected.caches[0])
                shared.append(found.caches[0])
            }
            // A second branch of the first text takes memory for its own tokens alone.
            for cache in [shared[1], copied[1]] {
                _ = try model.forward(ForwardInput([ForwardSequence(tokens(1), cache: cache)]), on: backend)
            }
            let branch = try model.forward(
                ForwardInput([ForwardSequence(tokens(2), cache: shared[1])]), on: backend
            ).caches[0]
            let copy = try model.forward(
                ForwardInput([ForwardSequence(tokens(2), cache: copied[1])]), on: backend
            ).caches[0]
            #expect(branch.byteCount * branch.capacity == copy.byteCount * (branch.capacity - 40))
        }
    }

    /// A device that reads whole caches alone gets these, and one that gets others says so.
    @Test func onlySomeDevicesShare() throws {
        let model = try model(context: 100)
        var start = KVCache(configuration: model.configuration)
        start.sharesBeginning = true
        let text = (0..<40).map { Int32($0) }
        let plain = CPUBackend()
        let base = try model.forward(ForwardInput([ForwardSequence(text, cache: start)]), on: plain).caches[0]
        for _ in 0..<2 {
            let next = try model.forward(ForwardInput([ForwardSequence([3, 4], cache: base)]), on: plain)
            let whole = try model.forward(ForwardInput([text + [3, 4]]), on: plain)
            #expect(relativeError(next.hidden.value, whole.hidden.value.slice(40..<42)) < 1e-5)
        }
        let invariant = CPUBackend(isBatchInvariant: true)
        let first = try model.forward(ForwardInput([ForwardSequence([3], cache: base)]), on: invariant)
        let second = try model.forward(ForwardInput([ForwardSequence([4], cache: base)]), on: invariant)
        #expect(first.caches[0].count == 41)
        #expect(throws: ComputeError.self) {
            try model.forward(ForwardInput([ForwardSequence([5, 6], cache: second.caches[0])]), on: plain)
        }
    }
}
