import Foundation
import MonetCompute
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
        let all = Set(recount.labels.indices)
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
                (pair.labels, recount.information(event, recount.labels, within: all)),
                (pair.nextTokens, recount.information(event, recount.next, within: all)),
                (pair.labelsGivenHalves, recount.information(event, recount.labels, within: cell)),
                (pair.nextTokensGivenHalves, recount.information(event, recount.next, within: cell)),
            ] {
                #expect(abs((found?.observed ?? .nan) - (cell.isEmpty ? 0 : expected)) < 1e-9)
            }
            // What permutations keep: a pair of halves moved within a label is not more frequent than either half.
            #expect((pair.jointGivenLabel?.largest ?? 0) <= Double(min(lefts.count, rights.count)))
        }
        #expect(fired > 10)
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
