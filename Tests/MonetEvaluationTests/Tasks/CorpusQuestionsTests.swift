import Foundation
import MonetEvaluation
import MonetFoundation
import MonetText
import TestSupport
import Testing

@Suite struct CorpusQuestionsTests {
    /// Documents of numbered sentences, so that each passage can be found again.
    private func withCorpus<Result>(_ body: (Corpus, Tokenizer, [String]) throws -> Result) throws -> Result {
        try withTemporaryFolder { folder in
            let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
            let texts = (0..<60).map { number in
                (0..<14).map { "The house number \(number * 20 + $0) stands near the river." }.joined(
                    separator: " ")
            }
            let lines = texts.enumerated().map { place, text in
                let value: JSONValue = [
                    "text": .string(text),
                    "label": .string(place < 55 ? ["red", "blue"][place % 2] : "rare"),
                ]
                return value.serialized() + "\n"
            }
            try lines.joined().write(toFile: folder + "/texts.jsonl", atomically: true, encoding: .utf8)
            _ = try CorpusBuilder(tokenizer: tokenizer, validationShare: 0.5, seed: 1).build(
                [CorpusSource(path: folder + "/texts.jsonl")], into: folder + "/corpus")
            return try body(try Corpus(folder: folder + "/corpus"), tokenizer, texts)
        }
    }

    @Test func choicesContinueDocumentsOfOneLabel() throws {
        try withCorpus { corpus, tokenizer, texts in
            var plan = CorpusQuestions.Plan()
            plan.perLabel = 9
            let made = try CorpusQuestions(plan, corpus: corpus, tokenizer: tokenizer)
            let labels = made.rows.compactMap { $0["label"]?.stringValue }
            #expect(labels.count { $0 == "red" } == 9 && labels.count { $0 == "blue" } == 9)
            var answers: Set<Int> = []
            for row in made.rows {
                let (context, answer) = (
                    try #require(row["context"]?.stringValue), try #require(row["answer"]?.intValue)
                )
                let choices = (row["choices"]?.arrayValue ?? []).compactMap(\.stringValue)
                #expect(choices.count == 4 && Set(choices).count == 4)
                answers.insert(answer)
                let own = try #require(texts.firstIndex { $0.contains(context + " " + choices[answer]) })
                // The right choice goes on in a document of the label, the others somewhere else.
                #expect(texts.contains { $0.contains(context + " " + choices[answer]) })
                for (place, choice) in choices.enumerated() {
                    let home = texts.indices.filter { texts[$0].contains(choice) }
                    #expect(
                        home.contains {
                            ["red", "blue", "rare"][$0 < 55 ? $0 % 2 : 2] == row["label"]?.stringValue
                        })
                    if place != answer {
                        #expect(!texts.contains { $0.contains(context + " " + choice) })
                        #expect(home.contains { $0 != own }, "from another document")
                    }
                }
            }
            #expect(answers.count > 2)
            let again = try CorpusQuestions(plan, corpus: corpus, tokenizer: tokenizer)
            #expect(again.rows == made.rows)
            plan.seed = 1
            #expect(try CorpusQuestions(plan, corpus: corpus, tokenizer: tokenizer).rows != made.rows)
            plan.contextTokens = 100_000
            #expect(throws: EvaluationError.self) {
                try CorpusQuestions(plan, corpus: corpus, tokenizer: tokenizer)
            }
        }
    }

    /// The task file asks what the rows say.
    @Test func taskFileIsRead() throws {
        try withCorpus { corpus, tokenizer, _ in
            let made = try CorpusQuestions(.init(), corpus: corpus, tokenizer: tokenizer)
            try withTemporaryFolder { folder in
                try made.rows.map { $0.serialized() + "\n" }.joined().write(
                    toFile: folder + "/q.jsonl", atomically: true, encoding: .utf8)
                try CorpusQuestions.taskFile(name: "mine", data: "q.jsonl").write(
                    toFile: folder + "/mine.yaml", atomically: true, encoding: .utf8)
                let definition = try #require(
                    try TaskLibrary().selection([folder + "/mine.yaml"]).tasks.first)
                let items = try EvaluationTask(definition, data: DatasetFolder(folder)).items(limit: nil)
                #expect(items.count == made.rows.count)
                for (item, row) in zip(items, made.rows) {
                    #expect(item.gold == [row["answer"]?.intValue ?? -1])
                    #expect(item.requests.first?.context == row["context"]?.stringValue)
                    #expect(item.choices == row["choices"]?.arrayValue?.compactMap(\.stringValue))
                }
            }
        }
    }
}
