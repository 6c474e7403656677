import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Whether pairs of halves mean more than their halves: how often both fire together, and what that says of labels and next
/// tokens, against what the halves alone would give.
///
/// A pair (i, j) fires on a token if one head selects both. Three things are compared with permutations of the right halves'
/// tokens, which keep how often each half fires and in what runs: the list of tokens, or that of a class, is turned by a random
/// number of places.
///
/// - *Joint firing*: tokens on which the pair fires, against right halves moved along all tokens (independent halves) and along
///   those of their label (halves that are independent given the label).
/// - *Information*: bits that a firing says of the label or the next token, KL(P(class | pair) ‖ P(class)), against right halves
///   moved within the class, which is what two halves say that each mean something and together nothing else. Both are
///   taken of equally many firings, because estimates from few are too high.
/// - *Information given the halves*: I(pair; class | both halves' firing), against pairs moved among the tokens on which both
///   halves fire, in one head or two. With one head it is 0, because both halves then make the pair.
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
            self.init(pairs: permuted.map { (observed, $0) }, observed: observed)
        }

        /// Compares values with those of permutations one by one; the mean is the observed value.
        init(pairs: [(observed: Double, permuted: Double)], observed: Double? = nil) {
            let count = Double(max(1, pairs.count))
            self.observed = observed ?? pairs.reduce(0) { $0 + $1.observed } / count
            mean = pairs.reduce(0) { $0 + $1.permuted } / count
            largest = pairs.map(\.permuted).max() ?? 0
            // Rounding of equal sums in another order must not count as larger.
            let atLeast = pairs.count { $0.permuted >= $0.observed - 1e-12 * max(1, abs($0.observed)) }
            pValue = Double(1 + atLeast) / Double(1 + pairs.count)
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
        /// Bits that a firing says of labels and next tokens.
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
        /// Pairs of each group, chosen evenly in the order of how often independent halves would fire together.
        public var pairsPerGroup = 200
        /// Tokens on which independent halves would have to fire together. How often they do is not asked, because it is what
        /// is tested.
        public var minimumExpected = 50.0
        /// Permutations.
        public var permutations = 19
        /// The seed of the permutations.
        public var seed: UInt64 = 0

        /// 200 pairs a group, 19 permutations.
        public init() {}
    }

    /// Reads documents and tests pairs.
    ///
    /// - `experts`: the pairs to test; nil chooses by the settings, among those that the model has not removed.
    /// - `documents`: their first label set is the label.
    /// - `progress`: called with the tokens read and the pairs tested; false stops.
    /// - Throws: `InsightError.invalidSetting` for a model without pairs, `ModelError`, `CancellationError` when stopped.
    public init(
        of experts: [UnitID]? = nil, on documents: LabelledDocuments, model: MonetLanguageModel,
        backend: any Backend = CPUBackend(), settings: Settings = Settings(),
        progress: (_ tokens: Int, _ pairs: Int) -> Bool = { _, _ in true }
    ) throws {
        guard let halves = model.units.perSide else {
            throw InsightError.invalidSetting(
                name: "the model", found: "one without experts", expected: "one whose experts have two halves"
            )
        }
        let groups = experts.map { Set($0.map(\.group)).sorted() } ?? Array(0..<model.units.groups)
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
            // Three tables of permutations stand beside the lists of one group.
            let tables = MemoryLimits.product(3, settings.permutations, count, 4)
            try MemoryLimits.require(
                firings.values.reduce(tables) { $0 + $1.byteCount },
                for:
                    "the halves that fire on \(count.grouped) tokens, and \(settings.permutations) permutations"
            )
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
            let removed = Set(
                (model.ownMask?.entries(group: group) ?? []).filter { $0.strength == 0 }.map(\.index))
            let chosen =
                experts?.filter { $0.group == group }.map(\.index).sorted()
                ?? own.pairs(settings, isRemoved: removed.contains)
            if chosen.isEmpty { continue }
            let trials = PairTrials(own, labels: labels.count, settings)
            for index in chosen {
                pairs.append(
                    trials.test(
                        UnitID(group: group, index: index), left: index / halves, right: index % halves))
                guard progress(count, pairs.count) else { throw CancellationError() }
            }
        }
        self.pairs = pairs
    }
}
