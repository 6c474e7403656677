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
        var passages = labels.map { _ in [(context: String, rest: String)]() }
        for document in try corpus.documents(in: .validation).shuffled(using: &generator) {
            guard let label = document.labels.first, labels.indices.contains(label) else { continue }
            // Several passages of a long document, but not so many that it becomes its own distractor too often.
            let tokens = corpus.tokens(in: .validation, document.tokens)
            let length = plan.contextTokens + plan.choiceTokens + 8
            for start in stride(from: 0, to: tokens.count - length + 1, by: length) {
                if let passage = try Self.passage(
                    Array(tokens[start..<(start + length)]), plan, tokenizer),
                    !passages[label].contains(where: { $0.rest == passage.rest })
                {
                    passages[label].append(passage)
                }
            }
        }
        var (rows, skipped): ([JSONValue], [String]) = ([], [])
        for (label, own) in zip(labels, passages) {
            guard own.count >= 4 else {
                skipped.append(label)
                continue
            }
            for (place, passage) in own.prefix(plan.perLabel).enumerated() {
                let others = own.indices.filter { $0 != place }.shuffled(using: &generator).prefix(3)
                let answer = Int(generator.next() % 4)
                var choices = others.map { own[$0].rest }
                choices.insert(passage.rest, at: answer)
                rows.append([
                    "context": .string(passage.context), "choices": .array(choices.map { .string($0) }),
                    "answer": .integer(answer), "label": .string(label),
                ])
            }
        }
        guard !rows.isEmpty else {
            throw EvaluationError.invalidSetting(
                name: "\(corpus.folder): the number of held-out passages",
                found: "fewer than four of every label",
                expected: "four or more of some label")
        }
        (self.rows, self.skipped) = (rows, skipped)
    }

    /// A beginning and how it goes on, divided before a word; nil if no word begins near the place.
    private static func passage(
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
