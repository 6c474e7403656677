import MonetFoundation

/// A task as its file defines it, in the terms of lm-evaluation-harness.
public struct TaskDefinition: Sendable {
    /// What a model is asked.
    public enum OutputType: String, Sendable, CaseIterable {
        case multipleChoice = "multiple_choice"
        case logLikelihood = "loglikelihood"
        case rollingLogLikelihood = "loglikelihood_rolling"
        case generation = "generate_until"
    }

    /// How a value comes from a document.
    enum Rule: Sendable, Equatable {
        /// A field of that name, or else a template.
        case template(String)
        case integer(Int)
        case list([JSONValue])
        case function(TaskFunction)
    }

    /// What few-shot examples have of their own.
    struct FewShot: Sendable {
        var sampler = Sampler.random
        var split: String?
        /// Examples that the file itself lists.
        var samples: [JSONValue]?
        var text: Rule?
        var target: Rule?
        var choice: Rule?
        var processDocuments: TaskFunction?
        var generationPrefix: String?
        var delimiter = "\n\n"
        var targetDelimiter = " "
    }

    /// How few-shot examples are chosen.
    enum Sampler: String, Sendable, CaseIterable {
        /// Drawn anew for each document.
        case random = "default"
        /// The first ones of the split.
        case first = "first_n"
        /// LightEval's: a fixed choice with the labels in turn.
        case balanced
    }

    /// A metric of the task's list.
    struct Metric: Sendable {
        let name: String
        let aggregation: TaskAggregation
        let isHigherBetter: Bool
        let match: ExactMatchOptions
    }

    /// A named chain of filters over generated texts.
    struct FilterChain: Sendable {
        let name: String
        let filters: [TaskFilter]
    }

    /// Settings of `generate_until`.
    struct Generation: Sendable, Equatable {
        var stops: [String] = []
        var maxNewTokens = 256
        var isSampled = false
        var temperature = 0.0
        var topP: Double?
        var topK: Int?
        /// As the file states them, for the record.
        var values: [JSONValue.Member] = []
    }

    /// The task's name.
    public internal(set) var name: String
    /// The name in tables.
    public internal(set) var alias: String
    /// The tags that stand for it and others.
    public let tags: [String]
    /// The data: a name on the hub or a folder, and the name of one of its configurations.
    public let dataset: String
    public let datasetName: String?
    /// What a model is asked.
    public let outputType: OutputType
    /// The examples before each question, if the file states how many.
    public internal(set) var shots: Int?
    let dataFiles: JSONValue?
    let trainingSplit: String?
    let validationSplit: String?
    let testSplit: String?
    let processDocuments: TaskFunction?
    let processResults: TaskFunction?
    let text: Rule
    let target: Rule
    let choice: Rule?
    let description: String
    let targetDelimiter: String
    let delimiter: String
    let fewShot: FewShot
    let metrics: [Metric]
    var generation: Generation
    package internal(set) var repeats: Int
    /// The language of programs that are to be written, and run with the document's tests.
    package let programLanguage: ProgramLanguage?
    let filters: [FilterChain]?
    let generationPrefix: String?
    let version: JSONValue
    let file: TaskFile

    /// The task with other samples of each program, drawn at another temperature; others are as they were.
    public func sampling(_ samples: Int, temperature: Double?, topP: Double? = nil) -> TaskDefinition {
        guard programLanguage != nil else { return self }
        var result = self
        result.repeats = samples
        result.generation.temperature = temperature ?? (samples > 1 ? 0.2 : 0)
        result.generation.isSampled = result.generation.temperature > 0
        result.generation.topP = topP ?? 0.95
        result.generation.topK = 0
        return result
    }

    /// The task with at most so many tokens in each generated answer.
    public func limited(toNewTokens count: Int) -> TaskDefinition {
        var result = self
        result.generation.maxNewTokens = count
        return result
    }

    /// Whether its answers are programs that are run.
    public var runsPrograms: Bool { programLanguage != nil }

    /// Where a key stands in the file.
    func origin(of key: String) -> TaskOrigin { file.origin(of: key) }

    /// The split whose documents are asked.
    var evaluatedSplit: String? { testSplit ?? validationSplit }

    /// The split of few-shot examples.
    var exampleSplit: String? { fewShot.split ?? trainingSplit ?? validationSplit ?? testSplit }
}
