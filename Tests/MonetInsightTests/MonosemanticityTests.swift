import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

@Suite struct MonosemanticityTests {
    /// Entropy and specialists of experts, recounted from the index's label means.
    @Test func expertsAreMeasuredAsTheIndexSaysOfThem() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            let found = try Monosemanticity(
                of: documents, model: model, backend: CPUBackend(), minimumCount: 3)
            var settings = ExpertIndexBuilder.Settings()
            settings.top = 20
            let builder = try ExpertIndexBuilder(
                model: model, modelPath: "", tokenizer: nil, documents: documents, settings: settings,
                backend: CPUBackend())
            #expect(try builder.build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite")
            var (entropy, specialists, concentration, active) = (0.0, 0, 0.0, 0)
            for group in 0..<2 {
                for number in 0..<100 {
                    let dossier = try index.dossier(of: UnitID(group: group, index: number))
                    if dossier.count < 3 { continue }
                    active += 1
                    concentration += dossier.tokenConcentration
                    let means = dossier.labels[0].labels.map(\.mean)
                    let sum = means.reduce(0, +)
                    if sum == 0 { continue }
                    entropy += means.reduce(0) { $1 > 0 ? $0 - $1 / sum * log2($1 / sum) : $0 }
                    specialists += means[0] >= 2 * means[1] ? 1 : 0
                }
            }
            #expect(found.unit == .experts && found.units == 200 && found.labels == 3)
            #expect(found.activeUnits == active && active > 50)
            // Label means are float32 in the index.
            #expect(abs(found.measured.entropy - entropy / Double(active)) < 1e-5)
            #expect(abs(found.measured.specialists - Double(specialists) / Double(active)) < 1e-9)
            #expect(abs(found.tokenConcentration - concentration / Double(active)) < 1e-6)
            #expect(found.shuffled != found.measured)
        }
    }

    /// A neuron's mean absolute activation, against `LabelStatistics`.
    @Test func neuronsAreMeasuredByTheirAbsoluteActivation() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model(.dense)
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            let found = try Monosemanticity(
                of: documents, model: model, backend: CPUBackend(), minimumCount: 1)
            let neurons = try LabelStatistics(of: documents, model: model, backend: CPUBackend())
            var entropy = 0.0
            for layer in neurons.means {
                for unit in 0..<neurons.units.unitsPerGroup {
                    let means = (0..<3).map { layer[unit * 3 + $0] }
                    let sum = means.reduce(0, +)
                    entropy += means.reduce(0) { $1 > 0 ? $0 - $1 / sum * log2($1 / sum) : $0 }
                }
            }
            #expect(found.unit == .neurons && found.activeUnits == 150)
            #expect(abs(found.measured.entropy - entropy / 150) < 1e-9)
            let unlabelled = LabelledDocuments(tokens: [[1, 2]], origin: "x")
            #expect(throws: InsightError.noLabels(origin: "x")) {
                try Monosemanticity(of: unlabelled, model: model, backend: CPUBackend())
            }
        }
    }

    /// With a token's own embedding in the expert's place the model must answer as for that token.
    @Test func anExpertOfOneTokenAnswersAsTheToken() throws {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        let model = try ExpertIndexTests.model()
        let backend = CPUBackend()
        let holder = try #require(tokenizer.unknownID)
        let ids = try tokenizer.encode(
            "the " + tokenizer.piece(holder) + " is", addBegin: true, parsingSpecial: true)
        let place = try #require(ids.firstIndex(of: holder))
        let word = try #require(tokenizer.encode("sea").last)
        var named = ids
        named[place] = word
        let table = try model.parameters("model.embed_tokens.weight").tensor.floats()
        let width = model.configuration.hiddenSize
        let embedding = Variable(
            Tensor(Array(table[(Int(word) * width)..<((Int(word) + 1) * width)]), shape: [1, width]))
        let segments: [ForwardSegment] = [
            .tokens(Array(ids[..<place])), .embeddings(embedding), .tokens(Array(ids[(place + 1)...])),
        ]
        let replaced = try model.forward(
            ForwardInput([ForwardSequence(segments: segments)]), on: backend
        ).hidden.value
        let expected = try model.forward(ForwardInput([named]), on: backend).hidden.value
        #expect(replaced.floats() == expected.floats())

        let explanation = try SelfExplanation(
            model: model, tokenizer: tokenizer, backend: backend, prompt: "the {expert} is")
        let answers = try explanation.answers(for: [word], samples: 2, seed: 4, maxNewTokens: 5)
        #expect(answers.count == 2)
        #expect(try answers == explanation.answers(for: [word], samples: 2, seed: 4, maxNewTokens: 5))
        #expect(!explanation.isCredible && explanation.promptLoss > 4)
        #expect(throws: InsightError.self) {
            try SelfExplanation(model: model, tokenizer: tokenizer, backend: backend, prompt: "no place")
        }
    }

    @Test func explanationsStayInTheIndex() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            #expect(try ExpertIndexTests.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", writable: true)
            let expert = try #require(index.find(ExpertQuery()).first?.expert)
            #expect(try index.topTokenIDs(of: expert).count == 4)
            for text in ["a zebra", "second \"quoted\""] {
                try index.replaceExplanations(
                    of: expert, by: [.init(text: text, prompt: "p", isCredible: false)])
                let dossier = try ExpertIndex(path: folder + "/i.sqlite").dossier(of: expert)
                #expect(dossier.explanations.map(\.text) == [text])
                #expect(
                    dossier.text().contains("noise")
                        && !dossier.html(origin: PageOrigin(command: "", model: "")).contains(text))
            }
            let readOnly = try ExpertIndex(path: folder + "/i.sqlite")
            #expect(throws: InsightError.self) { try readOnly.replaceExplanations(of: expert, by: []) }
        }
    }
}
