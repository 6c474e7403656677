import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct SteerSweepCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "sweep",
        abstract: "Measure the effect of steering against its damage, over a range of strengths.",
        discussion: """
            EXAMPLES
              monet steer sweep --model checkpoints/demo --pairs pairs.jsonl --hook blocks.2.hook_resid_post \
            --prompts prompts.txt --metric "logit( shall)-logit( did)" --neutral runs/demo/corpus --svg sweep.svg
              monet steer sweep --model checkpoints/demo --units 1/223,0/457 --prompts prompts.txt \
            --label scripture --corpus runs/demo/corpus --neutral runs/demo/corpus

            The effect is a metric after each prompt, the probability of a label by a classifier trained on the corpus's texts, or \
            a scorer's score of continuations; the damage is the loss and the next-token accuracy on held-out text. Experts are \
            forced with every score of --scores, beside random experts that fire as often, and beside the difference of means at \
            --hook, times every number of --scales.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: ArgumentHelp("Experts to force as GROUP/EXPERT, separated by commas.", valueName: "list"))
    var units: String?
    @OptionGroup var contrast: ContrastOptions
    @Option(help: "Experts taken from --pairs, those with the largest risk difference.")
    var top = 4
    @Option(help: ArgumentHelp("Scores to force, separated by commas.", valueName: "list"))
    var scores = "0.25,0.5,1,2"
    @Option(help: ArgumentHelp("Where the difference of means of --pairs is added.", valueName: "hook"))
    var hook: String?
    @Option(
        help: ArgumentHelp("Multiples of the difference of means, separated by commas.", valueName: "list"))
    var scales = "0.5,1,2,4"
    @Option(help: "Random draws of experts.")
    var random = 3
    @Option(help: ArgumentHelp("A file with a prompt on each line.", valueName: "path"))
    var prompts: String
    @Option(
        help: ArgumentHelp("The effect: a sum of logits, as \"logit( x)-logit( y)\".", valueName: "metric"))
    var metric: String?
    @Option(help: "The effect: the probability that continuations are of this label of --corpus.")
    var label: String?
    @Option(help: ArgumentHelp("The corpus folder whose labels the classifier learns.", valueName: "dir"))
    var corpus: String?
    @OptionGroup(title: "Scorer, where neither --metric nor --label is given") var scorerOptions:
        ScorerOptions
    @Option(help: "Continuations of each prompt that are scored; one is greedy.")
    var samples = 4
    @Option(name: [.customShort("n"), .long], help: "Tokens of a continuation.")
    var maxNewTokens = 24
    @Option(
        help: ArgumentHelp(
            "Corpus folder or text of which held-out tokens measure the damage.", valueName: "path"))
    var neutral: String
    @Option(help: "Tokens of neutral text.")
    var neutralTokens = 10_000
    @Option(help: "Seed of random experts and continuations.")
    var seed: UInt64 = 0
    @Option(help: ArgumentHelp("Write the picture.", valueName: "path"))
    var svg: String?
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if units == nil, !contrast.isGiven {
            throw ValidationError("Give --units, --pairs, or --positive and --negative.")
        }
        if hook != nil, !contrast.isGiven { throw ValidationError("--hook needs texts to contrast.") }
        if metric != nil, label != nil { throw ValidationError("Give one of --metric and --label.") }
        if scores.contains(",,") || scales.contains(",,") {
            throw ValidationError("--scores and --scales are numbers separated by single commas.")
        }
        if (label == nil) != (corpus == nil) {
            throw ValidationError("--label and --corpus belong together.")
        }
        for (name, value, range) in [
            ("top", top, 1...64), ("random", random, 0...100), ("samples", samples, 1...1000),
            ("max-new-tokens", maxNewTokens, 1...10_000),
            ("neutral-tokens", neutralTokens, 2...1_000_000_000),
        ] where !range.contains(value) {
            throw ValidationError(
                "--\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        _ = try Self.numbers(scores, "--scores", isPositive: true)
        _ = try Self.numbers(scales, "--scales", isPositive: false)
    }

    private static func numbers(_ list: String, _ name: String, isPositive: Bool) throws -> [Float] {
        let values = list.split(separator: ",").map { Float($0.trimmingCharacters(in: .whitespaces)) }
        guard !values.isEmpty, values.allSatisfy({ ($0 ?? .nan).isFinite && (!isPositive || ($0 ?? 0) > 0) })
        else {
            throw ValidationError(
                "\(name) is '\(list)', expected numbers\(isPositive ? " above 0" : "") separated by commas")
        }
        return values.compactMap { $0 }.sorted()
    }

    func run() throws {
        try overwriting.check(svg)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "prompts")
        }
        let backend = try compute.backend()
        Interruption.install()
        // What is quickly refused comes first.
        let lines = try TextFile.read(prompts, readsStreams: true).lines
            .filter { !$0.allSatisfy(\.isWhitespace) }
        let (kind, name) = try effect(tokenizer)
        let effect = try SteeringEffect(
            kind, prompts: lines.map { try tokenizer.encode(String($0), addBegin: tokenizer.addsBegin) },
            source: prompts, model: model, tokenizer: tokenizer, backend: backend)
        let neutral = try neutralDocuments(tokenizer)
        let methods = try methods(model, tokenizer, neutral, backend)
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        let sweep: SteeringSweep
        do {
            sweep = try SteeringSweep(methods, effect: effect, neutral: neutral, backend: backend) {
                done, count in
                let seconds = (ContinuousClock.now - start).seconds
                let left = done > 0 ? seconds / Double(done) * Double(count - done) : .nan
                line.show("\(done) of \(count) points  \(left.durationText) left")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            line.clear()
            throw Interruption.exitCode
        }
        line.clear()
        if let svg {
            try AtomicFile.write(sweep.svg(effect: name), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if json { return try StandardOutput.write(sweep.json()) }
        func row(_ name: String, _ strength: String, _ point: SteeringSweep.Point) -> [String] {
            [
                name, strength, point.effect.text(4), point.effectError.text(4), point.neutral.loss.text(4),
                point.neutral.perplexity.text(2), (100 * point.neutral.accuracy).text(2) + "%",
            ]
        }
        var rows = [["steering", "strength", name, "±", "neutral loss", "perplexity", "accuracy"]]
        rows.append(row("none", "", sweep.plain))
        for curve in sweep.meanCurves {
            rows += curve.points.enumerated().map { place, point in
                row(place == 0 ? curve.name : "", String(format: "%g", point.strength), point)
            }
        }
        try StandardOutput.write(alignedTable(rows))
    }

    private func neutralDocuments(_ tokenizer: Tokenizer) throws -> LabelledDocuments {
        let documents =
            try FileManager.default.fileExists(atPath: neutral + "/corpus.json")
            ? LabelledDocuments(corpus: Corpus(folder: neutral), split: .validation, limit: neutralTokens)
            : LabelledDocuments(
                sources: [CorpusSource(path: neutral)], tokenizer: tokenizer, limit: neutralTokens)
        guard (0..<documents.count).contains(where: { documents.tokenCount($0) > 1 }) else {
            throw CommandError.malformedInput(
                source: neutral, reason: "it has no tokens to predict, expected a text of two tokens or more")
        }
        return documents
    }

    /// The ways of steering that are compared.
    private func methods(
        _ model: MonetLanguageModel, _ tokenizer: Tokenizer, _ neutral: LabelledDocuments,
        _ backend: CPUBackend
    ) throws -> [SteeringSweep.Method] {
        let point = try hook.map { try SteerFindCommand.hookPoint($0, "--hook") }
        let found =
            try contrast.isGiven
            ? contrast.contrast(
                model, tokenizer, hooks: point.map { [$0] } ?? [], backend, isQuiet: common.quiet)
            : nil
        let named = try units.map { list in
            try list.split(separator: ",").map {
                try UnitID(parsing: $0.trimmingCharacters(in: .whitespaces), in: model.units)
            }
        }
        var seen: Set<UnitID> = []
        let chosen = (named ?? found?.strongest(top).map(\.unit) ?? []).filter { seen.insert($0).inserted }
        guard !chosen.isEmpty else {
            throw CommandError.malformedInput(
                source: units == nil ? "the texts" : "--units",
                reason: units == nil
                    ? "no expert fires more on the positive ones" : "it is empty, expected a list")
        }
        let scores = try Self.numbers(scores, "--scores", isPositive: true)
        let names =
            chosen.count <= 3 ? chosen.map(\.description).joined(separator: " ") : "\(chosen.count) experts"
        if !common.quiet {
            StandardError.write("experts: \(chosen.map(\.description).joined(separator: " "))\n")
        }
        var methods = [SteeringSweep.Method.forcing(chosen, scores: scores, name: names)]
        if random > 0 {
            methods += SteeringSweep.Method.forcingRandom(
                like: chosen, try firingCounts(neutral, model, backend), draws: random, scores: scores,
                seed: seed)
        }
        if let point, let vector = found?.directions[point] {
            methods.append(
                .adding(
                    vector, at: point, scales: try Self.numbers(scales, "--scales", isPositive: false),
                    name: "difference of means"))
        }
        for method in methods { try model.check(method.steering(method.strengths[0])) }
        return methods
    }

    /// How often every expert fires on neutral text, for random ones that fire as often.
    private func firingCounts(
        _ neutral: LabelledDocuments, _ model: MonetLanguageModel, _ backend: CPUBackend
    ) throws
        -> FiringCounts
    {
        var line = ProgressLine(isQuiet: common.quiet)
        defer { line.clear() }
        do {
            return try FiringCounts(of: neutral, model: model, backend: backend) {
                line.show("\($0.grouped) of \(neutral.tokenCount.grouped) tokens counted")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
    }

    /// What is measured on the prompts, and its name.
    private func effect(_ tokenizer: Tokenizer) throws -> (SteeringEffect.Kind, String) {
        if let metric {
            return (.metric(try AttributionTarget(metric: metric, tokenizer: tokenizer)), metric)
        }
        guard let label, let corpus else {
            let scorer = try scorerOptions.make(isQuiet: common.quiet)
            if !common.quiet { StandardError.write("effect: \(scorer.summary)\n") }
            return (
                .score(scorer, samples: samples, tokens: maxNewTokens, seed: seed), "score of continuations"
            )
        }
        let mostTokens = 400_000
        let classifier = try ToxicityClassifier.trained(
            onLabel: label,
            of: LabelledDocuments(corpus: Corpus(folder: corpus), split: .train, limit: mostTokens),
            tokenizer: tokenizer)
        if !common.quiet {
            StandardError.write(
                "classifier of '\(label)': AUC \(classifier.heldOutAUC.text(3)) on \(classifier.heldOutCount) held-out texts\n"
            )
        }
        return (
            .score(classifier, samples: samples, tokens: maxNewTokens, seed: seed), "probability of \(label)"
        )
    }
}
