import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// How many tokens each unit fires on, by group, for random masks that match another one.
public struct FiringCounts: Sendable, Equatable {
    /// The units.
    public let units: UnitLayout
    /// The number of tokens by group and unit.
    public let counts: [[UInt32]]
    /// The number of tokens read.
    public let tokens: Int

    /// Collects the counts.
    public init(units: UnitLayout, counts: [[UInt32]], tokens: Int) {
        self.units = units
        self.counts = counts
        self.tokens = tokens
    }

    /// Counts the tokens of documents.
    ///
    /// - `progress`: called with the tokens read; false stops.
    /// - Throws: `ModelError`, `InsightError.foreignTokens`, `CancellationError` when stopped.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        units = model.units
        var counts = Array(
            repeating: [UInt32](repeating: 0, count: units.unitsPerGroup), count: units.groups)
        var tokens = 0
        try DocumentReader(model: model, backend: backend).forEachBatch(of: documents) { batch in
            for group in batch.output.groups {
                var reader = group.reader()
                for row in 0..<batch.tokenCount {
                    reader.visit(row) { unit, _ in counts[group.group][unit] += 1 }
                }
            }
            tokens += batch.tokenCount
            guard progress(tokens) else { throw CancellationError() }
            return true
        }
        (self.counts, self.tokens) = (counts, tokens)
    }

    /// Mean share of tokens that a mask's units fire on; 0 for an empty mask.
    public func meanFrequency(of mask: UnitMask) -> Double {
        var sum = 0.0
        for group in mask.groups {
            for (index, _) in mask.entries(group: group) { sum += Double(counts[group][index]) }
        }
        return sum / Double(max(1, mask.count)) / Double(max(1, tokens))
    }

    /// A mask of as many random units of every group, each of which fires about as often as one of `mask`'s.
    ///
    /// For each unit of the mask, another is drawn without replacement among those whose count is in the same
    /// quarter octave, or in the nearest that has one left. Units of the mask itself are drawn only where a
    /// group has too few others.
    public func matchedMask(_ mask: UnitMask, seed: UInt64) -> UnitMask {
        var result = UnitMask(units)
        var generator = SplitMix64(seed: seed)
        for group in mask.groups {
            let own = mask.entries(group: group).map(\.index)
            let isOwn = Set(own)
            var others = Self.bins(counts[group], of: counts[group].indices.filter { !isOwn.contains($0) })
            var rest = Self.bins(counts[group], of: own)
            let drawn = own.compactMap { index in
                Self.draw(from: &others, near: Self.bin(counts[group][index]), &generator)
                    ?? Self.draw(from: &rest, near: Self.bin(counts[group][index]), &generator)
            }
            result.remove(drawn, group: group)
        }
        return result
    }

    /// Takes one unit out of the nearest bin that has any.
    private static func draw(
        from bins: inout [Int: [Int]], near wanted: Int, _ generator: inout SplitMix64
    ) -> Int? {
        let nearest = bins.keys.min { (abs($0 - wanted), $0) < (abs($1 - wanted), $1) }
        guard let nearest, var bin = bins.removeValue(forKey: nearest) else { return nil }
        bin.swapAt(Int(generator.next() % UInt64(bin.count)), bin.count - 1)
        let chosen = bin.removeLast()
        if !bin.isEmpty { bins[nearest] = bin }
        return chosen
    }

    private static func bins(_ counts: [UInt32], of units: [Int]) -> [Int: [Int]] {
        Dictionary(grouping: units) { bin(counts[$0]) }
    }

    /// Quarter octaves of the count; units that never fire are in a bin of their own.
    private static func bin(_ count: UInt32) -> Int { count == 0 ? -8 : Int(4 * log2(Double(count))) }
}
