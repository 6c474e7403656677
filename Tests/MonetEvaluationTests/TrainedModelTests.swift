import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

/// What only a trained model shows, on the one that the repository ships.
@Suite struct TrainedModelTests {
    private static let repository = URL(fileURLWithPath: Fixture.root).deletingLastPathComponent()
        .deletingLastPathComponent().path
    private static let folder = repository + "/Models/monet-vd-8M-33MT"

    /// Documents of a few domains, of which one half finds experts and the other measures.
    private func documents(_ tokenizer: Tokenizer, isForFinding: Bool) throws -> LabelledDocuments {
        let names = ["scripture", "python", "people", "plants"]
        var (tokens, labels): ([[Int32]], [[Int]]) = ([], [])
        for (label, name) in names.enumerated() {
            var left = 6000
            for line in try TextFile.read("\(Self.repository)/Corpus/\(name).jsonl").split(separator: "\n")
                .enumerated() where line.offset % 2 == (isForFinding ? 0 : 1) && left > 0
            {
                let text =
                    try JSONValue(parsing: String(line.element), source: name)["text"]?.stringValue ?? ""
                let ids = Array(try tokenizer.encode(text, addBegin: true).prefix(min(left, 512)))
                guard ids.count > 1 else { continue }
                left -= ids.count
                tokens.append(ids)
                labels.append([label])
            }
        }
        return try LabelledDocuments(
            tokens: tokens, labels: labels,
            labelSets: [LabelledDocuments.LabelSet(name: "label", labels: names)], origin: "Corpus")
    }

    /// It predicts text far better than the frequencies of tokens do, whose entropy is the loss of a model that
    /// ignores what stands before.
    @Test func usesWhatStandsBefore() throws {
        let model = try MonetLanguageModel.load(Self.folder)
        let documents = try documents(Tokenizer(folder: Self.folder), isForFinding: false)
        var counts: [Int32: Double] = [:]
        var total = 0.0
        for document in 0..<documents.count {
            for token in documents.tokens(document).dropFirst() {
                counts[token, default: 0] += 1
                total += 1
            }
        }
        let entropy = counts.values.reduce(0) { $0 - $1 / total * log($1 / total) }
        let score = try HeldOutScorer(model: model).total(documents)
        #expect(score.loss < entropy - 1.5, "\(score.loss) \(entropy)")
        #expect(score.accuracy > 0.25)
    }

    /// Experts found on some texts of a domain carry what other texts of it need, and little of what others do.
    @Test(arguments: ["scripture", "python"]) func specialistsCarryTheirDomain(name: String) throws {
        let model = try MonetLanguageModel.load(Self.folder)
        let tokenizer = try Tokenizer(folder: Self.folder)
        let statistics = try LabelStatistics(
            of: documents(tokenizer, isForFinding: true), model: model)
        let label = try #require(statistics.labels.firstIndex(of: name))
        let mask = statistics.specialists(of: label, SpecialistCriterion(minimumCount: 20))
        let random = statistics.firingCounts.matchedMask(mask, seed: 1)
        let measured = try documents(tokenizer, isForFinding: false)
        let scorer = HeldOutScorer(model: model)
        let (before, without, control) = (
            try scorer.scores(measured), try scorer.scores(measured, mask: mask),
            try scorer.scores(measured, mask: random)
        )
        let damage = zip(before, without).map { $1.loss - $0.loss }
        let others = damage.indices.filter { $0 != label }.map { damage[$0] }
        #expect(mask.description != random.description)
        #expect(damage[label] > 0.1, "\(damage)")
        #expect(damage[label] > 3 * (others.max() ?? 0), "\(damage)")
        #expect(damage[label] > 2 * (control[label].loss - before[label].loss), "\(damage)")
    }

    /// The sparse execution of trained routers, whose selections overlap as those of random ones do not, gives what all
    /// experts give.
    @Test func sparseAndDenseExecutionAgree() throws {
        let model = try MonetLanguageModel.load(Self.folder)
        let ids = try Tokenizer(folder: Self.folder).encode(
            "And God said, Let there be light: and there was light.", addBegin: true)
        let logits = try [ExpertExecution.sparse, .dense].map { execution in
            let backend = CPUBackend(expertExecution: execution)
            return try model.logits(
                model.forward(ForwardInput([ids]), on: backend).hidden.value, on: backend)
        }
        // float32 sums of the same terms in other orders.
        #expect(relativeError(logits[0], logits[1]) < 1e-4)
    }
}
