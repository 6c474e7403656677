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

            Rows are the labels whose specialists are removed, columns the labels that are measured on the \
            corpus's held-out documents: increase of the mean loss in nats, and decrease of the cloze \
            accuracy (the share of tokens that are the most likely one) in percentage points. Beside it stand \
            random masks of equal size, and with --dense the specialist neurons of a dense Llama.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var indexOptions: IndexOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "The label set of the index.")
    var set: String?
    @Option(help: "Mean score in a label over that in the next, from which an expert is its specialist.")
    var ratio = 2.0
    @Option(help: "Share of tokens that a specialist fires on at least.")
    var minFrequency = 0.0
    @Option(help: "Random masks beside each.")
    var random = 1
    @Option(help: ArgumentHelp("A dense Llama trained on the same data, to compare with.", valueName: "dir"))
    var dense: String?
    @Option(help: "Tokens from which the dense model's neurons are judged.")
    var denseTokens = 300_000
    @Option(help: ArgumentHelp("Ratios to measure too, separated by commas.", valueName: "list"))
    var sweep: String?
    @Flag(help: "JSON instead of tables.")
    var json = false
    @Option(help: ArgumentHelp("Write the heat map of the loss.", valueName: "path"))
    var svg: String?
    @Option(help: ArgumentHelp("Write a page with the heat maps.", valueName: "path"))
    var html: String?
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(ratio >= 1) { throw ValidationError("--ratio is \(ratio), expected 1 or more") }
        if !(0...100).contains(random) { throw ValidationError("--random is \(random), expected 0 to 100") }
        _ = try sweepRatios()
    }

    private func sweepRatios() throws -> [Double] {
        try (sweep ?? "").split(separator: ",").map {
            guard let ratio = Double($0.trimmingCharacters(in: .whitespaces)), ratio >= 1 else {
                throw ValidationError("--sweep: '\($0)' is not a ratio of 1 or more")
            }
            return ratio
        }
    }

    func run() throws {
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let index = try ExpertIndex(path: indexOptions.index, model: model)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: .validation)
        let backend = try compute.backend()
        let labels = try documents.labelSets.first?.labels.map { try index.label($0, set: set) } ?? []
        let ratios = try sweepRatios()
        let runs =
            1 + labels.count * (1 + random) * (1 + ratios.count) + (dense == nil ? 0 : labels.count + 1)
        var progress = TokenProgress(total: documents.tokenCount * runs, isQuiet: common.quiet)
        var read = 0
        func advance(_ tokens: Int) -> Bool {
            read += tokens
            return progress.show(read)
        }
        do {
            let experiment = try UnlearningExperiment(
                model: model, documents: documents, backend: backend, progress: advance)
            func edits(_ ratio: Double) throws -> [ModelEdit] {
                try labels.map { label in
                    .experts(
                        try index.mask(
                            of: label, ratio: ratio, minimumFrequency: minFrequency))
                }
            }
            let matrix = try experiment.matrix(edits(ratio), randomSeeds: random, progress: advance)
            let neurons = try dense.map {
                try denseMatrix(
                    $0, documents: documents, removedShare: matrix, index: index, backend, advance)
            }
            let points = try ratios.map { ratio in
                (ratio, try experiment.matrix(edits(ratio), randomSeeds: random, progress: advance))
            }
            try progress.finish()
            try report(matrix, neurons, points, index)
        } catch is UnlearningExperiment.Stopped {
            try progress.finish()
        }
    }

    /// The same for a dense model: as large a share of its neurons, those most special to each label.
    private func denseMatrix(
        _ name: String, documents: LabelledDocuments, removedShare matrix: UnlearningMatrix,
        index: ExpertIndex, _ backend: CPUBackend, _ advance: (Int) -> Bool
    ) throws -> UnlearningMatrix {
        let folder = try HubCache.resolve(name)
        let model = try MonetLanguageModel.load(folder)
        let read = try documentOptions.documents(
            tokenizer: try? Tokenizer(folder: folder), modelFolder: folder, split: .train,
            limit: denseTokens)
        let statistics = try NeuronStatistics(of: read, model: model, backend: backend)
        let experts = Double(index.groups * index.expertsPerSide * index.expertsPerSide)
        let neurons = Double(model.configuration.layerCount * statistics.units)
        let edits = matrix.labels.enumerated().map { label, name -> ModelEdit in
            let share = Double(matrix.rows[label].removed) / experts
            let place = statistics.labels.firstIndex(of: name) ?? label
            return .neurons(
                statistics.strongest(of: place, count: Int((share * neurons).rounded(.up))))
        }
        let experiment = try UnlearningExperiment(
            model: model, documents: documents, backend: backend, progress: advance)
        return try experiment.matrix(edits, progress: advance)
    }

    private func report(
        _ matrix: UnlearningMatrix, _ dense: UnlearningMatrix?,
        _ points: [(ratio: Double, matrix: UnlearningMatrix)], _ index: ExpertIndex
    ) throws {
        let name = (try modelOptions.folder() as NSString).lastPathComponent
        let title = "Loss with a label's specialists removed, \(name)"
        if let svg {
            try AtomicFile.write(matrix.heatMap(.loss, title: title).svg(), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if let html {
            var pictures = [
                matrix.heatMap(.loss, title: "Increase of the loss, nats per token"),
                matrix.heatMap(.accuracy, title: "Decrease of the cloze accuracy, percentage points"),
            ]
            if let dense {
                pictures.append(
                    dense.heatMap(.loss, title: "The same for neurons of a dense Llama: increase of the loss")
                )
            }
            let page = HeatMap.page(
                title: "What \(name) loses with each label's specialists",
                pictures: pictures, notes: notes(matrix, dense, index))
            try AtomicFile.write(page, to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json {
            var members: [JSONValue.Member] = [
                .init("ratio", .number(ratio)), .init("experts", matrix.json()),
            ]
            if let dense { members.append(.init("neurons", dense.json())) }
            if !points.isEmpty {
                members.append(
                    .init(
                        "sweep",
                        .array(
                            points.map { point in
                                ["ratio": .number(point.ratio), "experts": point.matrix.json()]
                            })))
            }
            return StandardOutput.write(.object(members))
        }
        StandardOutput.write("increase of the loss, nats per token\n" + matrix.table(.loss))
        StandardOutput.write(
            "\ndecrease of the cloze accuracy, percentage points\n" + matrix.table(.accuracy))
        if let dense {
            StandardOutput.write("\nneurons of the dense model, increase of the loss\n" + dense.table(.loss))
        }
        StandardOutput.write("\n" + notes(matrix, dense, index).joined(separator: "\n") + "\n")
        if points.isEmpty { return }
        let rows = points.map { point in
            let summary = point.matrix.summary(.loss)
            return [
                point.ratio.text(2), summary.removed.text(0), summary.target.text(4), summary.others.text(4),
                summary.random?.text(4) ?? "", summary.selectivity.text(1),
            ]
        }
        StandardOutput.write(
            "\n" + alignedTable([["ratio", "experts", "target", "others", "random", "target/others"]] + rows))
    }

    private func notes(_ matrix: UnlearningMatrix, _ dense: UnlearningMatrix?, _ index: ExpertIndex)
        -> [String]
    {
        func line(_ what: String, _ matrix: UnlearningMatrix) -> String {
            let loss = matrix.summary(.loss)
            var text =
                "\(what): on average \(loss.removed.text(0)) removed; loss +\(loss.target.text(4)) on the target, "
                + "\(loss.others < 0 ? "" : "+")\(loss.others.text(4)) on the others, \(loss.selectivity.text(1)) times as much"
            if let random = loss.random {
                text +=
                    "; random masks of equal size cost the target \(random < 0 ? "" : "+")\(random.text(4))"
            }
            return text + "."
        }
        let experts = index.groups * index.expertsPerSide * index.expertsPerSide
        var notes = [
            line("Experts (specialists by a ratio of \(ratio) or more, of \(experts.grouped))", matrix)
        ]
        if let dense { notes.append(line("Neurons of the dense model (as large a share)", dense)) }
        return notes
    }
}
