import MonetFoundation

extension TaskDefinition {
    /// All keys that a task file may have; the second ones are read for tables or not at all.
    private static let keys: Set<String> = [
        "task", "task_alias", "tag", "dataset_path", "dataset_name", "dataset_kwargs", "training_split",
        "validation_split", "test_split", "fewshot_split", "process_docs", "doc_to_text", "doc_to_target",
        "doc_to_choice", "process_results", "description", "target_delimiter", "fewshot_delimiter",
        "fewshot_config", "num_fewshot", "metric_list", "output_type", "generation_kwargs", "repeats",
        "filter_list", "gen_prefix", "metadata", "should_decontaminate", "doc_to_decontamination_query",
        "unsafe_code", "group", "task_list", "recipe", "program_language",
    ]
    /// Keys of what this package does not do.
    private static let refusedKeys = [
        "class": "a task in Python", "custom_dataset": "data made in Python",
        "use_prompt": "a prompt of promptsource",
        "doc_to_image": "images", "doc_to_audio": "audio",
    ]

    /// The definition in a file.
    ///
    /// - Throws: `TaskError` naming the file, its line and the key.
    init(_ file: TaskFile) throws {
        let reader = TaskFileReader(file: file)
        for member in file.members {
            if let reason = Self.refusedKeys[member.key], !member.value.isNull {
                throw TaskError.malformedFile(
                    origin: file.origin(of: member.key),
                    reason: "\(member.key) asks for \(reason), which Monet does not support")
            }
            guard Self.keys.contains(member.key) || Self.refusedKeys[member.key] != nil else {
                throw TaskError.malformedFile(
                    origin: file.origin(of: member.key), reason: "unknown key '\(member.key)'")
            }
        }
        guard let name = try reader.string("task"), !name.isEmpty else {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: file.path, line: 1), reason: "no 'task', the name of the task")
        }
        self.name = name
        self.file = file
        alias = try reader.string("task_alias") ?? name
        tags = try reader.strings("tag")
        dataset = try reader.string("dataset_path") ?? ""
        datasetName = try reader.string("dataset_name")
        dataFiles = file["dataset_kwargs"]?["data_files"]
        trainingSplit = try reader.string("training_split")
        validationSplit = try reader.string("validation_split")
        testSplit = try reader.string("test_split")
        outputType = try reader.choice("output_type", of: OutputType.self) ?? .generation
        shots = try reader.integer("num_fewshot")
        processDocuments = try reader.function("process_docs", at: file["process_docs"])
        processResults = try reader.function("process_results", at: file["process_results"])
        let isRolling = outputType == .rollingLogLikelihood
        text = try reader.rule("doc_to_text", at: file["doc_to_text"]) ?? .template("")
        guard
            let target = try reader.rule("doc_to_target", at: file["doc_to_target"])
                ?? (isRolling ? text : nil)
        else {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: file.path, line: 1),
                reason: "no 'doc_to_target', the expected answer")
        }
        self.target = target
        choice = try reader.rule("doc_to_choice", at: file["doc_to_choice"])
        if outputType == .multipleChoice, choice == nil {
            throw TaskError.malformedFile(
                origin: file.origin(of: "output_type"),
                reason: "no 'doc_to_choice', which multiple choice needs")
        }
        description = try reader.string("description") ?? ""
        targetDelimiter = try reader.string("target_delimiter") ?? " "
        delimiter = try reader.string("fewshot_delimiter") ?? "\n\n"
        programLanguage = try reader.choice("program_language", of: ProgramLanguage.self)
        generationPrefix = try reader.string("gen_prefix")
        repeats = try reader.integer("repeats") ?? 1
        version = file["metadata"]?["version"] ?? .string("Yaml")
        generation = try reader.generation(outputType, delimiter: delimiter)
        metrics = try reader.metrics(
            outputType, hasOwnResults: processResults != nil || programLanguage != nil)
        filters = try reader.filters()
        var fewShot = FewShot()
        fewShot.split = try reader.string("fewshot_split")
        fewShot.processDocuments = processDocuments
        fewShot.delimiter = delimiter
        fewShot.targetDelimiter = targetDelimiter
        fewShot.generationPrefix = generationPrefix
        try reader.read(into: &fewShot)
        self.fewShot = fewShot
        if evaluatedSplit == nil {
            throw TaskError.malformedFile(
                origin: TaskOrigin(path: file.path, line: 1),
                reason: "neither 'test_split' nor 'validation_split'")
        }
    }
}

/// Reads the keys of a task file with their types.
private struct TaskFileReader {
    let file: TaskFile

    private func invalid(_ key: String, _ value: JSONValue, _ expected: String) -> TaskError {
        .invalidValue(
            origin: file.origin(of: key), key: key, found: String(value.serialized().prefix(120)),
            expected: expected)
    }

    private func value(_ key: String) -> JSONValue? { file[key].flatMap { $0.isNull ? nil : $0 } }

    func string(_ key: String) throws -> String? { try string(key, at: value(key)) }

    private func string(_ key: String, at value: JSONValue?) throws -> String? {
        guard let value, !value.isNull else { return nil }
        switch value {
        case .string(let text): return text
        case .integer(let number): return String(number)
        case .object where value[TaskFile.functionKey] != nil: throw try missing(key, value)
        default: throw invalid(key, value, "a text")
        }
    }

    func strings(_ key: String) throws -> [String] {
        guard let value = value(key) else { return [] }
        if let text = value.stringValue { return [text] }
        guard let list = value.arrayValue, list.allSatisfy({ $0.stringValue != nil }) else {
            throw invalid(key, value, "a text or a list of texts")
        }
        return list.compactMap(\.stringValue)
    }

    func integer(_ key: String) throws -> Int? {
        guard let value = value(key) else { return nil }
        guard let number = value.intValue, number >= 0 else {
            throw invalid(key, value, "a whole number from 0 on")
        }
        return number
    }

    func choice<Choice: RawRepresentable & CaseIterable>(_ key: String, of type: Choice.Type) throws
        -> Choice?
    where Choice.RawValue == String {
        guard let value = value(key) else { return nil }
        return try choice(key, value, of: type)
    }

    private func choice<Choice: RawRepresentable & CaseIterable>(
        _ key: String, _ value: JSONValue, of type: Choice.Type
    ) throws -> Choice where Choice.RawValue == String {
        guard let found = value.stringValue.flatMap(Choice.init) else {
            if value[TaskFile.functionKey] != nil { throw try missing(key, value) }
            throw invalid(key, value, "one of \(Choice.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        return found
    }

    // MARK: Functions and rules

    private func missing(_ key: String, _ value: JSONValue) throws -> TaskError {
        .missingFunction(
            origin: file.origin(of: key), key: key, function: value[TaskFile.functionKey]?.stringValue ?? "")
    }

    func function(_ key: String, at value: JSONValue?) throws -> TaskFunction? {
        guard let value, !value.isNull else { return nil }
        guard let path = value[TaskFile.functionKey]?.stringValue else {
            throw invalid(key, value, "!function")
        }
        guard let function = TaskFunction(path: path) else { throw try missing(key, value) }
        return function
    }

    func rule(_ key: String, at value: JSONValue?) throws -> TaskDefinition.Rule? {
        guard let value, !value.isNull else { return nil }
        switch value {
        case .string(let text): return .template(text)
        case .integer(let number): return .integer(number)
        case .array(let items): return .list(items)
        case .object(let members):
            if value[TaskFile.functionKey] != nil {
                return try function(key, at: value).map { .function($0) }
            }
            return .list(members.map(\.value))
        default: throw invalid(key, value, "a template, a field, a list or a number")
        }
    }

    // MARK: Generation

    func generation(
        _ type: TaskDefinition.OutputType, delimiter: String
    ) throws -> TaskDefinition.Generation {
        var result = TaskDefinition.Generation()
        guard type == .generation else { return result }
        guard let given = value("generation_kwargs") else {
            result.stops = [delimiter]
            result.values = [
                .init("temperature", .number(0)), .init("do_sample", .bool(false)),
                .init("max_gen_toks", .integer(256)), .init("until", .array([.string(delimiter)])),
            ]
            return result
        }
        guard let members = given.members else {
            throw invalid("generation_kwargs", given, "keys and values")
        }
        result.values = members
        var hasStops = false
        var sampled: Bool?
        for member in members {
            let key = "generation_kwargs.\(member.key)"
            let value = member.value
            func number() throws -> Double {
                guard let number = value.doubleValue ?? value.stringValue.flatMap(Double.init), number >= 0
                else {
                    throw invalid(key, value, "a number from 0 on")
                }
                return number
            }
            switch member.key {
            case "until":
                hasStops = true
                if let text = value.stringValue {
                    result.stops = [text]
                } else if let list = value.arrayValue, list.allSatisfy({ $0.stringValue != nil }) {
                    result.stops = list.compactMap(\.stringValue)
                } else if !value.isNull {
                    throw invalid(key, value, "a text or a list of texts")
                }
            case "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens":
                let tokens = try number()
                guard let count = Int(exactly: tokens), count > 0 else {
                    throw invalid(key, value, "a whole number above 0")
                }
                result.maxNewTokens = count
            case "do_sample":
                guard let flag = value.boolValue else { throw invalid(key, value, "true or false") }
                sampled = flag
            case "temperature": result.temperature = try number()
            case "top_p": result.topP = try number()
            case "top_k": result.topK = Int(try number())
            default:
                throw invalid(
                    key, value, "one of until, max_gen_toks, do_sample, temperature, top_p, top_k")
            }
        }
        if !hasStops {
            result.stops = [delimiter]
            result.values.append(.init("until", .array([.string(delimiter)])))
        }
        result.isSampled = sampled ?? (result.temperature > 0)
        return result
    }

    // MARK: Metrics and filters

    func metrics(_ type: TaskDefinition.OutputType, hasOwnResults: Bool) throws -> [TaskDefinition.Metric] {
        guard let given = value("metric_list") else {
            return TaskMetric.defaults(of: type).map {
                .init(
                    name: $0, aggregation: TaskMetric.aggregation(of: $0),
                    isHigherBetter: TaskMetric.isHigherBetter($0), match: .init())
            }
        }
        guard let list = given.arrayValue, !list.isEmpty else {
            throw invalid("metric_list", given, "a list of metrics")
        }
        return try list.enumerated().map { index, item in
            let place = "metric_list[\(index)]"
            guard let metric = item["metric"] else { throw invalid(place, item, "a 'metric'") }
            guard let name = metric.stringValue else { throw try missing(place + ".metric", metric) }
            guard hasOwnResults || TaskMetric.names(of: type).contains(name) else {
                throw invalid(
                    place + ".metric", metric,
                    "one of \(TaskMetric.names(of: type).joined(separator: ", ")) for \(type.rawValue)")
            }
            var aggregation = TaskMetric.aggregation(of: name)
            if let value = item["aggregation"], !value.isNull {
                aggregation = try choice(place + ".aggregation", value, of: TaskAggregation.self)
            }
            var match = ExactMatchOptions()
            for member in item.members ?? [] {
                func flag() throws -> Bool {
                    guard let flag = member.value.boolValue else {
                        throw invalid("\(place).\(member.key)", member.value, "true or false")
                    }
                    return flag
                }
                switch member.key {
                case "metric", "aggregation", "higher_is_better": break
                case "hf_evaluate":
                    if try flag() {
                        throw invalid(
                            "\(place).\(member.key)", member.value, "a metric that needs no Python package")
                    }
                case "ignore_case": match.ignoresCase = try flag()
                case "ignore_punctuation": match.ignoresPunctuation = try flag()
                case "ignore_numbers": match.ignoresNumbers = try flag()
                case "regexes_to_ignore":
                    guard let patterns = member.value.arrayValue?.map(\.stringValue),
                        patterns.allSatisfy({ $0 != nil })
                    else {
                        throw invalid("\(place).\(member.key)", member.value, "a list of patterns")
                    }
                    match.ignoredPatterns = patterns.compactMap { $0 }
                default: break
                }
            }
            return .init(
                name: name, aggregation: aggregation,
                isHigherBetter: item["higher_is_better"]?.boolValue ?? TaskMetric.isHigherBetter(name),
                match: match)
        }
    }

    func filters() throws -> [TaskDefinition.FilterChain]? {
        guard let given = value("filter_list") else { return nil }
        guard let list = given.arrayValue, !list.isEmpty else {
            throw invalid("filter_list", given, "a list of filters")
        }
        return try list.enumerated().map { index, item in
            let place = "filter_list[\(index)]"
            guard let name = item["name"]?.stringValue, let steps = item["filter"]?.arrayValue else {
                throw invalid(place, item, "a 'name' and a 'filter'")
            }
            return .init(
                name: name,
                filters: try steps.enumerated().map { step, value in
                    let key = "\(place).filter[\(step)]"
                    guard let function = value["function"] else { throw invalid(key, value, "a 'function'") }
                    guard let filter = function.stringValue else {
                        throw try missing(key + ".function", function)
                    }
                    do {
                        return try TaskFilter(filter, value)
                    } catch let error as TaskFilter.Failure {
                        throw invalid(key, value, error.description)
                    }
                })
        }
    }

    // MARK: Few-shot examples

    func read(into fewShot: inout TaskDefinition.FewShot) throws {
        guard let given = value("fewshot_config") else { return }
        guard let members = given.members else { throw invalid("fewshot_config", given, "keys and values") }
        for member in members {
            let key = "fewshot_config.\(member.key)"
            let value = member.value
            switch member.key {
            case "sampler": fewShot.sampler = try choice(key, value, of: TaskDefinition.Sampler.self)
            case "split": fewShot.split = try string(key, at: value)
            case "process_docs": fewShot.processDocuments = try function(key, at: value)
            case "samples":
                if value[TaskFile.functionKey] != nil {
                    throw try missing(key, value)
                } else if let list = value.arrayValue, list.allSatisfy({ $0.members != nil }) {
                    fewShot.samples = list
                } else if !value.isNull {
                    throw invalid(key, value, "a list of documents")
                }
            case "doc_to_text": fewShot.text = try rule(key, at: value)
            case "doc_to_target": fewShot.target = try rule(key, at: value)
            case "doc_to_choice": fewShot.choice = try rule(key, at: value)
            case "gen_prefix": fewShot.generationPrefix = try string(key, at: value)
            case "fewshot_delimiter": fewShot.delimiter = try string(key, at: value) ?? fewShot.delimiter
            case "target_delimiter":
                fewShot.targetDelimiter = try string(key, at: value) ?? fewShot.targetDelimiter
            case "fewshot_indices":
                throw invalid(key, value, "no list of indices, which Monet does not support")
            default: throw invalid(key, value, "no such key")
            }
        }
    }
}
