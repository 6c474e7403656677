import Foundation
import MonetFoundation

/// The difference between two models, or a model with and without an edit, document by document.
///
/// Both answer the same questions, so the standard error is that of the differences, which is smaller than that of
/// either value as far as both are right and wrong about the same documents.
public struct EvaluationComparison: Sendable {
    /// The values of one side by task and document.
    public struct Side: Sendable {
        /// How tables call it.
        public let name: String
        fileprivate struct Task: Sendable {
            let name: String
            let metric: String
            let values: [Int: Double]
        }
        fileprivate let tasks: [Task]

        /// The side of a run: each task by its main metric, where that is a number for each document.
        public init(_ results: EvaluationResults, name: String) {
            self.name = name
            tasks = results.tasks.compactMap { result in
                guard let main = result.main else { return nil }
                var values: [Int: Double] = [:]
                for item in result.items where item.filter == main.filter {
                    if case .number(let value)? = item.metrics.first(where: { $0.name == main.metric })?.value
                    {
                        values[item.item.index] = value
                    }
                }
                return Task(name: result.task.name, metric: main.metric, values: values)
            }
        }

        /// The side of an earlier run, from its `results_….json` and the samples beside it.
        ///
        /// - Throws: `FileError`, `EvaluationError.malformedResults`.
        public init(resultsFile path: String) throws {
            name =
                (path as NSString).deletingLastPathComponent.split(separator: "/").last.map(String.init)
                ?? path
            let json = try JSONValue(contentsOfFile: path)
            guard let results = json["results"]?.members, let configurations = json["configs"]?.members else {
                throw EvaluationError.malformedResults(
                    path: path, reason: "it has no 'results' and 'configs'")
            }
            let folder = (path as NSString).deletingLastPathComponent
            let stamp = (path as NSString).lastPathComponent.dropFirst("results_".count).dropLast(
                ".json".count)
            var tasks: [Task] = []
            for task in configurations.map(\.key) {
                let keys = results.first { $0.key == task }?.value.members?.map(\.key) ?? []
                let candidates = keys.compactMap { key -> (metric: String, filter: String)? in
                    let parts = key.split(separator: ",").map(String.init)
                    return parts.count == 2 && !parts[0].hasSuffix("_stderr") ? (parts[0], parts[1]) : nil
                }
                guard
                    let main = candidates.first(where: { $0.metric == "acc_norm" })
                        ?? candidates.first(where: { $0.metric == "acc" }) ?? candidates.first
                else { continue }
                let file = "\(folder.isEmpty ? "." : folder)/samples_\(task)_\(stamp).jsonl"
                guard FileManager.default.fileExists(atPath: file) else {
                    throw EvaluationError.malformedResults(
                        path: path, reason: "there is no \(file) with its samples")
                }
                var values: [Int: Double] = [:]
                for (number, line) in try TextFile.read(file).split(separator: "\n").enumerated() {
                    let sample = try JSONValue(parsing: String(line), source: "\(file), line \(number + 1)")
                    guard sample["filter"]?.stringValue == main.filter,
                        let document = sample["doc_id"]?.intValue,
                        let value = sample[main.metric]?.doubleValue
                    else { continue }
                    values[document] = value
                }
                tasks.append(Task(name: task, metric: main.metric, values: values))
            }
            self.tasks = tasks
        }
    }

    /// One task's difference.
    public struct Row: Sendable {
        /// The task, or "all tasks" for the mean over them, and the metric.
        public let name: String
        public let metric: String
        /// Documents that both sides answered.
        public let documents: Int
        /// Both sides' values over these documents.
        public let first: Double
        public let second: Double
        /// The second less the first, and its standard error; nil with fewer than two documents.
        public let difference: Double
        public let standardError: Double?
    }

    /// The names of both sides.
    public let names: (String, String)
    /// The tasks that both sides have, and their mean if there are several.
    public let rows: [Row]

    /// Compares two sides.
    ///
    /// - Throws: `EvaluationError.nothingToCompare` without a document that both answered.
    public init(_ first: Side, _ second: Side) throws {
        names = (first.name, second.name)
        var rows: [Row] = []
        for task in first.tasks {
            guard let other = second.tasks.first(where: { $0.name == task.name && $0.metric == task.metric })
            else { continue }
            let common = task.values.keys.filter { other.values[$0] != nil }.sorted()
            guard !common.isEmpty else { continue }
            let pairs = common.map { (task.values[$0] ?? 0, other.values[$0] ?? 0) }
            let count = Double(pairs.count)
            let differences = pairs.map { $0.1 - $0.0 }
            let mean = differences.reduce(0, +) / count
            let variance = differences.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / max(1, count - 1)
            rows.append(
                Row(
                    name: task.name, metric: task.metric, documents: pairs.count,
                    first: pairs.reduce(0) { $0 + $1.0 } / count,
                    second: pairs.reduce(0) { $0 + $1.1 } / count,
                    difference: mean, standardError: pairs.count > 1 ? (variance / count).squareRoot() : nil))
        }
        guard !rows.isEmpty else {
            throw EvaluationError.nothingToCompare(first: first.name, second: second.name)
        }
        if rows.count > 1 {
            let count = Double(rows.count)
            let errors = rows.compactMap(\.standardError)
            rows.append(
                Row(
                    name: "mean of \(rows.count) tasks", metric: "",
                    documents: rows.reduce(0) { $0 + $1.documents },
                    first: rows.reduce(0) { $0 + $1.first } / count,
                    second: rows.reduce(0) { $0 + $1.second } / count,
                    difference: rows.reduce(0) { $0 + $1.difference } / count,
                    standardError: errors.count == rows.count
                        ? errors.reduce(0) { $0 + $1 * $1 }.squareRoot() / count : nil))
        }
        self.rows = rows
    }

    /// Rows of cells.
    public var table: [[String]] {
        func number(_ value: Double) -> String { String(format: "%.4f", value) }
        return [["Task", "Metric", "Documents", names.0, names.1, "Difference", "Stderr"]]
            + rows.map { row in
                [
                    row.name, row.metric, row.documents.grouped, number(row.first), number(row.second),
                    (row.difference >= 0 ? "+" : "−") + number(abs(row.difference)),
                    row.standardError.map { "± " + number($0) } ?? "",
                ]
            }
    }

    /// The comparison as one object.
    public var json: JSONValue {
        [
            "first": .string(names.0), "second": .string(names.1),
            "tasks": .array(
                rows.map { row in
                    [
                        "task": .string(row.name), "metric": .string(row.metric),
                        "documents": .integer(row.documents),
                        "first": .number(row.first), "second": .number(row.second),
                        "difference": .number(row.difference),
                        "stderr": row.standardError.map { .number($0) } ?? .null,
                    ]
                }),
        ]
    }
}
