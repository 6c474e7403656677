import Crypto
import Foundation
import MonetFoundation

extension EvaluationResults {
    /// What is known of a run beside its results.
    public struct RunDescription: Sendable {
        /// The model's folder or name, and further settings of the command.
        public var model: String
        public var arguments: [JSONValue.Member]
        public var limit: Int?
        public var start: Date
        public var end: Date

        /// Collects the description.
        public init(
            model: String, arguments: [JSONValue.Member] = [], limit: Int? = nil, start: Date,
            end: Date = Date()
        ) {
            self.model = model
            self.arguments = arguments
            self.limit = limit
            self.start = start
            self.end = end
        }

        /// The name of the model's folder among results, as the harness makes it.
        public var sanitizedModel: String {
            var result = ""
            var isReplaced = false
            for character in model {
                let isBad = "\"<>:/|\\?*[]".contains(character)
                if !isBad { result.append(character) } else if !isReplaced { result += "__" }
                isReplaced = isBad
            }
            return result
        }

        /// The date in names of files.
        var stamp: String {
            let formatter = DateFormatter()
            formatter.locale = Locale(identifier: "en_US_POSIX")
            formatter.timeZone = TimeZone(identifier: "UTC")
            formatter.dateFormat = "yyyy-MM-dd'T'HH-mm-ss.SSSSSS"
            return formatter.string(from: end)
        }
    }

    /// Writes `results_….json` and a `samples_….jsonl` for each task into the model's folder below `folder`, in the
    /// layout of lm-evaluation-harness.
    ///
    /// - Returns: the path of the results.
    /// - Throws: `FileError`.
    @discardableResult
    public func write(to folder: String, _ run: RunDescription) throws -> String {
        let target = folder + "/" + run.sanitizedModel
        try AtomicFile.createFolder(target)
        var hashes: [JSONValue.Member] = []
        for result in tasks {
            var all = ""
            let path = "\(target)/samples_\(result.task.name.safeFileName)_\(run.stamp).jsonl"
            try AtomicFile.write(to: path) { writer in
                for item in result.items {
                    let sample = item.sample
                    all += ["doc_hash", "prompt_hash", "target_hash"].map { sample[$0]?.stringValue ?? "" }
                        .joined()
                    try writer.write(sample.serialized() + "\n")
                }
            }
            hashes.append(.init(result.task.name, .string(Self.hash(all))))
        }
        let path = "\(target)/results_\(run.stamp).json"
        try AtomicFile.write(json(run, hashes: hashes).serialized(pretty: true) + "\n", to: path)
        return path
    }

    fileprivate static func hash(_ text: String) -> String {
        SHA256.hash(data: Data(text.utf8)).map { byte in
            let digits = String(byte, radix: 16)
            return digits.count == 1 ? "0" + digits : digits
        }.joined()
    }

    /// The results as one object.
    public func json(_ run: RunDescription, hashes: [JSONValue.Member] = []) -> JSONValue {
        func values(_ values: [EvaluationValue]) -> [JSONValue.Member] {
            values.flatMap { value -> [JSONValue.Member] in
                [
                    .init("\(value.metric),\(value.filter)", .number(value.value)),
                    .init(
                        "\(value.metric)_stderr,\(value.filter)",
                        value.standardError.map { .number($0) } ?? .string("N/A")),
                ]
            }
        }
        func object<Element>(_ list: [Element], _ body: (Element) -> JSONValue.Member) -> JSONValue {
            .object(list.map(body))
        }
        let groupValues = groups.map { result in
            JSONValue.Member(
                result.group.name,
                .object(
                    [.init("alias", .string(result.group.alias)), .init("name", .string(result.group.name))]
                        + (result.values.isEmpty ? [] : [.init("sample_len", .integer(result.documents))])
                        + values(result.values)))
        }
        var members: [JSONValue.Member] = [
            .init(
                "results",
                .object(
                    tasks.map { result in
                        .init(
                            result.task.name,
                            .object(
                                [
                                    .init("name", .string(result.task.name)),
                                    .init("alias", .string(result.task.alias)),
                                    .init("sample_len", .integer(result.documents)),
                                ] + values(result.values)))
                    } + groupValues))
        ]
        let aggregated = groupValues.filter { member in
            groups.contains { $0.group.name == member.key && !$0.group.aggregations.isEmpty }
        }
        if !aggregated.isEmpty { members.append(.init("groups", .object(aggregated))) }
        members += [
            .init(
                "group_subtasks",
                object(groups) { .init($0.group.name, .array($0.group.members.map { .string($0) })) }),
            .init("configs", object(tasks) { .init($0.task.name, $0.configuration) }),
            .init(
                "versions",
                .object(
                    tasks.map { .init($0.task.name, $0.task.version) }
                        + groups.map { .init($0.group.name, $0.group.version) })),
            .init("n-shot", object(tasks) { .init($0.task.name, .integer($0.shots)) }),
            .init(
                "higher_is_better",
                object(tasks) { result in
                    .init(
                        result.task.name,
                        .object(result.task.metrics.map { .init($0.name, .bool($0.isHigherBetter)) }))
                }),
            .init(
                "n-samples",
                object(tasks) {
                    .init(
                        $0.task.name,
                        ["original": .integer($0.documentCount), "effective": .integer($0.documents)])
                }),
            .init(
                "config",
                .object(
                    [
                        .init("model", .string("monet")),
                        .init("model_args", .string("pretrained=\(run.model)")),
                        .init("limit", run.limit.map { .integer($0) } ?? .null),
                        .init("bootstrap_iters", .integer(100_000)),
                    ] + run.arguments)),
            .init(
                "chance",
                object(tasks.filter { $0.chance != nil }) { .init($0.task.name, .number($0.chance ?? 0)) }),
        ]
        if let table = paperTable {
            members.append(
                .init(
                    "paper",
                    .object(
                        table.columns.map { .init($0.name, .number($0.value)) } + [
                            .init("average", .number(table.average))
                        ])))
        }
        members += [
            .init("date", .number(run.start.timeIntervalSince1970)), .init("task_hashes", .object(hashes)),
            .init("model_source", .string("monet")), .init("model_name", .string(run.model)),
            .init("model_name_sanitized", .string(run.sanitizedModel)),
            .init("start_time", .number(run.start.timeIntervalSince1970)),
            .init("end_time", .number(run.end.timeIntervalSince1970)),
            .init("total_evaluation_time_seconds", .string("\(run.end.timeIntervalSince(run.start))")),
        ]
        return .object(members)
    }
}

extension TaskResult {
    /// The task's settings as they were.
    fileprivate var configuration: JSONValue {
        JSONValue.object(
            task.file.members.map { .init($0.key, Self.shown($0.value)) }.filter {
                !["group", "task_list"].contains($0.key)
            }
        ).with([
            .init("num_fewshot", .integer(shots)), .init("repeats", .integer(task.repeats)),
            .init("target_delimiter", .string(task.targetDelimiter)),
            .init("fewshot_delimiter", .string(task.delimiter)),
            .init("output_type", .string(task.outputType.rawValue)),
        ])
    }

    /// Functions by their names.
    private static func shown(_ value: JSONValue) -> JSONValue {
        value[TaskFile.functionKey] ?? value
    }
}

extension ScoredItem {
    /// The document's line in the samples.
    fileprivate var sample: JSONValue {
        let target = item.target.stringValue ?? item.target.pythonRepresentation
        let arguments = item.requests.enumerated().map { number, request -> JSONValue.Member in
            let parts: [JSONValue]
            switch request {
            case .logLikelihood(let context, let continuation):
                parts = [.string(context), .string(continuation)]
            case .rolling(let text): parts = [.string(text)]
            case .generation(let context): parts = [.string(context), .object([])]
            }
            return .init("gen_args_\(number)", .object(parts.enumerated().map { .init("arg_\($0)", $1) }))
        }
        var members: [JSONValue.Member] = [
            .init("doc_id", .integer(item.index)), .init("doc", item.document),
            .init("target", .string(target)),
            .init("arguments", .object(arguments)),
            .init("resps", .array(responses.map { .array($0.values) })),
            .init(
                "filtered_resps",
                .array(
                    zip(filtered, responses).map { value, _ in value })),
            .init("filter", .string(filter)),
            .init("metrics", .array(metrics.map { .string($0.name) })),
            .init("doc_hash", .string(EvaluationResults.hash(item.document.serialized(pretty: true)))),
            .init("prompt_hash", .string(EvaluationResults.hash(item.requests.first?.context ?? ""))),
            .init("target_hash", .string(EvaluationResults.hash(target))),
        ]
        members += metrics.map { .init($0.name, $0.value.json) }
        return .object(members)
    }
}

extension JSONValue {
    /// Python's `repr` of what a template or a field gives.
    fileprivate var pythonRepresentation: String {
        switch self {
        case .string(let text):
            // Enough for answers: texts inside of lists.
            text.contains("'") && !text.contains("\"")
                ? "\"\(text)\""
                : "'"
                    + text.replacing("\\", with: "\\\\").replacing("'", with: "\\'").replacing(
                        "\n", with: "\\n") + "'"
        case .array(let values): "[" + values.map(\.pythonRepresentation).joined(separator: ", ") + "]"
        default: pythonText
        }
    }
}

extension String {
    /// The name with slashes and colons replaced, for files.
    fileprivate var safeFileName: String { replacing("/", with: "__").replacing(":", with: "_") }
}
