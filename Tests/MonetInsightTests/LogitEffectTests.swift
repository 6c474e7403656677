import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

/// What an expert promotes, against a model in double precision with and without it.
@Suite struct LogitEffectTests {
    /// Differences of log p of some 1e-2 from float32 logits that agree to 1e-6: 1e-4 of the largest.
    @Test(arguments: [Family.vertical, .horizontal])
    func agreesWithTheReference(kind: Family) throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model(kind)
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            #expect(try ExpertIndexTests.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
            let reference = ReferenceModel(model)
            var query = ExpertQuery()
            query.limit = 3
            for id in try index.find(query).map(\.expert) {
                let effects = try #require(
                    try index.logitEffects(
                        of: id, model: model, backend: CPUBackend(), limit: 5, places: 3, before: 7))
                let activations = try index.dossier(of: id, context: 0, activations: 3).activations
                #expect(effects.places == activations.count)
                var logChanges = [Double](repeating: 0, count: model.configuration.vocabularySize)
                var changes = [Double](repeating: 0, count: model.configuration.vocabularySize)
                for activation in activations {
                    let tokens = documents.tokens(activation.document)
                    let context = Array(tokens[max(0, activation.position - 7)...activation.position])
                    let own = logProbabilities(reference([context]).logits)
                    let without = logProbabilities(
                        reference([context], strengths: [id.group: [id.index: 0]]).logits)
                    for token in changes.indices {
                        let count = Double(activations.count)
                        changes[token] += (exp(own[token]) - exp(without[token])) / count
                        logChanges[token] += (own[token] - without[token]) / count
                    }
                }
                let largest = changes.map(abs).max() ?? 0
                #expect(largest > 1e-6, "\(id) does nothing")
                let sorted = changes.sorted(by: >)
                for (place, token) in effects.promoted.enumerated() {
                    #expect(abs(token.change - sorted[place]) < 1e-4 * max(largest, 1e-3))
                    // The text is that of a token with these changes.
                    let candidates = changes.indices.filter {
                        abs(changes[$0] - token.change) < 1e-4 * max(largest, 1e-3)
                            && abs(logChanges[$0] - token.logChange) < 1e-4
                    }
                    #expect(
                        try candidates.contains { id in
                            let piece = try tokenizer.piece(Int32(id))
                            // A byte stands for the character that it is, or for part of one.
                            return piece.hasPrefix("<0x")
                                ? token.text.count == 1
                                : piece.replacingOccurrences(of: "\u{2581}", with: " ") == token.text
                        }, "\(token)")
                }
                for (place, token) in effects.suppressed.enumerated() {
                    #expect(
                        abs(token.change - sorted[sorted.count - 1 - place]) < 1e-4 * max(largest, 1e-3))
                }
            }
        }
    }

    @Test func foreignModelsAndSilentExperts() throws {
        try withTemporaryFolder { folder in
            let model = try ExpertIndexTests.model()
            let documents = try ExpertIndexTests.documents(model.configuration.vocabularySize, in: folder)
            #expect(try ExpertIndexTests.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            #expect(throws: InsightError.self) {
                try index.logitEffects(
                    of: UnitID(group: 0, index: 1), model: ExpertIndexTests.model(.horizontal),
                    backend: CPUBackend())
            }
            let silent = try #require(
                try (0..<200).map { UnitID(group: $0 / 100, index: $0 % 100) }.first {
                    try index.dossier(of: $0).count == 0
                })
            #expect(try index.logitEffects(of: silent, model: model, backend: CPUBackend()) == nil)
        }
    }

    private func logProbabilities(_ logits: Reference) -> [Double] {
        let last = logits.shape[0] - 1
        let line = (0..<logits.columns).map { logits[last, $0] }
        let largest = line.max() ?? 0
        let logSum = largest + log(line.reduce(0) { $0 + exp($1 - largest) })
        return line.map { $0 - logSum }
    }
}
