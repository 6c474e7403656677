import MonetFoundation
import MonetInsight
import MonetModel
import Testing

/// Random masks that match another in size and in how often their units fire.
@Suite struct FiringCountTests {
    private let units = UnitLayout(kind: .experts, layersOfGroup: [0...0, 1...1], unitsPerGroup: 4000)

    /// Counts spread over twelve octaves, as an index has them; every third unit never fires.
    private func counts(seed: UInt64) -> FiringCounts {
        var generator = SplitMix64(seed: seed)
        let counts = (0..<2).map { _ in
            (0..<4000).map { $0 % 3 == 0 ? 0 : UInt32(1 << (generator.next() % 12)) + UInt32($0 % 7) }
        }
        return FiringCounts(units: units, counts: counts, tokens: 10_000)
    }

    @Test func drawsMatchInNumberAndFrequency() throws {
        let counts = counts(seed: 1)
        var mask = UnitMask(units)
        mask.remove((0..<600).map { $0 * 5 }, group: 0)
        mask.remove([1, 2, 4], group: 1)
        var draws: Set<String> = []
        for seed in 0..<8 {
            let drawn = counts.matchedMask(mask, seed: UInt64(seed))
            draws.insert(drawn.description)
            #expect(drawn.count(group: 0) == 600 && drawn.count(group: 1) == 3)
            #expect(drawn.intersection(mask).count == 0)
            // Every one has a partner at most two quarter octaves away, so the sums agree to a third at worst;
            // random masks of equal size differ by more only by chance.
            func sorted(_ mask: UnitMask) -> [Double] {
                mask.entries(group: 0).map { Double(counts.counts[0][$0.index]) }.sorted()
            }
            for (own, other) in zip(sorted(mask), sorted(drawn)) {
                #expect(own == other || abs(own - other) <= 0.5 * max(own, other))
            }
            let (wanted, found) = (counts.meanFrequency(of: mask), counts.meanFrequency(of: drawn))
            #expect(abs(found - wanted) < 0.1 * wanted)
        }
        #expect(draws.count == 8)
        #expect(counts.matchedMask(mask, seed: 3) == counts.matchedMask(mask, seed: 3))
    }

    @Test func masksThatLeaveTooFewOthersAreMatchedAllTheSame() {
        let counts = counts(seed: 2)
        var mask = UnitMask(units)
        #expect(counts.matchedMask(mask, seed: 0).count == 0 && counts.meanFrequency(of: mask) == 0)
        mask.remove(0..<3999, group: 1)
        #expect(counts.matchedMask(mask, seed: 0).count(group: 1) == 3999)
    }

    @Test func meanFrequencyIsAShareOfTokens() {
        let counts = FiringCounts(
            units: UnitLayout(kind: .experts, layersOfGroup: [0...0], unitsPerGroup: 3),
            counts: [[5, 0, 10]], tokens: 100)
        var mask = UnitMask(unitsPerGroup: 3)
        mask.remove([0, 2], group: 0)
        #expect(abs(counts.meanFrequency(of: mask) - 0.075) < 1e-15)
    }
}
