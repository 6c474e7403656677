import Foundation
import MonetFoundation

/// Whose prompts and metrics the built-in tasks have.
public enum EvaluationProtocol: String, Sendable, CaseIterable {
    /// Those of lm-evaluation-harness.
    case harness = "lm-eval"
    /// Those of LightEval's cloze tasks, in which all choices are texts.
    case lightEval = "lighteval"
}

/// A group of tasks with values over all of them.
public struct TaskGroup: Sendable {
    /// The group's name, and the one in tables.
    public let name: String
    public let alias: String
    /// Names of the tasks and groups in it.
    public internal(set) var members: [String]
    let aggregations: [Aggregation]
    let version: JSONValue

    struct Aggregation: Sendable, Equatable {
        let metric: String
        /// Names of filters; nil for all.
        let filters: [String]?
        let isWeightedBySize: Bool
    }
}

/// Tasks that are evaluated together.
public struct TaskSelection: Sendable {
    /// The tasks in order.
    public internal(set) var tasks: [TaskDefinition] = []
    /// The groups, outer ones first.
    public internal(set) var groups: [TaskGroup] = []
}

/// The tasks that are known by name: the built-in ones, and those of folders with task files.
public struct TaskLibrary: Sendable {
    private enum Entry: Sendable {
        case task(TaskFile)
        case group(TaskFile)
        case tag([String])
    }

    private var entries: [String: Entry] = [:]
    /// Files of the folders that cannot be read, which matter only if one of their tasks is asked for.
    private var damaged: [(path: String, error: TaskError)] = []

    /// The built-in tasks, and those of task files below some folders, which replace others of their names.
    ///
    /// - Throws: `TaskError`, `FileError` for a folder that is not there.
    public init(_ plan: EvaluationProtocol = .harness, folders: [String] = []) throws {
        for file in try Self.builtIn(plan) { add(file) }
        for folder in folders { try read(folder) }
    }

    /// All names, in order.
    public var names: [String] { entries.keys.sorted() }

    // MARK: Reading

    private static func builtIn(_ plan: EvaluationProtocol) throws -> [TaskFile] {
        let text = String(decoding: PackageResources.tasks_yaml, as: UTF8.self)
        var files: [TaskFile] = []
        for part in text.components(separatedBy: "\n---\n") {
            var parts = [part]
            if part.contains("mmlu_SUBJECT") {
                parts = MMLUSubjects.groups.flatMap { group in
                    group.subjects.map {
                        part.replacing("SUBJECT", with: $0).replacing("GROUP", with: group.name)
                            .replacing("TOPIC", with: $0.replacing("_", with: " "))
                    }
                }
            }
            for text in parts {
                for file in try TaskFile.documents(in: text, path: "the built-in tasks") {
                    let own = file["metadata"]?["protocol"]?.stringValue ?? "lm-eval"
                    // What has no prompts of LightEval is the same in both.
                    let isShared =
                        file["group"] != nil || file["program_language"] != nil
                        || file["dataset_path"]?.stringValue == "cais/wmdp"
                    if own == plan.rawValue || isShared { files.append(file) }
                }
            }
        }
        let groups =
            MMLUSubjects.groups.map {
                "{group: mmlu_\($0.name), group_alias: \($0.name.replacing("_", with: " ")), task: [mmlu_\($0.name)_tasks]"
            }
            + [
                "{group: mmlu, task: [\(MMLUSubjects.groups.map { "mmlu_\($0.name)" }.joined(separator: ", "))]"
            ]
        // Cloze tasks have both metrics.
        let metrics = plan == .harness ? ["acc"] : ["acc", "acc_norm"]
        let list = metrics.map { "{metric: \($0), weight_by_size: true}" }.joined(separator: ", ")
        for group in groups {
            files += try TaskFile.documents(
                in: group + ", aggregate_metric_list: [\(list)], metadata: {version: 2}}",
                path: "the built-in tasks")
        }
        return files
    }

    private mutating func add(_ file: TaskFile) {
        if let name = file["group"]?.stringValue,
            file["task"]?.arrayValue != nil || file["task_list"] != nil || file["task"] == nil
        {
            entries[name] = .group(file)
            return
        }
        guard let name = file["task"]?.stringValue else { return }
        entries[name] = .task(file)
        let tags =
            file["tag"]?.stringValue.map { [$0] } ?? file["tag"]?.arrayValue?.compactMap(\.stringValue) ?? []
        for tag in tags {
            var names: [String] = []
            if case .tag(let known)? = entries[tag] { names = known }
            if !names.contains(name) { names.append(name) }
            if case .group? = entries[tag] { continue }
            entries[tag] = .tag(names)
        }
    }

    private mutating func read(_ folder: String) throws {
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: folder, isDirectory: &isFolder), isFolder.boolValue
        else {
            throw FileError.unreadable(path: folder, reason: "there is no such folder of task files")
        }
        let names = (FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? [])
            .sorted()
        var isNew: Set<String> = []
        for name in names where name.hasSuffix(".yaml") && !name.contains(".ipynb_checkpoints") {
            do {
                let file = try TaskFile(path: folder + "/" + name)
                let own = file["group"]?.stringValue ?? file["task"]?.stringValue
                // Of one folder, the first file with a name counts, as in the harness.
                if let own, !isNew.insert(own).inserted { continue }
                add(file)
            } catch let error as TaskError {
                damaged.append((folder + "/" + name, error))
            }
        }
    }

    // MARK: Selecting

    /// Tasks by their names, patterns with `*`, tags, groups or the paths of task files.
    ///
    /// - Throws: `TaskError` for a name that is unknown or a file that cannot be used.
    public func selection(_ names: [String]) throws -> TaskSelection {
        var selection = TaskSelection()
        for name in names {
            if entries[name] != nil {
                try add(name, overrides: [], to: &selection, within: [])
            } else if name.hasSuffix(".yaml") || name.hasSuffix(".yml") {
                let file = try TaskFile(path: name)
                var library = self
                // A group finds the tasks beside it.
                if file["group"] != nil { try library.read((name as NSString).deletingLastPathComponent) }
                library.add(file)
                guard let own = file["group"]?.stringValue ?? file["task"]?.stringValue else {
                    throw TaskError.malformedFile(
                        origin: TaskOrigin(path: name, line: 1), reason: "no 'task', the name of the task")
                }
                try library.add(own, overrides: [], to: &selection, within: [])
            } else if name.contains("*") {
                let found = self.names.filter { Self.matches($0, name) }
                guard !found.isEmpty else { throw unknown(name) }
                for name in found { try add(name, overrides: [], to: &selection, within: []) }
            } else {
                throw unknown(name)
            }
        }
        return selection
    }

    private func unknown(_ name: String) -> TaskError {
        if let file = damaged.first(where: { ($0.path as NSString).lastPathComponent == name + ".yaml" }) {
            return file.error
        }
        let words = name.lowercased()
        let similar = names.filter {
            $0.lowercased().contains(words) || words.contains($0.lowercased()) || Self.distance($0, name) <= 2
        }
        return .unknownTask(name: name, similar: Array(similar.prefix(8)))
    }

    private static func matches(_ name: String, _ pattern: String) -> Bool {
        let parts = pattern.components(separatedBy: "*")
        guard name.hasPrefix(parts[0]), name.hasSuffix(parts[parts.count - 1]),
            name.count >= parts[0].count + parts[parts.count - 1].count
        else { return false }
        var rest = name.dropFirst(parts[0].count).dropLast(parts[parts.count - 1].count)
        for part in parts.dropFirst().dropLast() where !part.isEmpty {
            guard let range = rest.range(of: part) else { return false }
            rest = rest[range.upperBound...]
        }
        return true
    }

    /// Insertions, deletions and replacements between two names.
    private static func distance(_ a: String, _ b: String) -> Int {
        let (a, b) = (Array(a.utf8), Array(b.utf8))
        guard abs(a.count - b.count) <= 2 else { return 3 }
        var row = Array(0...b.count)
        for (i, x) in a.enumerated() {
            var last = row[0]
            row[0] = i + 1
            for (j, y) in b.enumerated() {
                (last, row[j + 1]) = (row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (x == y ? 0 : 1)))
            }
        }
        return row[b.count]
    }

    private func add(
        _ name: String, overrides: [JSONValue.Member], to selection: inout TaskSelection,
        within groups: [String]
    ) throws {
        switch entries[name] {
        case .task(let file): try add(file, overrides: overrides, to: &selection)
        case .tag(let names):
            for name in names.sorted() { try add(name, overrides: overrides, to: &selection, within: groups) }
        case .group(let file):
            guard !groups.contains(name) else {
                throw TaskError.malformedFile(
                    origin: file.origin(of: "group"), reason: "the group '\(name)' contains itself")
            }
            try addGroup(file, name: name, overrides: overrides, to: &selection, within: groups + [name])
        case nil: throw unknown(name)
        }
    }

    private func add(
        _ file: TaskFile, overrides: [JSONValue.Member], to selection: inout TaskSelection
    ) throws {
        var file = file
        for member in overrides { file.set(member.key, member.value) }
        let definition = try TaskDefinition(file)
        if let place = selection.tasks.firstIndex(where: { $0.name == definition.name }) {
            selection.tasks[place] = definition
        } else {
            selection.tasks.append(definition)
        }
    }

    private static let groupKeys: Set<String> = [
        "group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag", "include", "task_list",
    ]

    private func addGroup(
        _ file: TaskFile, name: String, overrides: [JSONValue.Member], to selection: inout TaskSelection,
        within groups: [String]
    ) throws {
        let own = file.members.filter { !Self.groupKeys.contains($0.key) }
        let overrides = own.filter { member in !overrides.contains { $0.key == member.key } } + overrides
        var group = TaskGroup(
            name: name, alias: file["group_alias"]?.stringValue ?? name, members: [],
            aggregations: try Self.aggregations(file), version: file["metadata"]?["version"] ?? .string("N/A")
        )
        let place = selection.groups.count
        selection.groups.append(group)
        let members = file["task"]?.arrayValue ?? file["task"]?.stringValue.map { [.string($0)] } ?? []
        for (index, item) in members.enumerated() {
            let origin = file.origin(of: "task[\(index)]")
            if let name = item.stringValue {
                guard entries[name] != nil else { throw unknown(name) }
                group.members += try memberNames(name)
                try add(name, overrides: overrides, to: &selection, within: groups)
            } else if let name = item["group"]?.stringValue, entries[name] != nil {
                let further = (item.members ?? []).filter { $0.key != "group" }
                group.members.append(name)
                try add(name, overrides: overrides + further, to: &selection, within: groups)
            } else if let name = item["task"]?.stringValue, entries[name] != nil {
                let further = (item.members ?? []).filter { !["task", "tag"].contains($0.key) }
                group.members += try memberNames(name)
                try add(name, overrides: overrides + further, to: &selection, within: groups)
            } else if let inner = item["group"]?.stringValue {
                let file = TaskFile(inside: file, at: "task[\(index)]", item.members ?? [])
                group.members.append("\(name)::\(inner)")
                try addGroup(
                    file, name: "\(name)::\(inner)", overrides: overrides, to: &selection, within: groups)
            } else if let inner = item["task"]?.stringValue {
                var file = TaskFile(inside: file, at: "task[\(index)]", item.members ?? [])
                file.set("task", .string("\(name)::\(inner)"))
                group.members.append("\(name)::\(inner)")
                try add(file, overrides: overrides.filter { file[$0.key] == nil }, to: &selection)
            } else {
                throw TaskError.invalidValue(
                    origin: origin, key: "task[\(index)]", found: String(item.serialized().prefix(80)),
                    expected: "the name of a task, a tag or a group")
            }
        }
        selection.groups[place] = group
    }

    /// A tag's tasks, or the task or group itself.
    private func memberNames(_ name: String) throws -> [String] {
        if case .tag(let names)? = entries[name] { return names.sorted() }
        return [name]
    }

    private static func aggregations(_ file: TaskFile) throws -> [TaskGroup.Aggregation] {
        guard let given = file["aggregate_metric_list"], !given.isNull else { return [] }
        let list = given.arrayValue ?? [given]
        return try list.enumerated().map { index, item in
            let key = "aggregate_metric_list[\(index)]"
            let origin = file.origin(of: key)
            guard let metric = item["metric"]?.stringValue else {
                throw TaskError.invalidValue(
                    origin: origin, key: key, found: String(item.serialized().prefix(80)),
                    expected: "a 'metric'")
            }
            if let function = item["aggregation"]?[TaskFile.functionKey]?.stringValue {
                throw TaskError.missingFunction(origin: origin, key: key + ".aggregation", function: function)
            }
            guard ["mean", nil].contains(item["aggregation"]?.stringValue) else {
                throw TaskError.invalidValue(
                    origin: origin, key: key + ".aggregation", found: item["aggregation"]?.serialized() ?? "",
                    expected: "mean")
            }
            let filters =
                item["filter_list"]?.stringValue.map { [$0] }
                ?? item["filter_list"]?.arrayValue?.compactMap(\.stringValue)
            return .init(
                metric: metric, filters: filters, isWeightedBySize: item["weight_by_size"]?.boolValue ?? true)
        }
    }
}
