import Foundation
import MonetFoundation
import MonetText

/// Questions of multiple choice from held-out documents of a corpus: which of four texts goes on after a beginning?
///
/// A benchmark for models that know one corpus alone, on which the usual ones say nothing. The wrong choices are
/// how other documents of the same label go on, so that style alone does not tell.
public struct CorpusQuestions {
    /// What to make.
    public struct Plan: Sendable {
        /// Questions of each label.
        public var perLabel = 50
        /// Tokens of a beginning, and of a choice; a choice begins with a word.
        public var contextTokens = 16
        public var choiceTokens = 10
        /// Of the choice of documents and of the order of answers.
        public var seed: UInt64 = 0

        /// Fifty questions of a label, 10 tokens after 16.
        public init() {}
    }

    private struct Passage {
        let document: Int
        let context: String
        let rest: String
    }

    /// The documents, in the form of a JSONL file.
    public let rows: [JSONValue]
    /// Labels without enough documents.
    public let skipped: [String]

    /// Draws questions from the held-out documents.
    ///
    /// - Throws: `TextError`, `EvaluationError.invalidSetting` if no label has enough documents.
    public init(_ plan: Plan, corpus: Corpus, tokenizer: Tokenizer) throws {
        let labels = corpus.labelSets.first?.labels ?? []
        var generator = SplitMix64(seed: plan.seed)
        var passages = labels.map { _ in [Passage]() }
        var seen = labels.map { _ in Set<String>() }
        let length = plan.contextTokens + plan.choiceTokens + 8
        let documents = try corpus.documents(in: .validation).shuffled(using: &generator)
        for (number, document) in documents.enumerated() {
            guard let label = document.labels.first, labels.indices.contains(label),
                passages[label].count < 4 * plan.perLabel
            else { continue }
            let tokens = corpus.tokens(in: .validation, document.tokens)
            for start in stride(from: 0, to: tokens.count - length + 1, by: length) {
                guard
                    let (context, rest) = try Self.divided(
                        Array(tokens[start..<(start + length)]), plan, tokenizer),
                    seen[label].insert(rest).inserted
                else { continue }
                passages[label].append(Passage(document: number, context: context, rest: rest))
            }
        }
        var (rows, skipped): ([JSONValue], [String]) = ([], [])
        for (label, own) in zip(labels, passages) {
            guard Set(own.map(\.document)).count >= 4 else {
                skipped.append(label)
                continue
            }
            for passage in own.shuffled(using: &generator).prefix(plan.perLabel) {
                let others = own.filter { $0.document != passage.document }.shuffled(using: &generator)
                    .prefix(3)
                let answer = Int(generator.next() % 4)
                var choices = others.map(\.rest)
                choices.insert(passage.rest, at: answer)
                rows.append([
                    "context": .string(passage.context), "choices": .array(choices.map { .string($0) }),
                    "answer": .integer(answer), "label": .string(label),
                ])
            }
        }
        guard !rows.isEmpty else {
            throw EvaluationError.invalidSetting(
                name: "\(corpus.folder): the number of held-out documents",
                found: "fewer than four of every label that are long enough",
                expected: "four or more of some label")
        }
        (self.rows, self.skipped) = (rows, skipped)
    }

    /// A beginning and how it goes on, divided before a word; nil if no word begins near the place.
    private static func divided(
        _ tokens: [Int32], _ plan: Plan, _ tokenizer: Tokenizer
    ) throws -> (context: String, rest: String)? {
        for cut in plan.contextTokens..<(plan.contextTokens + 8) {
            let (context, rest) = (
                try tokenizer.decode(Array(tokens[..<cut])),
                try tokenizer.decode(Array(tokens[..<(cut + plan.choiceTokens)]))
            )
            guard rest.hasPrefix(context) else { continue }
            let after = rest.dropFirst(context.count)
            let words = after.dropFirst().trimmingCharacters(in: .whitespacesAndNewlines)
            let text = context.trimmingCharacters(in: .whitespacesAndNewlines)
            if after.first == " ", words.count > 1, !text.isEmpty { return (text, words) }
        }
        return nil
    }

    /// A task file of lm-evaluation-harness for the questions.
    public static func taskFile(name: String, data: String) -> String {
        """
        task: \(name)
        dataset_path: json
        dataset_kwargs:
          data_files:
            test: \(data)
        test_split: test
        output_type: multiple_choice
        doc_to_text: "{{context}}"
        doc_to_choice: "{{choices}}"
        doc_to_target: answer
        metric_list:
          - metric: acc
            aggregation: mean
            higher_is_better: true
          - metric: acc_norm
            aggregation: mean
            higher_is_better: true
        metadata:
          version: 1.0

        """
    }
}
