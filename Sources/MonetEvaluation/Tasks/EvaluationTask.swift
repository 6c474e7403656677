import MonetFoundation
import MonetText

/// A task with its documents: the questions to a model.
public struct EvaluationTask: Sendable {
    /// The definition.
    public let definition: TaskDefinition
    /// The examples before each question.
    public private(set) var shots: Int
    /// The seed of the examples' choice.
    public let seed: Int
    package let documents: [JSONValue]
    let path: String
    private let examples: [JSONValue]
    private let rules: Rules
    private let exampleRules: Rules
    private let details: CompiledRule?
    /// Whether the choices are in the question, and the answer follows each.
    private let hasChoicesInText: Bool
    /// Whether there are several right answers.
    package let hasManyTargets: Bool

    private struct Rules: Sendable {
        let text: CompiledRule
        let target: CompiledRule
        let choice: CompiledRule?
        let prefix: CompiledRule?
    }

    /// The number of documents of the evaluated split.
    public var documentCount: Int { documents.count }

    /// Reads the data of a task.
    ///
    /// - `shots`: examples before each question; the task's own number if nil.
    /// - Throws: `TaskError`, `FileError`.
    public init(_ definition: TaskDefinition, data: DatasetFolder, shots: Int? = nil, seed: Int = 1234) throws
    {
        self.definition = definition
        self.seed = seed
        // A task that states 0 examples is asked without.
        self.shots = definition.shots == 0 ? 0 : shots ?? definition.shots ?? 0
        let split = definition.evaluatedSplit ?? ""
        let table = try Self.documents(of: definition, split, data, definition.processDocuments)
        documents = table.table.rows
        path = table.path
        let fields = table.table.fields
        let own = definition.fewShot
        let hasChoices = definition.choice != nil
        func compiled(_ rule: TaskDefinition.Rule, _ key: String) throws -> CompiledRule {
            try CompiledRule(rule, key: key, origin: definition.origin(of: key), fields: fields)
        }
        func prefix(_ text: String?) throws -> CompiledRule? {
            try text.map { try compiled(.template($0), "gen_prefix") }
        }
        rules = Rules(
            text: try compiled(definition.text, "doc_to_text"),
            target: try compiled(definition.target, "doc_to_target"),
            choice: try definition.choice.map { try compiled($0, "doc_to_choice") },
            prefix: try prefix(definition.generationPrefix))
        exampleRules = Rules(
            text: try own.text.map { try compiled($0, "fewshot_config.doc_to_text") } ?? rules.text,
            target: try own.target.map { try compiled($0, "fewshot_config.doc_to_target") } ?? rules.target,
            choice: try own.choice.map { try compiled($0, "fewshot_config.doc_to_choice") } ?? rules.choice,
            prefix: try prefix(own.generationPrefix))
        details =
            definition.description.isEmpty
            ? nil : try compiled(.template(definition.description), "description")
        let name = Self.name(of: 0, path)
        hasChoicesInText =
            try hasChoices && rules.text.text(of: documents[0], name, hasChoices: true).intValue != nil
        hasManyTargets =
            try rules.target.target(of: documents[0], name, hasChoices: hasChoices).arrayValue != nil
        if self.shots == 0 {
            examples = []
        } else if let samples = own.samples, own.split == nil {
            examples = samples
        } else {
            let split = definition.exampleSplit ?? ""
            let isEvaluated =
                split == definition.evaluatedSplit && own.processDocuments == definition.processDocuments
            examples =
                isEvaluated
                ? documents : try Self.documents(of: definition, split, data, own.processDocuments).table.rows
        }
    }

    private static func documents(
        of definition: TaskDefinition, _ split: String, _ data: DatasetFolder, _ function: TaskFunction?
    ) throws -> DatasetFolder.Split {
        let folder = definition.file.path.split(separator: "/").dropLast().joined(separator: "/")
        let found = try data.split(
            .init(
                task: definition.name, dataset: definition.dataset, configuration: definition.datasetName,
                split: split,
                files: definition.dataFiles,
                taskFolder: (definition.file.path.hasPrefix("/") ? "/" : "") + folder))
        guard let function else { return found }
        let rows = try found.table.rows.enumerated().map { index, row in
            do {
                return try function.prepared(row)
            } catch let error as TaskFunction.Failure {
                throw TaskError.unusableDocument(
                    task: definition.name, document: name(of: index, found.path), reason: error.description)
            }
        }
        return .init(
            table: DataTable(rows: rows, fields: rows.first?.members?.map(\.key) ?? found.table.fields),
            path: found.path)
    }

    private static func name(of index: Int, _ path: String) -> String { "\(path), document \(index + 1)" }

    /// The same questions without examples before them.
    var withoutExamples: EvaluationTask {
        var result = self
        result.shots = 0
        return result
    }

    /// How messages call a document.
    package func name(of index: Int) -> String { Self.name(of: index, path) }

    // MARK: Items

    /// The questions about the first documents, in order: few-shot examples are drawn from one sequence.
    ///
    /// - Throws: `TaskError` for a document that the task cannot ask about.
    package func items(limit: Int? = nil) throws -> [TaskItem] {
        var sampler = try FewShotSampler(
            definition.fewShot.sampler, examples: examples, shots: shots, seed: seed,
            // Two splits that are not stated count as the same.
            excludesDocument: definition.fewShot.split == definition.testSplit, task: definition,
            label: { try self.answer(self.exampleTurn($0)) })
        return try documents.prefix(limit ?? documents.count).enumerated().map { index, document in
            let chosen = try sampler.examples(for: document)
            return try item(index, document, chosen)
        }
    }

    private func unusable(_ index: Int, _ reason: String) -> TaskError {
        .unusableDocument(task: definition.name, document: name(of: index), reason: reason)
    }

    private func item(_ index: Int, _ document: JSONValue, _ examples: [JSONValue]) throws -> TaskItem {
        let name = name(of: index)
        let hasChoices = definition.choice != nil
        var start = try details?.plainText(of: document, name) ?? ""
        for example in examples {
            let turn = try exampleTurn(example)
            start += Self.turn(
                turn.question, answer: try answer(turn), prefix: turn.prefix,
                delimiter: definition.fewShot.targetDelimiter, end: definition.fewShot.delimiter)
        }
        let target = try rules.target.target(of: document, name, hasChoices: hasChoices)
        let choices = try rules.choice?.choices(of: document, name) ?? []
        let text = try rules.text.text(of: document, name, hasChoices: hasChoices)
        let prefix = try rules.prefix?.plainText(of: document, name)
        func question(_ text: String, delimiter: String) -> String {
            start + Self.turn(text, answer: nil, prefix: prefix, delimiter: delimiter, end: "")
        }
        if definition.outputType == .rollingLogLikelihood {
            guard let text = target.stringValue else { throw unusable(index, "doc_to_target is no text") }
            return TaskItem(
                index: index, document: document, target: target, choices: [], gold: [],
                requests: [.rolling(text: text)])
        }
        guard !hasChoicesInText else {
            let rest = definition.targetDelimiter + Self.text(target)
            return TaskItem(
                index: index, document: document, target: target, choices: choices,
                gold: try gold(text, choices, index),
                requests: choices.map {
                    .logLikelihood(context: question($0, delimiter: ""), continuation: rest)
                })
        }
        guard let asked = text.stringValue else {
            throw unusable(index, "doc_to_text is \(text.serialized().prefix(60)), expected a text")
        }
        let context = question(asked, delimiter: definition.targetDelimiter)
        var requests: [TaskRequest]
        var gold: [Int] = []
        switch definition.outputType {
        case .generation: requests = [.generation(context: context)]
        case .logLikelihood:
            guard let continuation = target.stringValue, !continuation.isEmpty else {
                throw unusable(index, "doc_to_target is \(target.serialized().prefix(60)), expected a text")
            }
            requests = [.logLikelihood(context: context, continuation: continuation)]
        case .multipleChoice, .rollingLogLikelihood:
            guard !choices.isEmpty else { throw unusable(index, "there are no choices") }
            let texts = choices.map { definition.targetDelimiter + $0 }
            guard texts.allSatisfy({ !$0.isEmpty }) else { throw unusable(index, "a choice is empty") }
            requests = texts.map { .logLikelihood(context: context, continuation: $0) }
            if definition.metrics.contains(where: { $0.name == "acc_mutual_info" }) {
                requests += texts.map { .logLikelihood(context: "", continuation: $0) }
            }
            gold = try self.gold(target, choices, index)
        }
        return TaskItem(
            index: index, document: document, target: target, choices: choices, gold: gold, requests: requests
        )
    }

    /// The right choices that an answer names by number or by text.
    private func gold(_ answer: JSONValue, _ choices: [String], _ index: Int) throws -> [Int] {
        let answers = answer.arrayValue ?? [answer]
        let found = answers.compactMap { answer -> Int? in
            if let text = answer.stringValue { return choices.firstIndex { PythonText.equal($0, text) } }
            return answer.intValue.flatMap { choices.indices.contains($0) ? $0 : nil }
        }
        guard !found.isEmpty, found.count == answers.count else {
            throw unusable(
                index, "the answer \(answer.serialized().prefix(60)) is none of the \(choices.count) choices")
        }
        return found
    }

    // MARK: Prompts

    private struct Turn {
        let question: String
        let choices: [String]?
        let target: JSONValue
        let prefix: String?
    }

    private func exampleTurn(_ document: JSONValue) throws -> Turn {
        let name = "an example for few-shot prompts"
        let text = try exampleRules.text.text(of: document, name, hasChoices: definition.choice != nil)
        let target = try exampleRules.target.target(of: document, name, hasChoices: definition.choice != nil)
        let choices = try exampleRules.choice?.choices(of: document, name)
        let prefix = try exampleRules.prefix?.plainText(of: document, name)
        if hasChoicesInText, let choices {
            guard let number = text.intValue, choices.indices.contains(number) else {
                throw failure(document, "the answer is none of the choices")
            }
            return Turn(question: choices[number], choices: nil, target: target, prefix: prefix)
        }
        guard let question = text.stringValue else { throw failure(document, "doc_to_text is no text") }
        return Turn(question: question, choices: choices, target: target, prefix: prefix)
    }

    private func failure(_ document: JSONValue, _ reason: String) -> TaskError {
        .unusableDocument(
            task: definition.name, document: "the few-shot example \(document.serialized().prefix(80))",
            reason: reason)
    }

    /// The answer of an example; nil if it has none.
    private func answer(_ turn: Turn) throws -> String? {
        switch turn.target {
        case .null: return nil
        case .string(let text): return text.isEmpty ? nil : text
        case .array(let list):
            guard let text = list.first?.stringValue else {
                throw failure(turn.target, "the answer is no text")
            }
            return text
        default:
            guard let choices = turn.choices,
                let number = turn.target.intValue ?? turn.target.boolValue.map({ $0 ? 1 : 0 }),
                choices.indices.contains(number)
            else { throw failure(turn.target, "the answer is none of the choices") }
            return choices[number]
        }
    }

    /// A question with its answer, if it is an example.
    private static func turn(
        _ question: String, answer: String?, prefix: String?, delimiter: String, end: String
    ) -> String {
        let prefix = prefix.flatMap { $0.isEmpty ? nil : $0 }
        if let answer {
            let isDelimited = prefix.map { needsDelimiter(question, $0) } ?? true
            return question + (isDelimited ? delimiter : "") + joined(prefix, answer) + end
        }
        guard let prefix else { return question }
        return question + (needsDelimiter(question, prefix) ? delimiter : "") + prefix
    }

    /// Whether two texts that are not empty meet without white space.
    private static func needsDelimiter(_ first: String, _ second: String) -> Bool {
        guard let last = first.unicodeScalars.last, let next = second.unicodeScalars.first else {
            return false
        }
        return !PythonText.isSpace(last) && !PythonText.isSpace(next)
    }

    private static func joined(_ prefix: String?, _ text: String) -> String {
        guard let prefix else { return text }
        return prefix + (needsDelimiter(prefix, text) ? " " : "") + text
    }

    /// Python's `str` of an answer that stands after choices.
    private static func text(_ value: JSONValue) -> String {
        value.stringValue ?? value.intValue.map(String.init) ?? value.serialized()
    }
}
