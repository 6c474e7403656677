import Foundation
import MonetFoundation

/// A metric over all documents of a task or a group.
public struct EvaluationValue: Sendable, Equatable {
    /// The metric, and the filter of generated texts ("none" otherwise).
    public let metric: String
    public let filter: String
    /// The value and its standard error, nil where there is none.
    public let value: Double
    public let standardError: Double?
    /// Whether larger values are better.
    public let isHigherBetter: Bool
}

/// What a model achieved in one task.
public struct TaskResult: Sendable {
    /// The task.
    public let task: TaskDefinition
    /// Examples before each question.
    public let shots: Int
    /// Documents asked, out of all of the split.
    public let documents: Int
    public let documentCount: Int
    /// The values.
    public let values: [EvaluationValue]
    /// The accuracy of guessing: the mean of 1 / choices; nil for tasks without choices.
    public let chance: Double?
    package let items: [ScoredItem]
    let seed: Int

    /// Resamples for standard errors without a formula, as in the harness.
    private static let resamples = 100_000

    package init(_ task: EvaluationTask, _ scored: [[ScoredItem]]) throws {
        self.task = task.definition
        shots = task.shots
        seed = task.seed
        documents = scored.count
        documentCount = task.documentCount
        items = task.definition.filterChains.indices.flatMap { chain in scored.map { $0[chain] } }
        var values: [EvaluationValue] = []
        for chain in task.definition.filterChains {
            let own = items.filter { $0.filter == chain.name }
            for (place, metric) in (own.first?.metrics ?? []).enumerated() {
                guard let definition = task.definition.metrics.first(where: { $0.name == metric.name }) else {
                    continue
                }
                let all = own.map { $0.metrics[place].value }
                values.append(
                    EvaluationValue(
                        metric: metric.name, filter: chain.name, value: definition.aggregation.value(of: all),
                        standardError: definition.aggregation.standardError(
                            of: all, resamples: Self.resamples),
                        isHigherBetter: definition.isHigherBetter))
            }
        }
        self.values = values
        let choices = scored.compactMap { $0.first.map { Double($0.item.choices.count) } }.filter { $0 > 0 }
        chance =
            task.definition.outputType == .multipleChoice && !choices.isEmpty
            ? choices.reduce(0) { $0 + 1 / $1 } / Double(choices.count) : nil
    }

    /// The value of a metric, under the first filter that has it.
    public func value(_ metric: String) -> EvaluationValue? { values.first { $0.metric == metric } }

    /// The metric by which the task is usually reported: normalized accuracy where there is one.
    public var main: EvaluationValue? { value("acc_norm") ?? value("acc") ?? values.first }

    /// The main metric's value of each document, in order.
    var mainItems: [Double] {
        guard let main else { return [] }
        return items.filter { $0.filter == main.filter }.compactMap { item in
            guard case .number(let value)? = item.metrics.first(where: { $0.name == main.metric })?.value
            else { return nil }
            return value
        }
    }
}

/// What a model achieved in a group of tasks.
public struct GroupResult: Sendable {
    /// The group.
    public let group: TaskGroup
    /// Documents of all its tasks.
    public let documents: Int
    /// The values over all its tasks.
    public let values: [EvaluationValue]
    /// The mean of the tasks' chance, weighted as the values.
    public let chance: Double?
}

/// What a model achieved in all tasks of a run.
public struct EvaluationResults: Sendable {
    /// The tasks in order.
    public let tasks: [TaskResult]
    /// The groups, outer ones first.
    public let groups: [GroupResult]

    package init(_ tasks: [TaskResult], groups: [TaskGroup]) throws {
        self.tasks = tasks
        self.groups = groups.map { Self.result(of: $0, tasks, groups) }
    }

    /// The tasks of a group and of the groups in it.
    static func leaves(of group: TaskGroup, _ groups: [TaskGroup]) -> [String] {
        group.members.flatMap { name in
            groups.first { $0.name == name && $0.name != group.name }.map { leaves(of: $0, groups) } ?? [name]
        }
    }

    private static func result(of group: TaskGroup, _ tasks: [TaskResult], _ groups: [TaskGroup])
        -> GroupResult
    {
        let names = leaves(of: group, groups)
        let members = names.compactMap { name in tasks.first { $0.task.name == name } }
        var values: [EvaluationValue] = []
        for aggregation in group.aggregations {
            let filters =
                aggregation.filters
                ?? Set(members.flatMap { $0.values.filter { $0.metric == aggregation.metric }.map(\.filter) })
                .sorted()
            for filter in filters {
                let found = members.compactMap { member in
                    member.values.first { $0.metric == aggregation.metric && $0.filter == filter }.map {
                        (member, $0)
                    }
                }
                guard let first = found.first else { continue }
                let sizes = found.map { aggregation.isWeightedBySize ? Double($0.0.documents) : 1 }
                let total = sizes.reduce(0, +)
                let errors = found.compactMap(\.1.standardError)
                values.append(
                    EvaluationValue(
                        metric: aggregation.metric, filter: filter,
                        value: zip(found, sizes).reduce(0) { $0 + $1.0.1.value * $1.1 } / total,
                        standardError: errors.count == found.count
                            ? (aggregation.isWeightedBySize
                                ? pooledError(errors, sizes) : unweightedError(errors)) : nil,
                        isHigherBetter: first.1.isHigherBetter))
            }
        }
        let chances = members.compactMap { member in member.chance.map { ($0, Double(member.documents)) } }
        let weight = chances.reduce(0) { $0 + $1.1 }
        return GroupResult(
            group: group, documents: members.reduce(0) { $0 + $1.documents }, values: values,
            chance: chances.count == members.count && weight > 0
                ? chances.reduce(0) { $0 + $1.0 * $1.1 } / weight : nil)
    }

    /// The standard error of a mean weighted by sizes, from the pooled variance.
    private static func pooledError(_ errors: [Double], _ sizes: [Double]) -> Double {
        let total = sizes.reduce(0, +)
        let variance =
            zip(errors, sizes).reduce(0) { $0 + ($1.1 - 1) * $1.0 * $1.0 * $1.1 }
            / (total - Double(sizes.count))
        return (variance / total).squareRoot()
    }

    private static func unweightedError(_ errors: [Double]) -> Double {
        errors.reduce(0) { $0 + $1 * $1 }.squareRoot() / Double(errors.count)
    }

    // MARK: The paper's average

    /// The eight benchmarks of the paper's table, with the tasks or groups of each.
    private static let paperBenchmarks: [(name: String, tasks: [String])] = [
        ("MMLU", ["mmlu"]), ("ARC", ["arc_easy", "arc_challenge"]), ("WG", ["winogrande"]),
        ("PIQA", ["piqa"]),
        ("SIQA", ["social_iqa"]), ("OBQA", ["openbookqa"]), ("HS", ["hellaswag"]),
        ("CSQA", ["commonsense_qa"]),
    ]

    /// The value of each of the paper's benchmarks, normalized accuracy where there is one, and their mean; nil
    /// unless all were run. ARC is the mean of its two sets.
    public var paperTable: (columns: [(name: String, value: Double)], average: Double)? {
        var columns: [(name: String, value: Double)] = []
        for (name, members) in Self.paperBenchmarks {
            let values = members.compactMap { member -> Double? in
                if let group = groups.first(where: { $0.group.name == member }) {
                    return (group.values.first { $0.metric == "acc_norm" } ?? group.values.first)?.value
                }
                return tasks.first { $0.task.name == member }?.main?.value
            }
            guard values.count == members.count else { return nil }
            columns.append((name, values.reduce(0, +) / Double(values.count)))
        }
        return (columns, columns.reduce(0) { $0 + $1.value } / Double(columns.count))
    }

    // MARK: Tables

    /// Rows of cells: a name, examples, metric, value, standard error and chance.
    public var rows: [[String]] {
        var rows = [["Task", "n-shot", "Filter", "Metric", "Value", "Stderr", "Chance"]]
        func number(_ value: Double?) -> String { value.map { String(format: "%.4f", $0) } ?? "" }
        func add(_ name: String, _ shots: String, _ values: [EvaluationValue], _ chance: Double?) {
            for (place, value) in values.enumerated() {
                let isAccuracy = value.metric.hasPrefix("acc")
                rows.append([
                    place == 0 ? name : "", place == 0 ? shots : "", value.filter,
                    value.metric + (value.isHigherBetter ? " ↑" : " ↓"), number(value.value),
                    value.standardError.map { "± " + number($0) } ?? "", isAccuracy ? number(chance) : "",
                ])
            }
            if values.isEmpty { rows.append([name, shots, "", "", "", "", ""]) }
        }
        var shown: Set<String> = []
        func addTask(_ result: TaskResult, _ depth: Int) {
            guard shown.insert(result.task.name).inserted else { return }
            let name =
                depth > 0 ? String(repeating: " ", count: depth) + "- " + result.task.alias : result.task.name
            add(name, String(result.shots), result.values, result.chance)
        }
        func addGroup(_ result: GroupResult, _ depth: Int) {
            guard shown.insert(result.group.name).inserted else { return }
            let name =
                depth > 0
                ? String(repeating: " ", count: depth) + "- " + result.group.alias : result.group.name
            add(name, "", result.values, result.chance)
            for member in result.group.members {
                if let inner = groups.first(where: { $0.group.name == member }) {
                    addGroup(inner, depth + 1)
                } else if let task = tasks.first(where: { $0.task.name == member }) {
                    addTask(task, depth + 1)
                }
            }
        }
        for group in groups { addGroup(group, 0) }
        for task in tasks { addTask(task, 0) }
        return rows
    }

    /// Tasks whose main accuracy is within two standard errors of guessing.
    public var atChance: [String] {
        tasks.filter { result in
            guard let chance = result.chance, let main = result.main, let error = main.standardError,
                main.metric.hasPrefix("acc")
            else { return false }
            return abs(main.value - chance) <= 2 * error
        }.map(\.task.name)
    }
}
