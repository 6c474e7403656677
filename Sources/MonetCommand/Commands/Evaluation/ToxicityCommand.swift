import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct ToxicityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "toxicity",
        abstract: "Measure how toxic a model's continuations are, with and without its toxic experts.",
        subcommands: [
            ToxicityMeasureCommand.self, ToxicityScoreCommand.self, ToxicityTrainScorerCommand.self,
        ])
}

struct ToxicityMeasureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure",
        abstract: "Score the continuations of prompts, with and without toxic experts by threshold.",
        discussion: """
            EXAMPLES
              monet toxicity measure --model checkpoints/demo --prompts prompts.jsonl
              monet toxicity measure --model checkpoints/demo --prompts prompts.jsonl \\
                  --corpus comments.jsonl --thresholds 0.2,0.1,0.05 --neutral runs/demo/corpus \\
                  --records toxicity.jsonl --html toxicity.html
              PERSPECTIVE_API_KEY=… monet toxicity measure --model checkpoints/demo --prompts prompts.jsonl \\
                  --scorer http --scorer-rate 1 --records toxicity.jsonl

            Prompts are JSONL in the format of RealToxicityPrompts or ToxiGen, or a text file with one per \
            line. For each threshold, the experts whose routing score has a higher correlation with the \
            number in --corpus are removed (section 5 of the paper); --mask adds an edit from a file. With \
            --records, a run that was stopped continues where it left off.
            """)

    enum Plan: String, ExpressibleByArgument, CaseIterable {
        case realToxicityPrompts = "real-toxicity-prompts"
        case toxigen
    }

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: ArgumentHelp("The prompts.", valueName: "path"))
    var prompts: String
    @Option(help: "Use only this many prompts, the first ones.")
    var limit: Int?
    @Option(
        name: .customLong("protocol"),
        help:
            "real-toxicity-prompts (25 samples of 20 tokens, temperature 1, top-p 0.9) or toxigen (30 greedy tokens)."
    )
    var plan: Plan = .realToxicityPrompts
    @Option(help: "Continuations per prompt, instead of the protocol's number.")
    var samples: Int?
    @Option(name: [.customShort("n"), .long], help: "Tokens per continuation, instead of the protocol's.")
    var maxNewTokens: Int?
    @Option(help: "Seed of the sampling.")
    var seed: UInt64 = 0
    @OptionGroup var scorerOptions: ScorerOptions
    @Option(
        help: ArgumentHelp("JSONL with scored texts, to find toxic experts with.", valueName: "path"))
    var corpus: String?
    @Option(help: "JSONL column with the number.")
    var number = "toxicity"
    @Option(help: "JSONL column with the text.")
    var textKey = "text"
    @Option(help: "What counts as an observation of the correlation: token or document.")
    var level: ScoreCorrelation.Level = .token
    @Option(
        help: ArgumentHelp(
            "Correlations above which experts are removed, separated by commas.", valueName: "list"))
    var thresholds = "0.2,0.1,0.05"
    @OptionGroup var masking: MaskOptions
    @Option(
        help: ArgumentHelp(
            "Neutral text to measure helpfulness on: a corpus folder (its held-out documents), text or JSONL.",
            valueName: "path"))
    var neutral: String?
    @Option(help: "Maximum number of neutral tokens.")
    var neutralTokens = 20_000
    @Option(help: ArgumentHelp("Store every prompt's result here, and resume from it.", valueName: "path"))
    var records: String?
    @Flag(help: "Discard existing records, and replace existing files.")
    var overwrite = false
    @Flag(help: "JSON instead of a table.")
    var json = false
    @Option(help: ArgumentHelp("Write the plot as SVG.", valueName: "path"))
    var svg: String?
    @Option(help: ArgumentHelp("Write an HTML page with the plot and tables.", valueName: "path"))
    var html: String?
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        for (name, value) in [
            ("limit", limit), ("samples", samples), ("max-new-tokens", maxNewTokens),
            ("neutral-tokens", neutralTokens),
        ] {
            if let value, !(1...1 << 20).contains(value) {
                throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 20)")
            }
        }
        _ = try thresholdValues()
    }

    private func thresholdValues() throws -> [Double] {
        try thresholds.split(separator: ",").map {
            guard let value = Double($0.trimmingCharacters(in: .whitespaces)), (-1...1).contains(value) else {
                throw ValidationError("--thresholds: '\($0)' is not a correlation from -1 to 1")
            }
            return value
        }
    }

    private var settings: ToxicityProtocol {
        var result = plan == .toxigen ? ToxicityProtocol.toxiGen : .realToxicityPrompts
        if let samples { result.samples = samples }
        if let maxNewTokens { result.tokens = maxNewTokens }
        return result
    }

    func run() throws {
        try OverwriteOption.check([svg, html], overwrite: overwrite)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "text")
        }
        let prompts = try ToxicityPrompt.read(prompts, limit: limit)
        let backend = try compute.backend()
        let scorer = try scorerOptions.make(isQuiet: common.quiet)
        Interruption.install()
        let neutralDocuments = try neutral.map { try documents(at: $0, tokenizer) }
        let edits = try edits(model, tokenizer, backend)
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        do {
            let results = try ToxicityExperiment(
                model: model, tokenizer: tokenizer, backend: backend, prompts: prompts, plan: settings,
                scorer: scorer, seed: seed
            ).run(edits, recordsPath: records, overwrite: overwrite, neutral: neutralDocuments) { progress in
                line.show(Self.text(progress, seconds: (ContinuousClock.now - start).seconds))
                return !Interruption.isRequested
            }
            line.clear()
            try report(
                ToxicityReport(
                    plan: settings, promptCount: prompts.count, scorer: scorer, results: results,
                    separate: Set((edits.count - masking.mask.count)..<edits.count)))
        } catch is CancellationError {
            line.clear()
            StandardError.write(
                records.map { "stopped; the same command goes on from \($0)\n" }
                    ?? "stopped; with --records the same command could have continued\n")
            throw Interruption.exitCode
        } catch let error as EvaluationError {
            line.clear()
            if let records {
                StandardError.write(
                    "what was done is kept in \(records); the same command goes on from there\n")
            }
            throw error
        }
    }

    private static func text(_ progress: ToxicityExperiment.Progress, seconds: Double) -> String {
        let counted = "\(progress.done.grouped) of \(progress.total.grouped) prompts  \(progress.edit)"
        guard progress.doneNow > 0 else { return counted }
        let rate = Double(progress.doneNow) / seconds
        let left = (Double(progress.total - progress.done) / rate).durationText
        return counted
            + "  expected maximum \(progress.expectedMaximum.text(3))  \(rate.text(2)) prompts/s  \(left) left"
    }

    /// The edits to compare: none, one for each threshold, and one for each mask.
    private func edits(
        _ model: MonetLanguageModel, _ tokenizer: Tokenizer, _ backend: CPUBackend
    ) throws -> [ToxicityExperiment.Edit] {
        var edits = [ToxicityExperiment.Edit(name: "nothing", mask: nil)]
        if let corpus {
            let read = try LabelledDocuments(
                sources: [CorpusSource(path: corpus, textKey: textKey)], tokenizer: tokenizer,
                numberKey: number)
            var progress = TokenProgress(total: read.tokenCount, isQuiet: common.quiet)
            let correlation = try ScoreCorrelation(of: read, level: level, model: model, backend: backend) {
                progress.show($0)
            }
            try progress.finish()
            for threshold in try thresholdValues() {
                var mask = UnitMask(model.units)
                let chosen = correlation.units(above: threshold)
                for group in correlation.values.indices {
                    mask.remove(chosen.filter { $0.group == group }.map(\.index), group: group)
                }
                edits.append(.init(name: "above \(threshold)", mask: mask))
            }
        }
        // The experiment adds the model's own mask, if it has one, to each.
        for (name, mask) in try masking.loadEach(for: model, common.logger) {
            edits.append(.init(name: name.lastPathName, mask: mask))
        }
        return edits
    }

    private func documents(at path: String, _ tokenizer: Tokenizer) throws -> LabelledDocuments {
        if FileManager.default.fileExists(atPath: path + "/corpus.json") {
            return try LabelledDocuments(
                corpus: Corpus(folder: path), split: .validation, limit: neutralTokens)
        }
        return try LabelledDocuments(
            sources: [CorpusSource(path: path, textKey: textKey)], tokenizer: tokenizer, limit: neutralTokens)
    }

    private func report(_ report: ToxicityReport) throws {
        let name = try modelOptions.title()
        for (path, text) in [
            (svg, svg.map { _ in report.plot(title: "Toxicity of \(name) with experts removed").svg() }),
            (
                html,
                html.map { _ in
                    report.page(
                        title: "Toxicity of \(name)", origin: .ofThisCommand(model: name, corpus: prompts))
                }
            ),
        ] {
            guard let path, let text else { continue }
            try AtomicFile.write(text, to: path)
            if !common.quiet { StandardError.write("wrote \(path)\n") }
        }
        if json { return try StandardOutput.write(report.json()) }
        try StandardOutput.write(alignedTable(report.table))
        if !report.groupTable.isEmpty { try StandardOutput.write("\n" + alignedTable(report.groupTable)) }
        try StandardOutput.write("\n" + report.notes.joined(separator: "\n") + "\n")
    }
}
