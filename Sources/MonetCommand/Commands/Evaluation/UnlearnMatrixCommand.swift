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

            Rows are the labels whose specialists are removed, and columns the labels that are measured on \
            the corpus's held-out documents: the increase of the mean loss in nats, and the decrease of \
            cloze accuracy (next-token accuracy: the share of tokens that the model ranks as the most \
            likely) in percentage points. Random experts, as many and firing as often, serve as a control, and \
            with --dense also the specialist neurons of a dense Llama.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var indexOptions: IndexOptions
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
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let index = try ExpertIndex(path: indexOptions.index, model: model)
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

    private func denseModel(_ name: String) throws -> UnlearningComparison.Dense {
        let folder = try HubCache().resolve(name)
        return UnlearningComparison.Dense(
            model: try MonetLanguageModel.load(folder),
            documents: try documentOptions.documents(
                tokenizer: try? Tokenizer(folder: folder), modelFolder: folder, split: .train,
                limit: denseTokens))
    }

    private func report(_ comparison: UnlearningComparison) throws {
        let name = try modelOptions.folder().lastPathName
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
