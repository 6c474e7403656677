/// What can go wrong with tasks and their data.
public enum TaskError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A task file that is not YAML, or has something in it that no task has.
    case malformedFile(origin: TaskOrigin, reason: String)
    /// A value of a task file that cannot be used.
    case invalidValue(origin: TaskOrigin, key: String, found: String, expected: String)
    /// A function in Python that this package does not have.
    case missingFunction(origin: TaskOrigin, key: String, function: String)
    /// A name that is no task, group or tag.
    case unknownTask(name: String, similar: [String])
    /// A template that fails on a document.
    case templateFailed(origin: TaskOrigin, key: String, document: String, reason: String)
    /// No data of a task in the folder.
    case missingData(task: String, dataset: String, split: String?, folder: String, looked: [String])
    /// A file of data that cannot be used.
    case malformedData(path: String, line: Int?, reason: String)
    /// A file of Parquet that cannot be used; the reason names it and the column.
    case unreadableTable(reason: String)
    /// A split without documents.
    case emptySplit(task: String, split: String, path: String)
    /// A document without what the task needs.
    case unusableDocument(task: String, document: String, reason: String)
    /// Fewer documents than few-shot examples.
    case tooFewExamples(task: String, split: String, found: Int, expected: Int)

    public var description: String {
        switch self {
        case .malformedFile(let origin, let reason): "\(origin): \(reason)"
        case .invalidValue(let origin, let key, let found, let expected):
            "\(origin): \(key) is \(found), expected \(expected)"
        case .missingFunction(let origin, let key, let function):
            "\(origin): \(key) is the Python function \(function), which Monet does not have and does not run"
        case .unknownTask(let name, let similar):
            "there is no task, group or tag '\(name)'"
                + (similar.isEmpty ? "" : "; similar: \(similar.joined(separator: ", "))")
        case .templateFailed(let origin, let key, let document, let reason):
            "\(origin): \(key) fails for \(document): \(reason)"
        case .missingData(let task, let dataset, let split, let folder, let looked):
            "\(folder): no \(split.map { "split '\($0)'" } ?? "data") of \(dataset), which the task \(task) reads"
                + (looked.isEmpty ? "" : " (looked for \(looked.joined(separator: ", ")))")
                + ". Scripts/fetch-benchmarks --tasks \(task) --data \(folder) gets it from the hub"
        case .malformedData(let path, let line, let reason):
            line.map { "\(path), line \($0): \(reason)" } ?? "\(path): \(reason)"
        case .unreadableTable(let reason): reason
        case .emptySplit(let task, let split, let path):
            "\(path): the split '\(split)' of the task \(task) has no documents"
        case .unusableDocument(let task, let document, let reason): "\(document), task \(task): \(reason)"
        case .tooFewExamples(let task, let split, let found, let expected):
            "the task \(task) has \(found) documents in its split '\(split)' for few-shot examples, expected \(expected)"
        }
    }
}

/// Where something stands in a task file.
public struct TaskOrigin: Sendable, Equatable, CustomStringConvertible {
    public let path: String
    public let line: Int

    /// A line of a file, from 1 on.
    public init(path: String, line: Int) {
        self.path = path
        self.line = line
    }

    public var description: String { "\(path), line \(line)" }
}
