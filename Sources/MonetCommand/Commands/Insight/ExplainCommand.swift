import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct ExplainCommand: ParsableCommand {
    enum Scorer: String, ExpressibleByArgument, CaseIterable {
        case openai
    }

    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Let another language model explain experts, and score its explanations.",
        discussion: """
            EXAMPLES
              monet explain 0/1777 --index experts.sqlite --corpus runs/demo/corpus --url http://localhost:8080/v1
              monet explain --index experts.sqlite --label animals --limit-experts 50 --corpus runs/demo/corpus \
            --scorer openai --explainer gpt-4o-mini --dry-run

            The server reads 10 of an expert's strongest contexts and 5 others and writes a sentence. It is then scored by \
            *detection*, in which of 14 shuffled contexts the expert fires, and by how well the sentence predicts routing: on \
            which tokens of held-out text it fires. Counts and costs are shown before anything is sent; explanations are \
            stored in the index as they come, and the same command goes on where it was stopped.
            """)

    @Argument(help: ArgumentHelp("Experts, such as 0/1777.", valueName: "group/index"))
    var experts: [String] = []
    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "Experts of a label, instead of named ones.")
    var label: String?
    @Option(help: "The most experts of the label.")
    var limitExperts = 20
    @Option(help: "Tokens of the index on which an expert of the label must fire.")
    var minCount = 100
    @OptionGroup var reading: DocumentOptions
    @Option(help: "Split of a corpus folder with held-out text: train or validation.")
    var split = CorpusSplit.validation
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Option(help: "Who explains and scores: openai, a server with OpenAI's chat completions.")
    var scorer = Scorer.openai
    @Option(
        help: ArgumentHelp("The server's address, with /v1; or set OPENAI_BASE_URL.", valueName: "url"))
    var url: String?
    @Option(help: ArgumentHelp("The key; or set OPENAI_API_KEY.", valueName: "key"))
    var key: String?
    @Option(help: ArgumentHelp("The model's name at the server.", valueName: "name"))
    var explainer = "gpt-4o-mini"
    @Option(
        help: ArgumentHelp(
            "Price of a million tokens read and written, for the estimate.", valueName: "in,out"))
    var price: String?
    @Option(help: "Timeout of a request, in seconds.")
    var timeout = 120.0
    @Option(help: "Attempts of a request, with growing pauses between them.")
    var attempts = 4
    @Option(help: "Maximum requests per second; no limit by default.")
    var rate: Double?
    @Option(help: "Tokens that an answer may have; models that think aloud need more.")
    var maxTokens = 1024
    @Option(help: "Held-out tokens to judge, half of them with the expert firing.")
    var routed = 20
    @Flag(help: "Also score each expert with another one's explanation, as a baseline.")
    var baseline = false
    @Flag(help: "Show counts and costs, and send nothing.")
    var dryRun = false
    @Flag(help: "Explain again what this explainer has explained.")
    var overwrite = false
    @Option(help: "Seed of the contexts' choice.")
    var seed: UInt64 = 0
    @Flag(help: "JSON instead of text.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if experts.isEmpty == (label == nil) { throw ValidationError("Give experts, or --label.") }
        for (name, value, range) in [
            ("limit-experts", limitExperts, 1...1_000_000), ("min-count", minCount, 1...1_000_000_000),
            ("attempts", attempts, 1...100),
            ("routed", routed, 0...200), ("max-tokens", maxTokens, 32...100_000),
        ] where !range.contains(value) {
            throw ValidationError(
                "--\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        if !(timeout > 0 && timeout <= 3600) {
            throw ValidationError("--timeout is \(timeout), expected above 0, at most 3600")
        }
        if let rate, !(0.001...1e6).contains(rate) {
            throw ValidationError("--rate is \(rate), expected 0.001 to 1000000")
        }
        _ = try prices()
    }

    private func prices() throws -> (read: Double, written: Double)? {
        guard let price else { return nil }
        let parts = price.split(separator: ",").map { Double($0) }
        guard parts.count == 2, let read = parts[0], let written = parts[1], read >= 0, written >= 0,
            read.isFinite, written.isFinite
        else { throw ValidationError("--price is \(price), expected two numbers, as 0.15,0.60") }
        return (read, written)
    }

    private func server() throws -> ExplanationServer {
        let environment = ProcessInfo.processInfo.environment
        var settings = ExplanationServer.Settings()
        if let url = url ?? environment["OPENAI_BASE_URL"] { settings.url = url }
        settings.key = key ?? environment["OPENAI_API_KEY"]
        (settings.model, settings.timeout, settings.attempts) = (explainer, timeout, attempts)
        (settings.requestsPerSecond, settings.maxTokens) = (rate, maxTokens)
        return try ExplanationServer(
            settings, isCancelled: { Interruption.isRequested },
            note: { if !common.quiet { StandardError.write($0 + "\n") } })
    }

    func run() throws {
        Interruption.install()
        let server = try server()
        let index = try ExpertIndex(path: indexOptions.index, writable: !dryRun)
        let folder = try HubCache().resolve(model ?? index.modelPath)
        let model = try MonetLanguageModel.load(folder)
        try model.accept(index, common.logger)
        let tokenizer = try Tokenizer(folder: folder)
        let backend = try compute.backend()
        let (chosen, known) = try chosen(index)
        let tasks = try self.tasks(chosen, index, model, tokenizer, backend)
        try announce(tasks, known: known, without: chosen.count - tasks.count, server)
        if dryRun || tasks.isEmpty { return }
        var results: [ScoredExplanation] = []
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        do {
            for (number, task) in tasks.enumerated() {
                let seconds = (ContinuousClock.now - start).seconds
                let left = number > 0 ? seconds / Double(number) * Double(tasks.count - number) : .nan
                line.show("\(number.grouped) of \(tasks.count.grouped) experts  \(left.durationText) left")
                let result = try ScoredExplanation(task, by: server)
                try store(result, in: index)
                results.append(result)
                line.clear()
                if !json { try StandardOutput.write(Self.text(result)) }
            }
            if baseline, results.count > 1 {
                for place in results.indices {
                    line.show(
                        "\(place.grouped) of \(results.count.grouped) experts with another's explanation")
                    let other = results[(place + 1) % results.count].text
                    try results[place].compare(with: other, tasks[place], by: server)
                }
            }
        } catch {
            line.clear()
            // What was stored is not scored again, so that this is the only time to show it.
            if json, !results.isEmpty { try StandardOutput.write(Self.json(results, explainer)) }
            guard error is CancellationError else { throw error }
            StandardError.write("stopped after \(results.count) experts; the same command goes on\n")
            throw Interruption.exitCode
        }
        line.clear()
        if json {
            try StandardOutput.write(Self.json(results, explainer))
        } else {
            try StandardOutput.write(Self.summary(results))
        }
    }

    /// What the prompts begin with under which this explainer's sentences are stored.
    private var mark: String { "\(explainer): detection " }

    private func store(_ result: ScoredExplanation, in index: ExpertIndex) throws {
        let routing = result.routing.flatMap(\.balanced).map { ", routing \($0.text(2))" } ?? ""
        let explanation = ExpertDossier.Explanation(
            text: result.text, prompt: mark + "\(result.detection.hits)/\(result.detection.count)" + routing,
            isCredible: result.isCredible)
        try index.replaceExplanations(of: result.expert, by: [explanation]) { $0.prompt.hasPrefix(mark) }
    }

    /// The experts to explain, and how many of those named have been explained.
    private func chosen(_ index: ExpertIndex) throws -> ([UnitID], known: Int) {
        var units = try experts.map { try UnitID(parsing: $0, in: index.units) }
        if let label {
            var query = ExpertQuery()
            (query.label, query.limit, query.minimumCount) = (try index.label(label), limitExperts, minCount)
            units = try index.find(query).map(\.expert)
        }
        var seen: Set<UnitID> = []
        units = units.filter { seen.insert($0).inserted }
        if overwrite { return (units, 0) }
        let new = try units.filter { unit in
            try !index.explanations(of: unit).contains { $0.prompt.hasPrefix(mark) }
        }
        return (new, units.count - new.count)
    }

    private func tasks(
        _ chosen: [UnitID], _ index: ExpertIndex, _ model: MonetLanguageModel, _ tokenizer: Tokenizer,
        _ backend: CPUBackend
    ) throws -> [ExplanationTask] {
        if chosen.isEmpty { return [] }
        var settings = ExplanationTask.Settings()
        (settings.routed, settings.seed) = (routed, seed)
        let documents = try reading.documents(
            tokenizer: tokenizer, modelFolder: index.modelPath, split: split, limit: reading.limit ?? 50_000)
        guard documents.tokenCount > 0 else {
            throw CommandError.malformedInput(source: documents.origin, reason: "it has no held-out tokens")
        }
        let reader = try ActivationReader(
            model: model, documents: documents, ActivationSelection(units: .these(chosen)), backend: backend)
        var line = ProgressLine(isQuiet: common.quiet)
        defer { line.clear() }
        do {
            let heldOut = try ScoredDocuments(reader, names: { (try? tokenizer.displayText($0)) ?? "\($0)" })
            {
                line.show("\($0.grouped) of \(documents.tokenCount.grouped) held-out tokens")
                return !Interruption.isRequested
            }
            var dossiers = try chosen.map {
                try index.dossier(of: $0, context: settings.reach, activations: 20, neighbours: 0)
            }
            try index.measureContexts(of: &dossiers, model: model, backend: backend) { done, count in
                line.show("\(done.grouped) of \(count.grouped) contexts")
                return !Interruption.isRequested
            }
            if Interruption.isRequested { throw CancellationError() }
            return dossiers.map { ExplanationTask($0, heldOut: heldOut, settings: settings) }.filter(
                \.isUsable)
        } catch is CancellationError {
            throw Interruption.exitCode
        }
    }

    private func announce(_ tasks: [ExplanationTask], known: Int, without: Int, _ server: ExplanationServer)
        throws
    {
        let runs = baseline && tasks.count > 1 ? 2 : 1
        let requests = tasks.reduce(0) { $0 + 1 + runs * ($1.requestCount - 1) }
        // Four bytes a token is usual for English; an explanation is about 40 tokens long and read in every judgement.
        let read = tasks.reduce(0) { $0 + runs * $1.promptBytes / 4 } + 40 * (requests - tasks.count)
        let written = 40 * tasks.count + 40 * (requests - tasks.count)
        var text =
            "\(tasks.count.grouped) experts to explain with \(server.model), \(requests.grouped) requests, about "
        text += "\(read.grouped) tokens to read and \(written.grouped) to write"
        if let prices = try prices() {
            let cost = (Double(read) * prices.read + Double(written) * prices.written) / 1e6
            text += ", which costs about \(cost.text(4))"
        }
        if known > 0 { text += "; \(known.grouped) have been explained" }
        if without > 0 { text += "; \(without.grouped) fire too rarely" }
        if dryRun || !common.quiet { StandardError.write(text + "\n") }
    }

    private static func json(_ results: [ScoredExplanation], _ explainer: String) -> JSONValue {
        ["explainer": .string(explainer), "experts": .array(results.map { $0.json() })]
    }

    private static func text(_ result: ScoredExplanation) -> String {
        func scores(_ detection: JudgementScore, _ routing: JudgementScore?) -> String {
            "detection \(detection.hits) of \(detection.count) (balanced \(detection.balanced.map { $0.text(2) } ?? "–")), "
                + "routing " + (routing.flatMap(\.balanced).map { $0.text(2) } ?? "–")
        }
        return "\(result.expert)  \(result.text)\n    \(scores(result.detection, result.routing))\n"
    }

    private static func summary(_ results: [ScoredExplanation]) -> String {
        func mean(_ values: [Double]) -> String {
            values.isEmpty ? "–" : (values.reduce(0, +) / Double(values.count)).text(3)
        }
        func row(_ name: String, _ detection: [JudgementScore], _ routing: [JudgementScore]) -> [String] {
            [
                name, mean(detection.map(\.accuracy)), mean(detection.compactMap(\.balanced)),
                mean(routing.compactMap(\.balanced)),
            ]
        }
        var rows = [
            ["", "detection", "balanced", "routing"],
            row("own explanation", results.map(\.detection), results.compactMap(\.routing)),
        ]
        let others = results.compactMap(\.otherDetection)
        if !others.isEmpty { rows.append(row("another's", others, results.compactMap(\.otherRouting))) }
        rows.append(["chance", "", "0.500", "0.500"])
        return "\n" + alignedTable(rows)
    }
}
