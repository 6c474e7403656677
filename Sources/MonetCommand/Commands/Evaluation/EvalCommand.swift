import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText

struct EvalCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "eval",
        abstract:
            "Measure a model on benchmarks, with the prompts and metrics of lm-evaluation-harness or LightEval.",
        discussion: """
            EXAMPLES
              Scripts/fetch-benchmarks --tasks arc_easy,piqa --data benchmarks
              monet eval --model checkpoints/demo --tasks arc_easy,piqa --data benchmarks
              monet eval --model checkpoints/demo --tasks mmlu,hellaswag --num-fewshot 5 --data benchmarks \\
                  --protocol lighteval --mask biology.mask --output results
              monet eval --model checkpoints/demo --tasks my-task.yaml --data my-data --limit 100

            Tasks are built-in ones, those of task files of lm-evaluation-harness (a path, or a name from \
            --include-path), groups and tags. With --output, results and samples are written in the \
            harness's layout, and the answers as they come: a run that was stopped goes on where it was. \
            With --workers, or under mpirun or srun, processes share the documents, with the same results.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: ArgumentHelp("Tasks, groups, tags and task files, separated by commas.", valueName: "list"))
    var tasks: String?
    @Option(
        help: ArgumentHelp(
            "Examples before each question; by default as many as a task states.", valueName: "n"))
    var numFewshot: Int?
    @Option(
        name: .customLong("protocol"),
        help: "Prompts and metrics of the built-in tasks: lm-eval or lighteval.")
    var plan: EvaluationProtocol = .harness
    @Option(help: ArgumentHelp("The folder with the benchmarks' data.", valueName: "dir"))
    var data: String?
    @Option(
        help: ArgumentHelp(
            "A folder with task files, whose names --tasks may use. May be repeated.", valueName: "dir"))
    var includePath: [String] = []
    @OptionGroup var masking: MaskOptions
    @Option(
        help: ArgumentHelp(
            "Compare with another checkpoint, a mask file, or the results_….json of an earlier run.",
            valueName: "path"))
    var compare: String?
    @Option(help: ArgumentHelp("Documents of each task, the first ones.", valueName: "n"))
    var limit: Int?
    @Option(
        help: ArgumentHelp(
            "Write results and samples below this folder, and resume from it.", valueName: "dir"))
    var output: String?
    @Option(help: ArgumentHelp("Seed of the choice of examples.", valueName: "n"))
    var fewshotSeed = 1234
    @Option(help: "Seed of sampled answers.")
    var seed: UInt64 = 0
    @Option(
        help: ArgumentHelp(
            "The most tokens that the model reads at a time; by default its own context.", valueName: "n"))
    var context: Int?
    @OptionGroup var programs: ProgramOptions
    @Flag(help: "Discard the answers of a run that was stopped.")
    var overwrite = false
    @Flag(help: "JSON instead of a table.")
    var json = false
    @Flag(help: "List the names of all tasks, groups and tags.")
    var listTasks = false
    @OptionGroup var compute: EvaluationComputeOptions
    @OptionGroup var workers: WorkerOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        for (name, value, least) in [
            ("num-fewshot", numFewshot, 0), ("limit", limit, 1), ("context", context, 2),
        ] {
            if let value, !(least...1 << 24).contains(value) {
                throw ValidationError("--\(name) is \(value), expected \(least) to \(1 << 24)")
            }
        }
        guard fewshotSeed >= 0 else {
            throw ValidationError("--fewshot-seed is \(fewshotSeed), expected 0 or more")
        }
        guard !listTasks else { return }
        guard let tasks, !tasks.isEmpty else {
            throw ValidationError("Missing expected argument '--tasks <list>'")
        }
        guard data != nil else { throw ValidationError("Missing expected argument '--data <dir>'") }
    }

    func run() throws {
        let library = try TaskLibrary(plan, folders: includePath)
        if listTasks { return try StandardOutput.write(library.names.map { $0 + "\n" }.joined()) }
        try workers.run(resumeCommand: "the same command") { try evaluate(library, $0) }
    }

    private func evaluate(_ library: TaskLibrary, _ communicator: any Communicator) throws {
        let selection = try library.selection(
            (tasks ?? "").split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) })
        let folder = DatasetFolder(data ?? ".")
        var line = ProgressLine(isQuiet: common.quiet || !communicator.isFirst)
        let evaluated = try selection.tasks.map { definition in
            line.show("reading \(definition.name)")
            return try EvaluationTask(
                programs.apply(to: definition), data: folder, shots: numFewshot, seed: fewshotSeed)
        }
        line.clear()
        let isolation = try programs.isolation(selection.tasks)
        // What cannot be compared is found before the first hour of work.
        let other = try compare.map { try ComparedSide($0, model: modelOptions.model) }
        Interruption.install(hangUp: communicator.isShared, termination: communicator.isShared)
        let (model, tokenizer) = try load(modelOptions)
        let mask = try masking.load(for: model, common.logger)
        let first = try results(
            of: model, tokenizer, mask, name: Self.name(modelOptions.model, masks: masking.mask),
            masking.mask, evaluated,
            selection, isolation, communicator)
        if communicator.isFirst { try show(first.results, first.description) }
        guard let other else { return }
        let second: EvaluationComparison.Side
        switch other {
        case .results(let side): second = side
        case .mask(let path):
            let edit = try MaskOptions.read(path, for: model, common.logger).mask.applied(strength: 0)
            let name = Self.name(modelOptions.model, masks: [path])
            second = .init(
                try results(
                    of: model, tokenizer, edit, name: name, [path], evaluated, selection, isolation,
                    communicator
                )
                .results,
                name: path.lastPathName)
        case .model(let options):
            let (model, tokenizer) = try load(options)
            second = .init(
                try results(
                    of: model, tokenizer, nil, name: options.model, [], evaluated, selection, isolation,
                    communicator
                )
                .results,
                name: options.model.lastPathName)
        }
        guard communicator.isFirst else { return }
        let name =
            masking.mask.isEmpty
            ? modelOptions.model.lastPathName : masking.mask.map(\.lastPathName).joined(separator: "+")
        let comparison = try EvaluationComparison(.init(first.results, name: name), second)
        try StandardOutput.write(
            json
                ? comparison.json.serialized(pretty: true) + "\n"
                : "\n" + alignedTable(comparison.table, textColumns: [1]))
    }

    private func load(_ options: ModelOptions) throws -> (MonetLanguageModel, Tokenizer) {
        let (model, tokenizer) = try options.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: options.model, purpose: "text")
        }
        return (model, tokenizer)
    }

    /// A model's name among results, with the masks that change it.
    private static func name(_ model: String, masks: [String]) -> String {
        ([model] + masks.map { ($0.lastPathName as NSString).deletingPathExtension }).joined(separator: "+")
    }

    /// Runs all tasks, and writes the files if there is a folder for them.
    private func results(
        of model: MonetLanguageModel, _ tokenizer: Tokenizer, _ mask: UnitMask?, name: String,
        _ masks: [String],
        _ evaluated: [EvaluationTask], _ selection: TaskSelection, _ isolation: ProgramIsolation?,
        _ communicator: any Communicator
    ) throws -> (results: EvaluationResults, description: EvaluationResults.RunDescription) {
        let start = Date()
        var description = EvaluationResults.RunDescription(
            model: name, arguments: arguments(masks: masks), limit: limit, start: start)
        let records = output.map { $0 + "/" + description.sanitizedModel + "/answers.jsonl" }
        if let output, communicator.isFirst {
            try AtomicFile.createFolder(output + "/" + description.sanitizedModel)
        }
        let run = EvaluationRun(
            model: model, tokenizer: tokenizer, backend: try compute.backend(model, communicator), mask: mask,
            tasks: evaluated,
            groups: selection.groups, contextLength: context, seed: seed, isolation: isolation,
            communicator: communicator)
        var line = ProgressLine(isQuiet: common.quiet || !communicator.isFirst)
        do {
            let results = try run.results(limit: limit, recordsPath: records, overwrite: overwrite) {
                progress in
                line.show(Self.text(progress, seconds: Date().timeIntervalSince(start)))
                return !Interruption.isRequested
            }
            line.clear()
            description.end = Date()
            if let output, communicator.isFirst {
                let path = try results.write(to: output, description)
                if let records { try? FileManager.default.removeItem(atPath: records) }
                if !common.quiet { StandardError.write("wrote \(path)\n") }
            }
            return (results, description)
        } catch is CancellationError {
            line.clear()
            if communicator.isFirst {
                StandardError.write(
                    records.map { "stopped; the same command goes on from \($0)\n" }
                        ?? "stopped; with --output the same command could have continued\n")
            }
            throw Interruption.exitCode
        }
    }

    private func show(_ results: EvaluationResults, _ description: EvaluationResults.RunDescription) throws {
        if json, compare == nil {
            return try StandardOutput.write(results.json(description).serialized(pretty: true) + "\n")
        }
        if !json {
            try StandardOutput.write(alignedTable(results.rows, textColumns: [2, 3]) + notes(results))
        }
    }

    /// Settings of the command, for the record.
    private func arguments(masks: [String]) -> [JSONValue.Member] {
        [
            .init("protocol", .string(plan.rawValue)),
            .init("num_fewshot", numFewshot.map { .integer($0) } ?? .null),
            .init("mask", .array(masks.map { .string($0) })),
            .init("fewshot_seed", .integer(fewshotSeed)),
            .init("random_seed", .string("\(seed)")),
        ]
    }

    private func notes(_ results: EvaluationResults) -> String {
        var notes: [String] = []
        if let table = results.paperTable {
            notes.append(
                "Paper's average of eight (\(plan.rawValue)): "
                    + table.columns.map { "\($0.name) \($0.value.text(3))" }.joined(separator: "  ")
                    + "  average \(table.average.text(3))")
        }
        let chance = results.atChance
        if !chance.isEmpty {
            notes.append("Within two standard errors of guessing: \(chance.joined(separator: ", ")).")
        }
        return notes.isEmpty ? "" : "\n" + notes.joined(separator: "\n") + "\n"
    }

    private static func text(_ progress: EvaluationRun.Progress, seconds: Double) -> String {
        let counted = "\(progress.done.grouped) of \(progress.total.grouped) documents  \(progress.task)"
        guard progress.doneNow > 0 else { return counted }
        let rate = Double(progress.doneNow) / seconds
        let left = (Double(progress.total - progress.done) / rate).durationText
        return counted + "  \((Double(progress.tokens) / seconds).text(0)) tokens/s  \(left) left"
    }
}

/// What a run is compared with.
private enum ComparedSide {
    case model(ModelOptions)
    case mask(String)
    case results(EvaluationComparison.Side)

    /// - Throws: `ValidationError` for what is none of them, `FileError`, `EvaluationError`.
    init(_ path: String, model: String) throws {
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        if exists, !isFolder.boolValue {
            self = path.hasSuffix(".json") ? .results(try .init(resultsFile: path)) : .mask(path)
            return
        }
        guard let options = try? ModelOptions.parse(["--model", path]), (try? options.folder()) != nil else {
            throw FileError.unreadable(
                path: path, reason: "neither a checkpoint, a mask file nor the results_….json of a run")
        }
        self = .model(options)
    }
}

/// Where evaluations run: sums are in an order that does not depend on the batch.
struct EvaluationComputeOptions: ParsableArguments {
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @Option(
        help:
            "Precision of dense matrix products: float32 or bfloat16; by default bfloat16 for weights in bfloat16."
    )
    var dtype: ComputePrecision?

    func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads is \(threads), expected 1 to 1024")
        }
    }

    /// The backend for a model; processes divide the processors among them, on which no sum depends.
    func backend(_ model: MonetLanguageModel, _ communicator: any Communicator = SingleProcess()) throws
        -> CPUBackend
    {
        try ComputeOptions.backend(
            threads: threads ?? Workers.threadsPerProcess(communicator),
            precision: dtype ?? .ofWeights(model.configuration), isBatchInvariant: true)
    }
}

extension EvaluationProtocol: ExpressibleByArgument {}
