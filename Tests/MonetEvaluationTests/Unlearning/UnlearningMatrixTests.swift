import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

@Suite struct UnlearningMatrixTests {
    private func documents(_ folder: String) throws -> LabelledDocuments {
        try AtomicFile.write(
            """
            {"text": "the sea and the ship on the sea", "label": "sea"}
            {"text": "the law of the land", "label": "law"}
            {"text": "a ship in the sea", "label": "sea"}
            {"text": "no label here", "label": null}

            """, to: folder + "/d.jsonl")
        return try LabelledDocuments(
            sources: [CorpusSource(path: folder + "/d.jsonl", labelKey: "other")],
            tokenizer: Tokenizer(path: Fixture.path("text/trained.model")))
    }

    private func model(_ kind: Family) throws -> MonetLanguageModel {
        var c = smallConfiguration(kind)
        c.vocabularySize = try Tokenizer(path: Fixture.path("text/trained.model")).vocabularySize
        return try scrambledModel(c, seed: 33)
    }

    /// Loss and accuracy of every label against logits in double precision.
    @Test func scoresAgreeWithTheReference() throws {
        try withTemporaryFolder { folder in
            let (model, documents) = (try model(.vertical), try documents(folder))
            var mask = UnitMask(unitsPerGroup: 100)
            mask.remove(0..<40, group: 0)
            let scores = try HeldOutScorer(model: model, backend: CPUBackend())
                .scores(documents, mask: mask)
            let strengths = [0: Dictionary(uniqueKeysWithValues: (0..<40).map { ($0, 0.0) })]
            var expected = [HeldOutScore(), HeldOutScore()]
            for document in 0..<documents.count {
                let (tokens, label) = (documents.tokens(document), documents.labels(document)[0])
                if label < 0 { continue }
                let logits = ReferenceModel(model)([tokens], strengths: strengths).logits
                for position in 0..<(tokens.count - 1) {
                    let line = (0..<logits.columns).map { logits[position, $0] }
                    let target = Int(tokens[position + 1])
                    let largest = line.max() ?? 0
                    expected[label].tokens += 1
                    expected[label].negativeLogLikelihood +=
                        largest + log(line.reduce(0) { $0 + exp($1 - largest) }) - line[target]
                    expected[label].hits += line[target] == largest ? 1 : 0
                }
            }
            for (found, expected) in zip(scores, expected) {
                #expect(found.tokens == expected.tokens && found.hits == expected.hits)
                #expect(abs(found.loss - expected.loss) < 1e-5 * expected.loss)
            }
        }
    }

    /// Zeroed units are columns of zeros in the down-projection.
    @Test func removedNeuronsAreZeroColumns() throws {
        try withTemporaryFolder { folder in
            let (model, documents) = (try model(.dense), try documents(folder))
            let removed = [0: [3, 49], 2: [0]]
            let edited = try self.model(.dense)
            for (layer, units) in removed {
                let weight = try edited.parameters("model.layers.\(layer).mlp.down_proj.weight").tensor
                var values = weight.floats()
                for unit in units {
                    for row in 0..<weight.rowCount { values[row * weight.columnCount + unit] = 0 }
                }
                try weight.write(values)
            }
            let backend = CPUBackend()
            var mask = UnitMask(model.units)
            for (layer, units) in removed { mask.remove(units, group: layer) }
            let found = try HeldOutScorer(model: model, backend: backend).scores(documents, mask: mask)
            let expected = try HeldOutScorer(model: edited, backend: backend).scores(documents)
            let untouched = try HeldOutScorer(model: model, backend: backend).scores(documents)
            for label in 0..<2 {
                #expect(abs(found[label].loss - expected[label].loss) < 1e-6)
                #expect(abs(found[label].loss - untouched[label].loss) > 1e-6)
            }
        }
    }

    @Test func averagesAreThoseOfTheCells() throws {
        func score(_ loss: Double, _ hits: Int) -> HeldOutScore {
            var score = HeldOutScore()
            score.tokens = 10
            score.negativeLogLikelihood = 10 * loss
            score.hits = hits
            return score
        }
        let matrix = UnlearningMatrix(
            labels: ["a", "b"], baseline: [score(2, 5), score(3, 4)],
            rows: [
                .init(removed: 7, scores: [score(2.5, 3), score(3.1, 4)]),
                .init(removed: 9, scores: [score(1.9, 5), score(3.2, 2)]),
            ],
            controls: [
                [
                    .init(removed: 7, meanFrequency: 0.25, scores: [score(2.1, 5), score(3, 0)]),
                    .init(removed: 7, meanFrequency: 0.75, scores: [score(2.2, 5), score(3.4, 0)]),
                ],
                [
                    .init(removed: 9, scores: [score(2, 0), score(3.3, 4)]),
                    .init(removed: 9, scores: [score(2, 0), score(3.1, 4)]),
                ],
            ])
        let loss = matrix.summary(.loss)
        #expect(abs(loss.target - 0.35) < 1e-12 && abs(loss.others) < 1e-12 && loss.removed == 8)
        // Draw 0 costs the targets 0.1 and 0.3, draw 1 0.2 and 0.1: means 0.2 and 0.15.
        let random = try #require(loss.random)
        #expect(abs(random.mean - 0.175) < 1e-12)
        #expect(abs(random.deviation - 0.05 / 2.0.squareRoot()) < 1e-12)
        let control = try #require(matrix.control(0, .loss))
        #expect(abs(control.target.mean - 0.15) < 1e-12 && abs(control.others.mean - 0.2) < 1e-12)
        #expect(abs(control.target.deviation - 0.1 / 2.0.squareRoot()) < 1e-12)
        #expect(abs(control.others.deviation - 0.4 / 2.0.squareRoot()) < 1e-12)
        let controls = matrix.controlTable(.loss)
        #expect(controls.contains("+0.150 ± 0.071") && controls.contains("50.00%"))
        #expect(controls.split(separator: "\n").count == 3)
        let json = matrix.json()["random"]?["a"]
        #expect(json?["draws"]?.arrayValue?.count == 2)
        #expect(abs((json?["loss"]?["target"]?["mean"]?.doubleValue ?? 0) - 0.15) < 1e-12)
        let accuracy = matrix.summary(.accuracy)
        #expect(abs(accuracy.target - 0.2) < 1e-12 && abs(accuracy.others) < 1e-12)
        let table = matrix.table(.loss)
        #expect(table.contains("+0.500") && table.contains("-0.100") && table.contains("2.000"))
        let svg = matrix.heatMap(.loss, title: "a < b").svg()
        #expect(svg.contains("a &lt; b") && svg.contains("+0.50") && svg.hasPrefix("<svg"))
        #expect(matrix.json()["summary"]?["loss"]?["removed"]?.doubleValue == 8)
    }

    @Test func whatCannotBeMeasuredIsRefused() throws {
        try withTemporaryFolder { folder in
            let model = try model(.vertical)
            let unlabelled = LabelledDocuments(tokens: [[1, 2, 3]], origin: "x")
            #expect(throws: InsightError.noLabels(origin: "x")) {
                try UnlearningExperiment(model: model, documents: unlabelled, backend: CPUBackend())
            }
            try AtomicFile.write(
                #"{"text": "the sea", "label": "a"}"# + "\n" + #"{"text": "a ship", "label": "b"}"# + "\n",
                to: folder + "/d.jsonl")
            let documents = try LabelledDocuments(
                sources: [CorpusSource(path: folder + "/d.jsonl")],
                tokenizer: Tokenizer(path: Fixture.path("text/trained.model")))
            #expect(throws: UnlearningExperiment.Stopped.self) {
                try UnlearningExperiment(model: model, documents: documents, backend: CPUBackend()) { _ in
                    false
                }
            }
            let experiment = try UnlearningExperiment(
                model: model, documents: documents, backend: CPUBackend())
            // An empty mask changes nothing, and a random one of its size neither.
            let matrix = try experiment.matrix(
                [UnitMask(unitsPerGroup: 100), UnitMask(unitsPerGroup: 100)],
                counts: FiringCounts(
                    units: model.units, counts: Array(repeating: Array(repeating: 1, count: 100), count: 2),
                    tokens: 1), draws: 1)
            #expect(matrix.summary(.loss).target == 0 && matrix.summary(.loss).random?.mean == 0)
        }
    }
}
