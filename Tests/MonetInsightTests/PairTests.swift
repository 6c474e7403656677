import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// The test of pairs against a recount with the decoder in double precision, and on halves whose relation is known.
@Suite struct PairTests {
    private func documents(_ labels: [Int]) throws -> LabelledDocuments {
        var source = TensorSource(seed: 11)
        let tokens = labels.map { _ in source.ids(20, below: 67) }
        return try LabelledDocuments(
            tokens: tokens, labels: labels.map { [$0] },
            labelSets: [.init(name: "label", labels: ["a", "b"])],
            origin: "test")
    }

    /// Firing tokens by head and side, the last token of each document left out.
    private struct Recount {
        var left: [[Set<Int>]] = []
        var right: [[Set<Int>]] = []
        var labels: [Int] = []
        var next: [Int] = []

        init(_ model: MonetLanguageModel, _ documents: LabelledDocuments, layer: Int) {
            let settings = model.configuration.experts ?? ExpertSettings()
            left = Array(
                repeating: Array(repeating: [], count: settings.perSide), count: settings.heads)
            right = left
            for document in 0..<documents.count {
                let tokens = documents.tokens(document)
                guard let routing = ReferenceModel(model)([tokens], strengths: [:]).routings[layer] else {
                    continue
                }
                for token in tokens.indices.dropLast() {
                    for head in 0..<settings.heads {
                        for half in 0..<settings.perSide {
                            let place = (token * settings.heads + head) * settings.perSide + half
                            if routing.left.values[place] > 0 { left[head][half].insert(labels.count) }
                            if routing.right.values[place] > 0 { right[head][half].insert(labels.count) }
                        }
                    }
                    labels.append(documents.labels(document)[0])
                    next.append(Int(tokens[token + 1]))
                }
            }
        }

        func pair(_ i: Int, _ j: Int) -> Set<Int> {
            left.indices.reduce(into: Set<Int>()) { $0.formUnion(left[$1][i].intersection(right[$1][j])) }
        }

        func any(_ side: [[Set<Int>]], _ half: Int) -> Set<Int> {
            side.reduce(into: Set<Int>()) { $0.formUnion($1[half]) }
        }

        /// KL(P(class | event) ‖ P(class)).
        func bitsPerFiring(_ event: Set<Int>, _ classes: [Int]) -> Double {
            let values = Set(event.map { classes[$0] })
            return values.reduce(0) { sum, label in
                let share = Double(event.count { classes[$0] == label }) / Double(event.count)
                let base = Double(classes.count { $0 == label }) / Double(classes.count)
                return sum + share * log2(share / base)
            }
        }

        /// I(event; class | cell) · p(cell), from the joint distribution.
        func information(_ event: Set<Int>, _ classes: [Int], within cell: Set<Int>) -> Double {
            var joint: [Bool: [Int: Double]] = [:]
            for token in cell { joint[event.contains(token), default: [:]][classes[token], default: 0] += 1 }
            let n = Double(cell.count)
            var bits = 0.0
            for (_, row) in joint {
                let p = row.values.reduce(0, +) / n
                for (label, count) in row {
                    let q = joint.values.reduce(0) { $0 + ($1[label] ?? 0) } / n
                    bits += count / n * log2(count / n / (p * q))
                }
            }
            return bits * n / Double(classes.count)
        }
    }

    @Test(arguments: [Family.vertical, .horizontal])
    func countsAndInformationAreThoseOfARecount(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 3)
        let documents = try documents([0, 1, 1, 0, 1, 0])
        let layer = model.units.layersOfGroup[1].lowerBound
        let recount = Recount(model, documents, layer: layer)
        let experts = (0..<100).map { UnitID(group: 1, index: $0) }
        let test = try PairTest(of: experts, on: documents, model: model)
        #expect(test.pairs.count == 100 && test.tokens == 6 * 19 && test.labels == ["a", "b"])
        // Next tokens that few tokens have are one class.
        let next = recount.next.map { token in recount.next.count { $0 == token } < 10 ? -1 : token }
        var fired = 0
        for pair in test.pairs {
            let (i, j) = (pair.expert.index / 10, pair.expert.index % 10)
            let event = recount.pair(i, j)
            let (lefts, rights) = (recount.any(recount.left, i), recount.any(recount.right, j))
            fired += event.isEmpty ? 0 : 1
            #expect(pair.count == event.count && Int(pair.joint.observed) == event.count)
            #expect(pair.leftCount == lefts.count && pair.rightCount == rights.count)
            let cell = lefts.intersection(rights)
            for (found, expected) in [
                (pair.labelsGivenHalves, recount.information(event, recount.labels, within: cell)),
                (pair.nextTokensGivenHalves, recount.information(event, next, within: cell)),
            ] {
                #expect(abs((found?.observed ?? .nan) - (cell.isEmpty ? 0 : expected)) < 1e-9)
            }
            // What permutations keep: a pair of halves moved within a label is not more frequent than either half.
            #expect((pair.jointGivenLabel?.largest ?? 0) <= Double(min(lefts.count, rights.count)))
        }
        #expect(fired > 10)
        // With one permutation in which the pair fires as often or more, all observed firings are compared.
        var settings = PairTest.Settings()
        settings.permutations = 1
        var compared = 0
        for pair in try PairTest(of: experts, on: documents, model: model, settings: settings).pairs {
            guard let joint = pair.jointGivenLabel, joint.largest >= joint.observed, pair.count > 0 else {
                continue
            }
            let event = recount.pair(pair.expert.index / 10, pair.expert.index % 10)
            let expected = recount.bitsPerFiring(event, recount.labels)
            #expect(abs((pair.labels?.observed ?? .nan) - expected) < 1e-9)
            compared += 1
        }
        #expect(compared > 5)
        #expect(
            try PairTest(of: experts, on: documents, model: model) == test, "the same seed gives the same")
    }

    /// With one head, a pair is the conjunction of its halves, and says nothing once both are known.
    @Test func oneHeadSaysNothingGivenItsHalves() throws {
        var configuration = smallConfiguration(.vertical)
        configuration.feedForward = VerticalExperts(
            ExpertSettings(width: 6, heads: 1, perSide: 10, topK: 3, layersPerRouter: 2))
        let model = try scrambledModel(configuration, seed: 4)
        let test = try PairTest(
            of: (0..<100).map { UnitID(group: 0, index: $0) }, on: try documents([0, 1, 0, 1]), model: model)
        #expect(test.heads == 1)
        #expect(test.pairs.allSatisfy { ($0.labelsGivenHalves?.observed ?? 1) < 1e-12 })
        #expect(test.pairs.allSatisfy { $0.nextTokensGivenHalves.observed < 1e-12 })
    }

    /// Halves whose relation is known, many of them, in documents of one label each.
    private enum Relation: CaseIterable {
        /// Independent given the label.
        case independent
        /// Together three times as often as that, equally in every label.
        case lifted
        /// Each alone the same in every label, together only in one.
        case specific
    }

    private func planted(_ relation: Relation, pairs: Int) -> PairTrials {
        var generator = SplitMix64(seed: 17)
        let tokens = 6000
        let labels = (0..<tokens).map { Int32($0 / 50 % 2) }
        var (left, right) = ([[Int32]](repeating: [], count: pairs), [[Int32]](repeating: [], count: pairs))
        for pair in 0..<pairs {
            for token in 0..<tokens {
                let label = labels[token]
                let (p, q) = relation == .specific ? (0.1, 0.1) : label == 0 ? (0.16, 0.04) : (0.05, 0.15)
                // The chance that both fire, and that each fires alone.
                let both: Double =
                    switch relation {
                    case .independent: p * q
                    case .lifted: 3 * p * q
                    case .specific: label == 0 ? 0 : 2 * p * q
                    }
                let draw = generator.nextUnit()
                if draw < p { left[pair].append(Int32(token)) }
                if draw < both || (draw >= p && draw < p + q - both) { right[pair].append(Int32(token)) }
            }
        }
        let next = (0..<tokens).map { _ in Int32(generator.next() % 20) }
        return PairTrials(
            HalfFirings(heads: 1, halves: pairs, left: left, right: right, labels: labels, nextTokens: next),
            labels: 2, PairTest.Settings())
    }

    /// By chance, 5% of pairs are beyond 19 permutations; a relation that is there is found in nearly all.
    @Test func relationsAreFoundWhereTheyAre() {
        let count = 60
        for relation in Relation.allCases {
            let trials = planted(relation, pairs: count)
            let pairs = (0..<count).map {
                trials.test(UnitID(group: 0, index: $0 * count + $0), left: $0, right: $0)
            }
            func share(_ measure: (PairTest.Pair) -> PairTest.Measure?) -> Double {
                Double(pairs.count { (measure($0)?.pValue ?? 1) <= 0.05 }) / Double(count)
            }
            let (joint, label) = (share { $0.jointGivenLabel }, share { $0.labels })
            #expect(
                relation == .lifted ? joint > 0.9 : relation == .specific || joint < 0.2,
                "\(relation): \(joint)")
            #expect(relation == .specific ? label > 0.9 : label < 0.2, "\(relation): \(label)")
            #expect(share { $0.nextTokens } < 0.2, "next tokens are drawn at random")
        }
    }

    @Test func aMeasureComparesWithItsPermutations() {
        let measure = PairTest.Measure(observed: 3, permuted: [1, 2, 3, 4])
        #expect(measure.mean == 2.5 && measure.largest == 4 && measure.excess == 0.5)
        #expect(measure.pValue == 3.0 / 5, "two of four are as large, and the observed one counts")
        #expect(PairTest.Measure(observed: 5, permuted: [1, 2, 3, 4]).pValue == 1.0 / 5)
    }

    @Test func badInput() throws {
        let dense = try scrambledModel(smallConfiguration(.dense), seed: 3)
        #expect(throws: InsightError.self) {
            try PairTest(of: [UnitID(group: 0, index: 0)], on: try documents([0, 1]), model: dense)
        }
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
        #expect(throws: CancellationError.self) {
            try PairTest(of: [UnitID(group: 0, index: 0)], on: try documents([0, 1]), model: model) { _, _ in
                false
            }
        }
        let empty = LabelledDocuments(tokens: [[]], origin: "nothing")
        let none = try PairTest(of: [UnitID(group: 0, index: 0)], on: empty, model: model)
        #expect(none.tokens == 0 && none.pairs[0].count == 0 && none.pairs[0].labels == nil)
        #expect(none.summary(group: 5) == nil)
    }
}
