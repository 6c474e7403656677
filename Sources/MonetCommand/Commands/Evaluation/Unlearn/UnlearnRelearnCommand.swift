import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import MonetTraining

struct UnlearnRelearnCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "relearn",
        abstract: "How many tokens of fine-tuning bring back what a model should have forgotten.",
        discussion: """
            EXAMPLES
              monet unlearn relearn --model checkpoints/demo --mask runs/scripture.mask \\
                  --beside rmu=checkpoints/rmu --beside never=checkpoints/never-saw-scripture \\
                  --corpus runs/demo/corpus --forget scripture --html relearning.html

            The model itself gives the accuracy to be reached: the share of tokens of held-out documents to \
            forget that it ranks as the most likely. Each mask is made permanent before the fine-tuning, and stays in \
            force; what was removed by training may come back. A model that never saw the documents, trained \
            otherwise alike, shows what forgetting would look like.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var masking: MaskOptions
    @Option(
        help: ArgumentHelp("Another checkpoint to fine-tune. May be repeated.", valueName: "[name=]dir"))
    var beside: [String] = []
    @OptionGroup var forgetting: ForgetOptions
    @Option(help: "Tokens of the fine-tuning.")
    var tokens = Relearning.Settings().tokens
    @Option(help: ArgumentHelp("Tokens between measurements.", valueName: "n"))
    var every = Relearning.Settings().tokensPerMeasurement
    @Option(help: "Held-out tokens of each label that are measured.")
    var heldOut = 4000
    @Option(help: "The share of the model's own accuracy that counts as brought back.")
    var level = 0.95
    @Option(help: "The learning rate.")
    var lr = Relearning.Settings().learningRate
    @Option(help: "Sequences in a step.")
    var batchSize = Relearning.Settings().batchSize
    @Option(help: "Tokens of a sequence; by default 256, or the model's context.")
    var length: Int?
    @Option(help: "Orders of the texts to fine-tune with, from which the spread is computed.")
    var seeds = 1
    @Flag(help: "JSON instead of tables.")
    var json = false
    @Option(help: ArgumentHelp("Write the curves as SVG.", valueName: "path"))
    var svg: String?
    @Option(help: ArgumentHelp("Write an HTML page with curves and tables.", valueName: "path"))
    var html: String?
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(0..<2).contains(level) || level == 0 {
            throw ValidationError("--level is \(level), expected more than 0 and less than 2")
        }
        for (name, value) in [
            ("seeds", seeds), ("held-out", heldOut), ("tokens", tokens), ("every", every),
            ("batch-size", batchSize), ("length", length ?? 1),
        ] where !(1...1 << 28).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 28)")
        }
        if !(lr > 0 && lr.isFinite) { throw ValidationError("--lr is \(lr), expected more than 0") }
    }

    /// Who is fine-tuned: its folder, and what is removed from it.
    private struct Candidate {
        let name: String
        let folder: String
        let mask: UnitMask?

        func load() throws -> MonetLanguageModel {
            let model = try MonetLanguageModel.load(folder, for: .training)
            guard let mask else { return model }
            return try MonetLanguageModel(
                configuration: model.configuration, parameters: model.parameters,
                ownMask: model.ownMask?.union(mask) ?? mask, tunedFrom: model.tunedFrom)
        }
    }

    func run() throws {
        try overwriting.check(svg, html)
        let folder = try modelOptions.folder()
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "text")
        }
        var candidates = try masking.loadEach(for: model, common.logger).map { name, mask in
            Candidate(name: MaskOptions.shownName(name), folder: folder, mask: mask)
        }
        for argument in beside {
            let (name, path) = UnlearnSubjectOptions.split(argument)
            let own = try HubCache().resolve(path)
            try Tokenizer(folder: own).require(sameAs: tokenizer)
            candidates.append(Candidate(name: name, folder: own, mask: nil))
        }
        try UnlearnSubjectOptions.requireDistinct(candidates.map(\.name))
        guard !candidates.isEmpty else {
            throw ValidationError("Give at least one --mask or --beside: who is to learn again.")
        }
        var settings = Relearning.Settings()
        (settings.tokens, settings.tokensPerMeasurement) = (tokens, every)
        (settings.learningRate, settings.batchSize) = (lr, batchSize)
        settings.length = length ?? min(settings.length, model.configuration.contextLength)
        let texts = try forgetting.read(tokenizer, folder: folder, split: .train).forget
        let held = try forgetting.read(tokenizer, folder: folder, split: .validation, perLabel: heldOut)
        let measured = try LabelledDocuments(
            tokens: held.forget + held.retain,
            labels: held.forget.map { _ in [0] } + held.retain.map { _ in [1] },
            labelSets: [.init(name: "unlearning", labels: ["forget", "retain"])], origin: "held-out documents"
        )
        let backend = try ComputeOptions.backend(threads: threads)
        func scores(_ model: MonetLanguageModel) throws -> [Double] {
            let scores = try HeldOutScorer(model: model, backend: backend).scores(measured)
            return [scores[0].accuracy, scores[0].loss, scores[1].accuracy, scores[1].loss]
        }
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let start = Date()
        let total = candidates.count * seeds * tokens
        var done = 0
        var curves: [RelearningReport.Curve] = []
        let original: [Double]
        do {
            original = try scores(model)
            for candidate in candidates {
                for seed in 0..<seeds {
                    settings.seed = UInt64(seed)
                    let run = try Relearning(
                        settings, model: candidate.load(), texts: texts, backend: backend, measure: scores
                    ) { tokens, loss in
                        let share = Double(done + tokens) / Double(total)
                        let left = (Date().timeIntervalSince(start) * (1 - share) / share).durationText
                        line.show(
                            "\(candidate.name)  \(tokens.grouped) of \(self.tokens.grouped) tokens  loss "
                                + "\(loss.text(3))  \(left) left")
                        if Interruption.isRequested { throw CancellationError() }
                    }
                    done += tokens
                    curves.append(
                        .init(
                            name: candidate.name, removed: candidate.mask?.count ?? 0,
                            points: run.points.map { .init(tokens: $0.tokens, values: $0.values) }))
                }
            }
        } catch is CancellationError {
            line.clear()
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
        line.clear()
        try report(
            RelearningReport(
                curves: curves, original: original, level: level,
                what: forgetting.labels.joined(separator: ", ")),
            name: folder.lastPathName)
    }

    private func report(_ report: RelearningReport, name: String) throws {
        let title = "Learning \(report.what) again, \(name)"
        if let svg {
            try AtomicFile.write(report.plot(title: title).svg(), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if let html {
            let corpus = forgetting.documents.corpus.joined(separator: ", ")
            let page = report.page(title: title, origin: .ofThisCommand(model: name, corpus: corpus))
            try AtomicFile.write(page, to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json { return try StandardOutput.write(report.json()) }
        try StandardOutput.write(alignedTable(report.table) + "\n" + alignedTable(report.summaryTable))
    }
}
