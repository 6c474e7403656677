import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct UnlearnMatrixCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unlearn-matrix",
        abstract: "Remove each label's specialists and measure what every label loses.",
        discussion: """
            EXAMPLES
              monet unlearn-matrix --model checkpoints/demo --index demo.sqlite --corpus runs/demo/corpus \\
                  --html unlearning.html
              monet unlearn-matrix --model checkpoints/demo --index demo.sqlite --corpus runs/demo/corpus \\
                  --sweep 1.5,2,3,5 --json
              monet unlearn-matrix --model checkpoints/demo --tasks mmlu --categories mmlu-pro \\
                  --data benchmarks --num-fewshot 5 --html mmlu.html
              monet unlearn-matrix --model M --tasks multipl-e-py,multipl-e-cpp,multipl-e-lua \\
                  --categories tasks --samples 20 --data benchmarks

            Rows are the labels whose specialists are removed, and columns the labels that are measured on \
            the corpus's held-out documents: the increase of the mean loss in nats, and the decrease of \
            cloze accuracy (next-token accuracy: the share of tokens that the model ranks as the most \
            likely) in percentage points. Random experts, as many and firing as often, serve as a control, and \
            with --dense also the specialist neurons of a dense Llama.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: ArgumentHelp("The index that knows each label's specialists.", valueName: "path"))
    var index: String?
    @Option(
        help: ArgumentHelp(
            "Benchmarks to measure, instead of a corpus, separated by commas.", valueName: "list"))
    var tasks: String?
    @Option(
        help: ArgumentHelp(
            "How their questions are divided: tasks, mmlu-pro (fourteen categories), or a column of the data.",
            valueName: "name"))
    var categories = "mmlu-pro"
    @Option(help: ArgumentHelp("The folder with the benchmarks' data.", valueName: "dir"))
    var data: String?
    @Option(help: ArgumentHelp("Examples before each question.", valueName: "n"))
    var numFewshot: Int?
    @Option(name: .customLong("protocol"), help: "Prompts of the benchmarks: lm-eval or lighteval.")
    var plan: EvaluationProtocol = .harness
    @Option(help: ArgumentHelp("Questions of each task, the first ones.", valueName: "n"))
    var taskLimit: Int?
    @OptionGroup var programs: ProgramOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "The label set of the index.")
    var set: String?
    @OptionGroup var specialists: SpecialistOptions
    @Option(help: "Number of random masks to compare each with.")
    var random = 5
    @Option(help: ArgumentHelp("A dense Llama trained on the same data, to compare with.", valueName: "dir"))
    var dense: String?
    @Option(help: "Tokens from which the dense model's specialist neurons are determined.")
    var denseTokens = 300_000
    @Option(help: ArgumentHelp("Further ratios to measure, separated by commas.", valueName: "list"))
    var sweep: String?
    @Flag(help: "JSON instead of tables.")
    var json = false
    @Option(help: ArgumentHelp("Write the heat map of the loss as SVG.", valueName: "path"))
    var svg: String?
    @Option(help: ArgumentHelp("Write an HTML page with the heat maps.", valueName: "path"))
    var html: String?
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(0...100).contains(random) { throw ValidationError("--random is \(random), expected 0 to 100") }
        _ = try sweepRatios()
        if tasks != nil {
            guard data != nil else { throw ValidationError("Missing expected argument '--data <dir>'") }
            for (name, isGiven) in [
                ("index", index != nil), ("corpus", !documentOptions.corpus.isEmpty), ("dense", dense != nil),
                ("sweep", sweep != nil),
            ] where isGiven { throw ValidationError("--\(name) does not go with --tasks") }
        } else if programs.samples != 1 || programs.temperature != nil || programs.unsafeExecution
            || programs.maxNewTokens != nil
        {
            throw ValidationError(
                "--samples, --temperature, --max-new-tokens and --unsafe-execution go with --tasks")
        } else if index == nil {
            throw ValidationError("Missing expected argument '--index <path>'")
        }
        for (name, value, least) in [("num-fewshot", numFewshot, 0), ("task-limit", taskLimit, 1)] {
            if let value, !(least...1 << 24).contains(value) {
                throw ValidationError("--\(name) is \(value), expected \(least) or more")
            }
        }
    }

    private func sweepRatios() throws -> [Double] {
        try (sweep ?? "").split(separator: ",").map {
            guard let ratio = Double($0.trimmingCharacters(in: .whitespaces)), ratio >= 1, ratio.isFinite
            else {
                throw ValidationError("--sweep: '\($0)' is not a ratio of 1 or more")
            }
            return ratio
        }
    }

    func run() throws {
        try overwriting.check(svg, html)
        if let tasks { return try measureTasks(tasks) }
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let index = try ExpertIndex(path: index ?? "")
        try model.accept(index, common.logger)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: .validation)
        var plan = UnlearningComparison.Plan()
        plan.labelSet = set
        plan.criterion = specialists.criterion
        plan.sweep = try sweepRatios()
        plan.draws = random
        let passes = plan.passes(
            labels: documents.labelSets.first?.labels.count ?? 0, comparesDense: dense != nil)
        var progress = TokenProgress(total: documents.tokenCount * passes, isQuiet: common.quiet)
        var read = 0
        do {
            let comparison = try UnlearningComparison(
                plan, model: model, index: index, documents: documents, dense: dense.map(denseModel),
                backend: try compute.backend()
            ) { tokens in
                read += tokens
                return progress.show(read)
            }
            try progress.finish()
            try report(comparison)
        } catch is UnlearningExperiment.Stopped {
            try progress.finish()
        }
    }

    private func measureTasks(_ names: String) throws {
        let selection = try TaskLibrary(plan).selection(
            names.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) })
        let folder = DatasetFolder(data ?? "")
        let evaluated = try selection.tasks.map {
            try EvaluationTask(programs.apply(to: $0), data: folder, shots: numFewshot)
        }
        let isolation = try programs.isolation(selection.tasks)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "text")
        }
        Interruption.install()
        var settings = TaskUnlearning.Plan()
        settings.categories = TaskCategories(categories)
        settings.criterion = specialists.criterion
        settings.draws = random
        settings.limit = taskLimit
        var line = ProgressLine(isQuiet: common.quiet)
        let start = Date()
        let backend = try ComputeOptions.backend(
            threads: compute.threads, precision: compute.dtype ?? .ofWeights(model.configuration),
            isBatchInvariant: true)
        do {
            let result = try TaskUnlearning(
                settings, tasks: evaluated, model: model, tokenizer: tokenizer, backend: backend,
                isolation: isolation
            ) { progress in
                let part = Double(progress.documents) / Double(max(1, progress.total))
                let share = (Double(progress.evaluation) + part) / Double(progress.evaluations)
                let left = (Date().timeIntervalSince(start) * (1 - share) / max(share, 1e-9)).durationText
                line.show(
                    "\(progress.evaluation + 1) of \(progress.evaluations) evaluations  "
                        + "\(progress.documents.grouped) of \(progress.total.grouped) questions  \(left) left"
                )
                return !Interruption.isRequested
            }
            line.clear()
            try report(result)
        } catch is CancellationError {
            line.clear()
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
    }

    private func report(_ result: TaskUnlearning) throws {
        let name = try modelOptions.title()
        if let svg {
            let title = "Accuracy with a category's specialists removed, \(name)"
            try AtomicFile.write(result.matrix.heatMap(.accuracy, title: title).svg(), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if let html {
            let page = HeatMap.page(
                title: "What \(name) loses with each category's specialists", lead: result.notes,
                pictures: result.pictures, definitions: result.definitions,
                origin: .ofThisCommand(model: name, corpus: "\(tasks ?? "") (\(data ?? ""))"))
            try AtomicFile.write(page, to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json { return try StandardOutput.write(result.json()) }
        try StandardOutput.write(alignedTable(result.baselineTable) + "\n")
        let accuracy = result.arePrograms ? "pass@1" : "accuracy"
        try write(
            result.matrix, .accuracy, "decrease of the \(accuracy), percentage points", "experts")
        if !result.arePrograms {
            try write(
                result.matrix, .loss, "increase of −log p of the right choice, nats per question", "experts")
        }
        try StandardOutput.write(result.notes.joined(separator: "\n") + "\n")
    }

    private func denseModel(_ name: String) throws -> UnlearningComparison.Dense {
        let folder = try HubCache().resolve(name)
        return UnlearningComparison.Dense(
            model: try MonetLanguageModel.load(folder),
            documents: try documentOptions.documents(
                tokenizer: try? Tokenizer(folder: folder), modelFolder: folder, split: .train,
                limit: denseTokens))
    }

    private func report(_ comparison: UnlearningComparison) throws {
        let name = try modelOptions.title()
        if let svg {
            let title = "Loss with a label's specialists removed, \(name)"
            try AtomicFile.write(comparison.matrix.heatMap(.loss, title: title).svg(), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if let html {
            let page = HeatMap.page(
                title: "What \(name) loses with each label's specialists", lead: comparison.notes,
                pictures: comparison.pictures,
                definitions: comparison.definitions,
                origin: .ofThisCommand(model: name, corpus: documentOptions.corpus.joined(separator: ", ")))
            try AtomicFile.write(page, to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json { return try StandardOutput.write(comparison.json()) }
        let (loss, accuracy) = (
            "increase of the loss, nats per token", "decrease of the cloze accuracy, percentage points"
        )
        try write(comparison.matrix, .loss, loss, "experts")
        try write(comparison.matrix, .accuracy, accuracy, "experts")
        if let dense = comparison.dense {
            try write(dense, .loss, "neurons of the dense model, " + loss, "neurons")
        }
        try StandardOutput.write(comparison.notes.joined(separator: "\n") + "\n")
        if comparison.sweep.isEmpty { return }
        let rows = comparison.sweep.map { point in
            let summary = point.matrix.summary(.loss)
            return [
                point.ratio.text(2), summary.removed.text(0), summary.target.text(4), summary.others.text(4),
                summary.random?.mean.text(4) ?? "", summary.selectivity.text(1),
            ]
        }
        try StandardOutput.write(
            "\n" + alignedTable([["ratio", "experts", "target", "others", "random", "target/others"]] + rows))
    }

    private func write(
        _ matrix: UnlearningMatrix, _ metric: UnlearningMatrix.Metric, _ title: String, _ units: String
    ) throws {
        try StandardOutput.write(title + "\n" + matrix.table(metric) + "\n")
        let control = matrix.controlTable(metric)
        if control.isEmpty { return }
        try StandardOutput.write(
            "the same for random \(units), as many and firing as often (mean of \(random), ± standard deviation)\n"
                + control + "\n")
    }
}
