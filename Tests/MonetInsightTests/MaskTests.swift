import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// What chooses masks.
@Suite struct MaskTests {
    /// Derivatives by strengths, as differences of the loss in double precision; the backward pass is
    /// float32, 1e-4 of the largest effect.
    @Test(arguments: Family.allCases)
    func effectsAreTheDerivativesOfTheLoss(kind: Family) throws {
        let model = try ExpertIndexTests.model(kind)
        let texts: [[Int32]] = [[1, 5, 9, 33, 66, 2, 8], [3, 4]]
        let effects = try UnitEffects(
            of: LabelledDocuments(tokens: texts, origin: "test"), model: model, backend: CPUBackend())
        #expect(effects.tokens == 7)
        let reference = ReferenceModel(model)
        func loss(_ strengths: [Int: [Int: Double]]) -> Double {
            var sum = 0.0
            for text in texts {
                let logits = reference([text], strengths: strengths).logits
                for position in 0..<(text.count - 1) {
                    let line = (0..<logits.columns).map { logits[position, $0] }
                    let largest = line.max() ?? 0
                    let total = line.reduce(0) { $0 + exp($1 - largest) }
                    sum += largest + log(total) - line[Int(text[position + 1])]
                }
            }
            return sum / 7
        }
        #expect(abs(effects.loss - loss([:])) < 1e-5)
        let largest = effects.values.flatMap { $0 }.map(abs).max() ?? 0
        #expect(largest > 1e-4)
        for group in effects.values.indices {
            let strongest = effects.values[group].indices.sorted {
                abs(effects.values[group][$0]) > abs(effects.values[group][$1])
            }
            for index in strongest.prefix(4) + strongest.suffix(1) {
                let step = 1e-4
                let slope =
                    (loss([group: [index: 1 + step]]) - loss([group: [index: 1 - step]])) / (2 * step)
                #expect(abs(effects.values[group][index] + slope) < 1e-4 * largest, "\(group)/\(index)")
            }
        }
        let raising = effects.strongest(3)
        #expect(raising.count == 3)
        #expect(raising.allSatisfy { effects.values[$0.group][$0.index] > 0 })
        #expect(effects.strongest(3, raising: false).allSatisfy { effects.values[$0.group][$0.index] < 0 })
    }

    /// Against Pearson's formula on whole lists; float32 scores, 1e-4.
    @Test(arguments: ScoreCorrelation.Level.allCases)
    func correlationsAgreeWithTheFormula(level: ScoreCorrelation.Level) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let c = model.configuration
            let e = try #require(c.experts)
            let documents = try ExpertIndexTests.documents(c.vocabularySize, in: folder)
            let found = try ScoreCorrelation(
                of: documents, level: level, model: model, backend: CPUBackend())
            let reference = ReferenceModel(model)
            var scores = Array(
                repeating: Array(repeating: [Double](), count: e.perSide * e.perSide),
                count: c.routerLayers.count)
            var numbers: [Double] = []
            for document in 0..<documents.count {
                let tokens = documents.tokens(document)
                let number = try #require(documents.number(document, token: 0))
                let routings = reference([tokens]).routings
                numbers += level == .token ? tokens.map { _ in number } : [number]
                for (group, layer) in c.routerLayers.enumerated() {
                    let (left, right) = try #require(routings[layer])
                    for index in scores[group].indices {
                        let (i, j) = (index / e.perSide, index % e.perSide)
                        let own = tokens.indices.map { token in
                            (0..<e.heads).reduce(0.0) { sum, head in
                                let row = (token * e.heads + head) * e.perSide
                                return sum + left.values[row + i] * right.values[row + j]
                            }
                        }
                        scores[group][index] +=
                            level == .token ? own : [own.reduce(0, +) / Double(own.count)]
                    }
                }
            }
            #expect(found.count == numbers.count)
            for group in scores.indices {
                for index in scores[group].indices {
                    let expected = pearson(scores[group][index], numbers)
                    #expect(abs(found.values[group][index] - expected) < 1e-4, "\(group)/\(index)")
                }
            }
            let chosen = found.units(above: 0.1)
            #expect(!chosen.isEmpty && chosen.allSatisfy { found.values[$0.group][$0.index] > 0.1 })
        }
    }

    private func pearson(_ x: [Double], _ y: [Double]) -> Double {
        let n = Double(x.count)
        let (mx, my) = (x.reduce(0, +) / n, y.reduce(0, +) / n)
        let xy = zip(x, y).reduce(0) { $0 + ($1.0 - mx) * ($1.1 - my) }
        let xx = x.reduce(0) { $0 + ($1 - mx) * ($1 - mx) }
        let yy = y.reduce(0) { $0 + ($1 - my) * ($1 - my) }
        return xx > 0 && yy > 0 ? xy / (xx * yy).squareRoot() : 0
    }

    @Test func numbersMustFitTheDocuments() throws {
        try withTemporaryFolder { folder in
            func documents(_ line: String) throws -> LabelledDocuments {
                try AtomicFile.write(line, to: folder + "/n.jsonl")
                return try LabelledDocuments(
                    sources: [.init(path: folder + "/n.jsonl")],
                    tokenizer: .init(path: Fixture.path("text/trained.model")), numberKey: "v")
            }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea"}"#) }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea", "v": [1]}"#) }
            #expect(throws: InsightError.self) { try documents(#"{"text": "the sea", "v": "much"}"#) }
            let numbered = try documents(#"{"text": "the sea", "v": 0.5}"#)
            #expect(numbered.number(0, token: 1) == 0.5)
        }
    }

    @Test func neuronsOfADenseModelAreCountedByLabel() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model(.dense)
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            let statistics = try LabelStatistics(of: documents, model: model, backend: CPUBackend())
            #expect(statistics.labels == ["sea", "law", "stone"] && statistics.units.unitsPerGroup == 50)
            for label in 0..<3 {
                let chosen = statistics.specialists(
                    of: label, SpecialistCriterion(ratio: 1.05, minimumCount: 20))
                for layer in chosen.groups {
                    for (unit, _) in chosen.entries(group: layer) {
                        let own = Array(statistics.means[layer][(unit * 3)..<(unit * 3 + 3)])
                        let others = own.indices.filter { $0 != label }.map { own[$0] }.max() ?? 0
                        #expect(own[label] >= 1.05 * others)
                        #expect(statistics.firingCounts.counts[layer][unit] >= 20)
                    }
                }
                #expect(statistics.strongest(of: label, count: 3).count <= 3)
            }
            let unlabelled = LabelledDocuments(tokens: [[1, 2]], origin: "x")
            #expect(throws: InsightError.noLabels(origin: "x")) {
                try LabelStatistics(of: unlabelled, model: model, backend: CPUBackend())
            }
        }
    }
}
