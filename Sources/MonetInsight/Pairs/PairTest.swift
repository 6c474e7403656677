import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Whether pairs of halves mean more than their halves: how often both fire together, and what that says of labels and next
/// tokens, against what the halves alone would give.
///
/// A pair (i, j) fires on a token if one head selects both. Three things are compared with permutations of the right halves'
/// tokens, which keep what each half does:
///
/// - *Joint firing*: tokens on which the pair fires, against right halves moved to any tokens (independent halves) and to
///   tokens of the same label (halves that are independent given the label).
/// - *Information*: I(pair; label) and I(pair; next token), against right halves moved within tokens of the same label, or
///   the same next token: a pair of halves that mean one thing each, and nothing together, has as much.
/// - *Information given the halves*: I(pair; label | both halves' firing) and the same for next tokens, against pairs moved among
///   the tokens on which both halves fire, in one head or two. With one head it is 0, because both halves then make the pair.
public struct PairTest: Sendable, Equatable {
    /// A measured value and the permutations' values.
    public struct Measure: Sendable, Equatable {
        /// The value.
        public let observed: Double
        /// Mean and largest value of the permutations.
        public let mean: Double
        public let largest: Double
        /// Share of permutations, with the observed one among them, whose value is as large: a one-sided p-value.
        public let pValue: Double

        /// Compares a value with permutations.
        public init(observed: Double, permuted: [Double]) {
            self.observed = observed
            mean = permuted.reduce(0, +) / Double(max(1, permuted.count))
            largest = permuted.max() ?? 0
            // Rounding of equal sums in another order must not count as larger.
            let atLeast = permuted.count { $0 >= observed - 1e-12 * max(1, abs(observed)) }
            pValue = Double(1 + atLeast) / Double(1 + permuted.count)
        }

        /// What the value has beyond the permutations' mean.
        public var excess: Double { observed - mean }
    }

    /// One pair.
    public struct Pair: Sendable, Equatable {
        public let expert: UnitID
        /// Tokens on which the left half, the right half and the pair fire.
        public let leftCount: Int
        public let rightCount: Int
        public let count: Int
        /// Joint firing against independent halves.
        public let joint: Measure
        /// Joint firing against halves that are independent given the label; nil without labels.
        public let jointGivenLabel: Measure?
        /// Information about labels and next tokens in bits.
        public let labels: Measure?
        public let nextTokens: Measure
        /// The same given both halves.
        public let labelsGivenHalves: Measure?
        public let nextTokensGivenHalves: Measure
    }

    /// The pairs, by group and index.
    public let pairs: [Pair]
    /// The tokens that were read.
    public let tokens: Int
    /// Routing heads, labels and permutations.
    public let heads: Int
    public let labels: [String]
    public let permutations: Int

    /// What to test.
    public struct Settings: Sendable {
        /// Pairs of each group: those that fire most often, spread over the orders of magnitude of their counts.
        public var pairsPerGroup = 200
        /// Tokens of the corpus on which a pair must fire.
        public var minimumCount = 20
        /// Permutations.
        public var permutations = 19
        /// The seed of the permutations.
        public var seed: UInt64 = 0

        /// 200 pairs a group, 19 permutations.
        public init() {}
    }

    /// Reads documents and tests pairs.
    ///
    /// - `experts`: the pairs to test.
    /// - `documents`: their first label set is the label.
    /// - `progress`: called with the tokens read and the pairs tested; false stops.
    /// - Throws: `InsightError.invalidSetting` for a model without pairs, `ModelError`, `CancellationError` when stopped.
    public init(
        of experts: [UnitID], on documents: LabelledDocuments, model: MonetLanguageModel,
        backend: any Backend = CPUBackend(), settings: Settings = Settings(),
        progress: (_ tokens: Int, _ pairs: Int) -> Bool = { _, _ in true }
    ) throws {
        guard let halves = model.units.perSide else {
            throw InsightError.invalidSetting(
                name: "the model", found: "one without experts", expected: "one whose experts have two halves"
            )
        }
        let groups = Set(experts.map(\.group)).sorted()
        var firings = Dictionary(
            uniqueKeysWithValues: groups.map {
                ($0, HalfFirings(heads: model.units.heads, halves: halves))
            })
        var count = 0
        let reader = DocumentReader(model: model, backend: backend, keepsUnits: false)
        try reader.forEachBatch(of: documents) { batch in
            for routing in batch.output.groups.compactMap({ $0 as? Routing }) {
                firings[routing.group]?.add(batch, routing, documents: documents, set: 0)
            }
            count += batch.tokenCount
            try MemoryLimits.require(
                2 * firings.values.reduce(0) { $0 + $1.byteCount },
                for: "the halves that fire on \(count.grouped) tokens")
            guard progress(count, 0) else { throw CancellationError() }
            return true
        }
        labels = documents.labelSets.first?.labels ?? []
        permutations = settings.permutations
        heads = model.units.heads
        tokens = firings.values.first?.tokens ?? 0
        var pairs: [Pair] = []
        for group in groups {
            guard let own = firings.removeValue(forKey: group) else { continue }
            let trials = PairTrials(own, labels: labels.count, settings)
            for expert in experts.filter({ $0.group == group }).sorted(by: { $0.index < $1.index }) {
                pairs.append(trials.test(expert, left: expert.index / halves, right: expert.index % halves))
                guard progress(count, pairs.count) else { throw CancellationError() }
            }
        }
        self.pairs = pairs
    }
}

/// The permutations of one group's tokens, shared by all its pairs.
private struct PairTrials {
    private let firings: HalfFirings
    private let settings: PairTest.Settings
    private let labelTotals: [Int]
    private let nextTotals: [Int]
    /// Where each token's right halves go: anywhere, within the label, within the next token.
    private let anywhere: [[Int32]]
    private let withinLabel: [[Int32]]
    private let withinNext: [[Int32]]

    init(_ firings: HalfFirings, labels: Int, _ settings: PairTest.Settings) {
        self.firings = firings
        self.settings = settings
        labelTotals = Self.totals(firings.labels, labels)
        nextTotals = Self.totals(firings.nextTokens, Int(firings.nextTokens.max() ?? -1) + 1)
        func permutations(_ classes: [Int32]?, _ salt: UInt64) -> [[Int32]] {
            (0..<settings.permutations).map { number in
                var generator = SplitMix64(seed: settings.seed &+ salt &+ UInt64(number) &* 0x9e37_79b9)
                return Self.permutation(firings.tokens, classes, &generator)
            }
        }
        anywhere = permutations(nil, 1 << 40)
        withinLabel = labels > 0 ? permutations(firings.labels, 2 << 40) : []
        withinNext = permutations(firings.nextTokens, 3 << 40)
    }

    private static func totals(_ classes: [Int32], _ count: Int) -> [Int] {
        var totals = Array(repeating: 0, count: count)
        for label in classes where label >= 0 { totals[Int(label)] += 1 }
        return totals
    }

    /// A random permutation of tokens that keeps their classes.
    private static func permutation(
        _ count: Int, _ classes: [Int32]?, _ generator: inout SplitMix64
    ) -> [Int32] {
        var result = [Int32](repeating: 0, count: count)
        let members =
            classes.map { classes in
                Dictionary(grouping: 0..<count, by: { classes[$0] }).sorted { $0.key < $1.key }.map(\.value)
            } ?? [Array(0..<count)]
        for own in members {
            for (from, to) in zip(own, own.shuffled(using: &generator)) { result[from] = Int32(to) }
        }
        return result
    }

    func test(_ expert: UnitID, left: Int, right: Int) -> PairTest.Pair {
        let count = firings.tokens
        let sets = (0..<firings.heads).map {
            TokenSet(firings.left[$0 * firings.halves + left], of: count)
        }
        /// The tokens on which one head selects both halves, with the right one's tokens moved.
        func tokens(_ move: [Int32]?) -> [Int32] {
            var found: [Int32] = []
            for head in 0..<firings.heads {
                for token in firings.right[head * firings.halves + right] {
                    let place = move.map { $0[Int(token)] } ?? token
                    if sets[head].contains(place) { found.append(place) }
                }
            }
            return firings.heads == 1 ? found.sorted() : Set(found).sorted()
        }
        let (fired, lefts, rights) = (tokens(nil), firings.any(.left, left), firings.any(.right, right))
        let both = TokenSet(rights, of: count)
        let cell = lefts.filter { both.contains($0) }
        let labelled = withinLabel.map(tokens)
        func labelBits(_ tokens: [Int32]) -> Double {
            MutualInformation.bits(tokens, classes: firings.labels, totals: labelTotals)
        }
        func nextBits(_ tokens: [Int32]) -> Double {
            MutualInformation.bits(tokens, classes: firings.nextTokens, totals: nextTotals)
        }
        // Pairs moved among the tokens on which both halves fire.
        var generator = SplitMix64(
            seed: settings.seed &+ UInt64(expert.group) << 32 &+ UInt64(expert.index))
        let moved = (0..<settings.permutations).map { _ in
            Array(cell.shuffled(using: &generator).prefix(fired.count))
        }
        func given(_ classes: [Int32]) -> PairTest.Measure {
            func bits(_ tokens: [Int32]) -> Double {
                MutualInformation.bits(tokens, within: cell, classes: classes, of: count)
            }
            return PairTest.Measure(observed: bits(fired), permuted: moved.map(bits))
        }
        let isLabelled = !labelTotals.isEmpty
        return PairTest.Pair(
            expert: expert, leftCount: lefts.count, rightCount: rights.count, count: fired.count,
            joint: PairTest.Measure(
                observed: Double(fired.count), permuted: anywhere.map { Double(tokens($0).count) }),
            jointGivenLabel: isLabelled
                ? PairTest.Measure(
                    observed: Double(fired.count), permuted: labelled.map { Double($0.count) }) : nil,
            labels: isLabelled
                ? PairTest.Measure(observed: labelBits(fired), permuted: labelled.map(labelBits)) : nil,
            nextTokens: PairTest.Measure(
                observed: nextBits(fired), permuted: withinNext.map { nextBits(tokens($0)) }),
            labelsGivenHalves: isLabelled ? given(firings.labels) : nil,
            nextTokensGivenHalves: given(firings.nextTokens))
    }
}
