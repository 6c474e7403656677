import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// How few concepts the units of a model stand for: experts of a Monet or neurons of a dense Llama.
///
/// An expert's score is its routing score, a neuron's its absolute activation. Each measure has a baseline
/// with labels assigned at random; `Docs/Monet.docc/Monosemanticity.md` defines them all.
public struct Monosemanticity: Sendable, Equatable {
    /// The measures that depend on labels.
    public struct LabelMeasures: Sendable, Equatable {
        /// Mean entropy of a unit's mean scores over labels, in bits; log2(labels) if it ignores them.
        public let entropy: Double
        /// Share of units whose mean score on one label is at least twice that on any other.
        public let specialists: Double
        /// The same by router group or layer.
        public let specialistsByGroup: [Double]
        /// Mean Jaccard overlap, over pairs of labels, of the units that score at least twice their
        /// overall mean on each label; 0 if no unit does so on two labels.
        public let overlap: Double
    }

    /// What the units are.
    public let unit: UnitLayout.Kind
    /// All units, and those that scored on `minimumCount` tokens or more, over which means are taken.
    public let units: Int
    public let activeUnits: Int
    /// Labels.
    public let labels: Int
    /// Mean share of the most common token type in the summed scores of a unit's top tokens.
    public let tokenConcentration: Double
    /// With the documents' labels.
    public let measured: LabelMeasures
    /// With labels assigned at random to blocks of 64 tokens.
    public let shuffled: LabelMeasures

    /// Reads labelled documents with a Monet or a dense Llama.
    ///
    /// - `minimumCount`: the number of tokens on which a unit must score to be counted.
    /// - `progress`: called with the tokens so far; false stops.
    /// - Throws: `InsightError.noLabels`, `ModelError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        minimumCount: Int = 50, seed: UInt64 = 0, progress: (Int) -> Bool = { _ in true }
    ) throws {
        let set = try documents.requireLabels()
        let reading = try UnitReading(documents, labels: set.labels.count, model, backend, seed, progress)
        self.init(reading, unit: model.units.kind, minimumCount)
    }

    private init(_ reading: UnitReading, unit: UnitLayout.Kind, _ minimumCount: Int) {
        let labels = reading.labels
        var concentration = 0.0
        var active = 0
        for statistic in reading.groups {
            for unit in 0..<statistic.experts where statistic.count(unit) >= minimumCount {
                active += 1
                concentration += reading.tokenConcentration(statistic, unit)
            }
        }
        self.unit = unit
        self.labels = labels
        units = reading.groups.reduce(0) { $0 + $1.experts }
        activeUnits = active
        tokenConcentration = concentration / Double(max(1, active))
        measured = reading.measures(0..<labels, minimumCount)
        shuffled = reading.measures(labels..<(2 * labels), minimumCount)
    }
}

/// Statistics of all units, for the documents' labels followed by as many shuffled ones.
private struct UnitReading {
    let labels: Int
    let groups: [GroupStatistics]
    private let labelTokens: [Double]
    private let tokenIDs: [Int32]
    private static let top = 20

    init(
        _ documents: LabelledDocuments, labels: Int, _ model: MonetLanguageModel, _ backend: any Backend,
        _ seed: UInt64, _ progress: (Int) -> Bool
    ) throws {
        self.labels = labels
        let units = model.units
        try MemoryLimits.require(
            MemoryLimits.product(
                units.count,
                GroupStatistics.bytesPerExpert(labels: 2 * labels, top: Self.top, keepsSamples: false)),
            for: "the statistics of \(units.count.grouped) \(units.kind.rawValue) on \(labels) labels")
        let groups = (0..<units.groups).map { _ in
            GroupStatistics(experts: units.unitsPerGroup, labels: 2 * labels, top: Self.top)
        }
        let deal = LabelDeal(documents, labels: labels, seed: seed)
        var labelTokens = Array(repeating: 0.0, count: 2 * labels)
        var tokenIDs: [Int32] = []
        let reader = DocumentReader(model: model, backend: backend)
        try reader.forEachBatch(of: documents) { batch in
            var readers = batch.output.groups.map { (group: $0.group, scores: $0.reader()) }
            var row = 0
            for piece in batch.pieces {
                let label = documents.labels(piece.document)[0]
                for (place, token) in piece.tokens.enumerated() {
                    let numbers =
                        label < 0
                        ? [] : [label, labels + deal(piece.document, token: piece.start + place)]
                    for number in numbers { labelTokens[number] += 1 }
                    let number = UInt32(tokenIDs.count)
                    tokenIDs.append(token)
                    for index in readers.indices {
                        let statistic = groups[readers[index].group]
                        readers[index].scores.visit(row) { unit, score in
                            statistic.add(score, expert: unit, token: number, labels: numbers)
                        }
                    }
                    row += 1
                }
            }
            return progress(tokenIDs.count)
        }
        self.groups = groups
        self.labelTokens = labelTokens
        self.tokenIDs = tokenIDs
    }

    func tokenConcentration(_ statistic: GroupStatistics, _ unit: Int) -> Double {
        var scores: [Int32: Double] = [:]
        for (score, token) in statistic.topTokens(unit) {
            scores[tokenIDs[Int(token)], default: 0] += Double(score)
        }
        let sum = scores.values.reduce(0, +)
        return sum > 0 ? (scores.values.max() ?? 0) / sum : 0
    }

    func measures(_ range: Range<Int>, _ minimumCount: Int) -> Monosemanticity.LabelMeasures {
        var entropy = 0.0
        var active = 0
        var specialists: [Double] = []
        var preferring: [Set<Int>] = range.map { _ in [] }
        for (group, statistic) in groups.enumerated() {
            var (own, ownActive) = (0, 0)
            for unit in 0..<statistic.experts where statistic.count(unit) >= minimumCount {
                ownActive += 1
                let means = Array(statistic.labelMeans(unit, labelTokens)[range])
                guard let specialty = LabelSpecialty(means: means) else { continue }
                entropy += specialty.entropy
                if specialty.ratio >= 2 { own += 1 }
                let mean = means.reduce(0, +) / Double(means.count)
                for (label, value) in means.enumerated() where value >= 2 * mean {
                    preferring[label].insert(group * statistic.experts + unit)
                }
            }
            active += ownActive
            specialists.append(Double(own) / Double(max(1, ownActive)))
        }
        let pairs = preferring.indices.flatMap { a in ((a + 1)..<preferring.count).map { (a, $0) } }
        let overlaps = pairs.map { a, b in
            Double(preferring[a].intersection(preferring[b]).count)
                / Double(max(1, preferring[a].union(preferring[b]).count))
        }
        let counts = groups.map { statistic in
            (0..<statistic.experts).count { statistic.count($0) >= minimumCount }
        }
        let all = zip(specialists, counts).reduce(0) { $0 + $1.0 * Double($1.1) }
        return Monosemanticity.LabelMeasures(
            entropy: entropy / Double(max(1, active)), specialists: all / Double(max(1, active)),
            specialistsByGroup: specialists,
            overlap: overlaps.reduce(0, +) / Double(max(1, overlaps.count)))
    }
}

/// Labels assigned at random to blocks of adjacent tokens, in the proportions of the true ones.
///
/// Blocks, not documents, because a label with a few long documents would keep their character.
private struct LabelDeal {
    private static let block = 64
    private let seed: UInt64
    /// Tokens of the labels up to each.
    private var sums: [Int] = []

    init(_ documents: LabelledDocuments, labels: Int, seed: UInt64) {
        self.seed = seed
        var tokens = Array(repeating: 0, count: labels)
        for document in 0..<documents.count {
            let label = documents.labels(document)[0]
            if label >= 0 { tokens[label] += documents.tokenCount(document) }
        }
        for count in tokens { sums.append((sums.last ?? 0) + count) }
    }

    /// The label of a token's block.
    func callAsFunction(_ document: Int, token: Int) -> Int {
        var generator = SplitMix64(
            seed: seed &+ UInt64(document) &* 0x9e37_79b9 &+ UInt64(token / Self.block) << 40)
        let place = Int(generator.next() % UInt64(max(1, sums.last ?? 1)))
        return sums.firstIndex { place < $0 } ?? 0
    }
}

extension Monosemanticity {
    /// The measures as JSON.
    public func json() -> JSONValue {
        func measures(_ measures: LabelMeasures) -> JSONValue {
            [
                "label_entropy": .number(measures.entropy), "specialists": .number(measures.specialists),
                "specialists_by_group": .array(measures.specialistsByGroup.map { .number($0) }),
                "overlap": .number(measures.overlap),
            ]
        }
        return [
            "unit": .string(unit.rawValue), "units": .integer(units), "active_units": .integer(activeUnits),
            "labels": .integer(labels), "token_concentration": .number(tokenConcentration),
            "measured": measures(measured), "shuffled": measures(shuffled),
        ]
    }
}
