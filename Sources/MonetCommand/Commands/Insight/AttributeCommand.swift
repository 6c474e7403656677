import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct AttributeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "attribute",
        abstract: "Explain a prediction: which experts contribute to a logit, and by which paths.",
        discussion: """
            EXAMPLES
              monet attribute --model checkpoints/demo "And God said unto"
              monet attribute --model checkpoints/demo "And God said unto" --target " him" --out graph.json
              monet attribute --model checkpoints/demo "The sea" --metric "logit( of)-logit( and)"
              monet attribute --model checkpoints/demo --token-ids "3 7 11" --target-id 13 --totals

            With attention patterns, norms, routing probabilities and activations' gates held at their values, a \
            logit is an exact sum over paths from embeddings and biases. Nodes are experts at a position in a layer. \
            --out and --json write the graph in the format of circuit-tracer's page and Neuronpedia's viewer.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var input: InputOptions
    @Option(help: ArgumentHelp("The token to explain, by default the most likely one.", valueName: "text"))
    var target: String?
    @Option(help: ArgumentHelp("The same by its id.", valueName: "id"))
    var targetId: Int32?
    @Option(help: ArgumentHelp("A sum of logits instead, as \"logit( x)-logit( y)\".", valueName: "metric"))
    var metric: String?
    @Flag(help: "Print only what embeddings and biases contribute, as JSON.")
    var totals = false
    @Flag(help: "Print the graph as JSON.")
    var json = false
    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("Write the graph to a file.", valueName: "path"))
    var out: String?
    @Option(help: "Experts with a node of their own; all others at a layer and position share one.")
    var nodes = 500
    @Option(help: ArgumentHelp("Share of the influence that the nodes kept hold.", valueName: "share"))
    var nodeThreshold = 0.8
    @Option(help: ArgumentHelp("Share of the influence that the edges kept hold.", valueName: "share"))
    var edgeThreshold = 0.98
    @Option(help: "Rows of the table.")
    var top = 20
    @OptionGroup var masking: MaskOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if [target != nil, targetId != nil, metric != nil].count(where: { $0 }) > 1 {
            throw ValidationError("Give one of --target, --target-id and --metric.")
        }
        if totals, json || out != nil { throw ValidationError("--totals prints no graph.") }
        if !(1...100_000).contains(nodes) {
            throw ValidationError("--nodes is \(nodes), expected 1 to 100000")
        }
        for (name, value) in [("node", nodeThreshold), ("edge", edgeThreshold)] where !(0...1).contains(value)
        {
            throw ValidationError("--\(name)-threshold is \(value), expected 0 to 1")
        }
        if !(1...100_000).contains(top) { throw ValidationError("--top is \(top), expected 1 to 100000") }
    }

    func run() throws {
        try overwriting.check(out)
        let (model, tokenizer) = try modelOptions.load(common.logger, for: .conversion)
        let ids = try input.ids(
            tokenizer, folder: modelOptions.model, vocabularySize: model.configuration.vocabularySize)
        let backend = try compute.backend()
        let mask = try masking.load(for: model, common.logger)
        let explained = try explained(ids, model, tokenizer, mask, backend)
        let pass = try LinearizedPass(
            ids, target: explained.target, model: model, mask: mask, backend: backend)
        if totals {
            try StandardOutput.write([
                "logit": .number(pass.value), "embedding": .array(pass.embeddings.map { .number($0) }),
                "bias": .array(pass.biases.map { .number($0) }),
            ])
            return
        }
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let whole: AttributionGraph
        do {
            whole = try AttributionGraph(pass, unitCount: nodes) { done in
                line.show("\((100 * done).text(0))% of the edges")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
        line.clear()
        let graph = whole.pruned(nodeShare: nodeThreshold, edgeShare: edgeThreshold)
        let names = ids.map { id in tokenizer.flatMap { try? $0.displayText(id) } ?? "\(id)" }
        let name = try modelOptions.folder().lastPathName
        let description = AttributionGraph.Description(
            slug: "\(name)-\(explained.name.filter { $0.isLetter || $0.isNumber })", model: name,
            prompt: names.joined(), target: explained.name, probability: explained.probability,
            unitCount: nodes, nodeShare: nodeThreshold, edgeShare: edgeThreshold)
        let file = graph.json(description, names: names)
        if let out {
            try AtomicFile.write(file.serialized() + "\n", to: out)
            if !common.quiet { StandardError.write("wrote \(out)\n") }
        }
        if json {
            try StandardOutput.write(file)
        } else {
            try StandardOutput.write(
                graph.table(names: names, target: explained.name, whole: whole, count: top))
        }
    }

    /// What is explained, its name, and its probability if it is one token.
    private func explained(
        _ ids: [Int32], _ model: MonetLanguageModel, _ tokenizer: Tokenizer?, _ mask: UnitMask?,
        _ backend: CPUBackend
    ) throws -> (target: AttributionTarget, name: String, probability: Double?) {
        func needed(_ purpose: String) throws -> Tokenizer {
            guard let tokenizer else {
                throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: purpose)
            }
            return tokenizer
        }
        if let metric {
            return (try AttributionTarget(metric: metric, tokenizer: needed("a metric")), metric, nil)
        }
        guard !ids.isEmpty else {
            throw CommandError.malformedInput(source: "the text", reason: "there are no tokens to explain")
        }
        let output = try model.forward(ForwardInput([ids], mask: mask), on: backend)
        let logits = try model.logits(output.hidden.value.slice((ids.count - 1)..<ids.count), on: backend)
            .floats()
        var token = targetId
        if let target { token = try AttributionTarget.token(target, tokenizer: needed("a token's text")) }
        let most = logits.indices.max { (logits[$0], $1) < (logits[$1], $0) } ?? 0
        let id = token ?? Int32(most)
        guard logits.indices.contains(Int(id)) else {
            throw CommandError.malformedInput(
                source: "--target-id", reason: "\(id) is not in the vocabulary of \(logits.count)")
        }
        let largest = logits.max() ?? 0
        let sum = logits.reduce(0.0) { $0 + exp(Double($1 - largest)) }
        return (
            AttributionTarget(token: id), tokenizer.flatMap { try? $0.displayText(id) } ?? "\(id)",
            exp(Double(logits[Int(id)] - largest)) / sum
        )
    }
}
