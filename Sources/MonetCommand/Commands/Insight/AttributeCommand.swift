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
    @Option(
        parsing: .upToNextOption,
        help: ArgumentHelp(
            "Follow attention patterns, routing, or both to first order, as nodes of their own, instead of holding them.",
            valueName: "what"))
    var open: [OpenedPath] = []
    @Option(help: "Rows of the table.")
    var top = 20
    @Flag(
        name: .customLong("validate"),
        help:
            "Remove the strongest experts and cut the strongest edges in the true model, and compare with what the graph predicts."
    )
    var isValidated = false
    @Option(help: ArgumentHelp("With --validate: the experts and the edges to test.", valueName: "count"))
    var interventions = 20
    @Option(
        help: ArgumentHelp(
            "With --validate: another model, such as a dense one, to test on the same prompt.",
            valueName: "dir"))
    var beside: [String] = []
    @OptionGroup var masking: MaskOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if [target != nil, targetId != nil, metric != nil].count(where: { $0 }) > 1 {
            throw ValidationError("Give one of --target, --target-id and --metric.")
        }
        if isValidated, !open.isEmpty {
            throw ValidationError("--validate tests the graph that opens nothing.")
        }
        if totals, json || out != nil || isValidated { throw ValidationError("--totals prints no graph.") }
        if !isValidated, !beside.isEmpty { throw ValidationError("--beside is for --validate.") }
        if !(1...10_000).contains(interventions) {
            throw ValidationError("--interventions is \(interventions), expected 1 to 10000")
        }
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
            ids, target: explained.target, model: model, mask: mask, opening: Set(open), backend: backend)
        if totals {
            try StandardOutput.write([
                "logit": .number(pass.value), "embedding": .array(pass.embeddings.map { .number($0) }),
                "bias": .array(pass.biases.map { .number($0) }),
            ])
            return
        }
        Interruption.install()
        let name = try modelOptions.title()
        let whole = try graph(of: pass)
        let graph = whole.pruned(nodeShare: nodeThreshold, edgeShare: edgeThreshold)
        let names = ids.map { id in tokenizer.flatMap { try? $0.displayText(id) } ?? "\(id)" }
        let description = AttributionGraph.Description(
            slug: "\(name)-\(explained.name.filter { $0.isLetter || $0.isNumber })", model: name,
            prompt: names.joined(), target: explained.name, probability: explained.probability,
            unitCount: nodes, nodeShare: nodeThreshold, edgeShare: edgeThreshold)
        if let out {
            try AtomicFile.write(graph.json(description, names: names).serialized() + "\n", to: out)
            if !common.quiet { StandardError.write("wrote \(out)\n") }
        }
        if isValidated {
            var rows = [(name, try validation(of: whole, pass))]
            for folder in beside { rows.append(try validation(folder, backend)) }
            try report(rows)
        } else if json {
            try StandardOutput.write(graph.json(description, names: names))
        } else if out == nil {
            try StandardOutput.write(table(graph, whole, names: names, target: explained.name))
        }
    }

    private func graph(of pass: LinearizedPass) throws -> AttributionGraph {
        try shown("of the edges") { try AttributionGraph(pass, unitCount: nodes, progress: $0) }
    }

    private func validation(of graph: AttributionGraph, _ pass: LinearizedPass) throws
        -> AttributionValidation
    {
        try shown("of the interventions") {
            try AttributionValidation(graph, pass, count: interventions, progress: $0)
        }
    }

    /// The same validation with another model.
    private func validation(_ folder: String, _ backend: CPUBackend) throws -> (String, AttributionValidation)
    {
        var options = modelOptions
        options.model = folder
        let (model, tokenizer) = try options.load(common.logger, for: .conversion)
        let ids = try input.ids(tokenizer, folder: folder, vocabularySize: model.configuration.vocabularySize)
        let explained = try explained(ids, model, tokenizer, nil, backend)
        let pass = try LinearizedPass(ids, target: explained.target, model: model, backend: backend)
        return (try options.title(), try validation(of: graph(of: pass), pass))
    }

    /// Runs something long with its progress, until Ctrl-C.
    private func shown<Result>(_ what: String, _ body: ((Double) -> Bool) throws -> Result) throws -> Result {
        var line = ProgressLine(isQuiet: common.quiet)
        defer { line.clear() }
        do {
            return try body { done in
                line.show("\((100 * done).text(0))% \(what)")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
    }

    private func table(
        _ graph: AttributionGraph, _ whole: AttributionGraph, names: [String], target: String
    ) -> String {
        let kind = graph.units.kind.rawValue
        let shown = graph.nodes.indices.dropLast()
            .sorted { (graph.nodes[$1].influence, $0) < (graph.nodes[$0].influence, $1) }.prefix(top)
        let rows = shown.map { index -> [String] in
            let node = graph.nodes[index]
            let (layer, name): (String, String) =
                switch node.kind {
                case .embedding: ("", "embedding")
                case .others: ("\(node.layer)", "other \(kind)")
                case .opened(.patterns): ("\(node.layer)", "attention patterns")
                case .opened(.routing): ("\(node.layer)", "routing")
                case .bias(let owner):
                    (
                        "\(node.layer)",
                        "biases of " + (graph.unit(of: graph.nodes[owner])?.description ?? "others")
                    )
                default: ("\(node.layer)", graph.unit(of: node)?.description ?? "")
                }
            return [
                names[node.position], "\(node.position)", layer, name, node.contribution.text(4),
                "\((100 * node.influence).text(1))%",
            ]
        }
        let scores = graph.scores(within: whole)
        let sums = open.map { path in
            let sum = whole.nodes.reduce(0.0) { $0 + ($1.kind == .opened(path) ? $1.contribution : 0) }
            return "\(path.rawValue) \(sum.text(4))"
        }
        let opened =
            sums.isEmpty ? "" : ", and by opened paths to first order " + sums.joined(separator: ", ")
        return alignedTable(
            [["token", "position", "layer", "node", "contribution", "influence"]] + rows, textColumns: [3])
            + "\n\(target): \(graph.value.text(4))\(opened); what enters a node leaves it to within "
            + String(format: "%.0e", whole.imbalance) + " of the largest contribution\n"
            + "\(graph.nodes.count) of \(whole.nodes.count) nodes and \(graph.edges.count) of "
            + "\(whole.edges.count) edges hold \((100 * nodeThreshold).text(0))% and "
            + "\((100 * edgeThreshold).text(0))% of the influence: replacement score "
            + "\(scores.replacement.text(3)), completeness \(scores.completeness.text(3)); 1 for the whole graph\n"
    }

    private func report(_ validations: [(name: String, validation: AttributionValidation)]) throws {
        if json {
            try StandardOutput.write(
                .object(
                    validations.map { entry in
                        .init(entry.name, Self.json(entry.validation))
                    }))
            return
        }
        var rows = [["model", "removed", "held", "count", "slope", "R²", "worst"]]
        func add(_ name: String, _ what: String, _ held: String, _ agreement: AttributionValidation.Agreement)
        {
            rows.append([
                name, what, held, "\(agreement.count)", agreement.slope.text(3),
                agreement.rSquared.map { $0.text(3) } ?? "–", agreement.worst.text(3),
            ])
        }
        for (name, validation) in validations {
            for held in AttributionValidation.Held.allCases {
                add(name, "nodes", held.rawValue, validation.agreement(held))
            }
            add(name, "edges", "nothing", validation.edgeAgreement)
        }
        let shares = validations.map { name, validation in
            "\(name): \((100 * validation.share(of: .patterns)).text(1))% of the nodes' effects go through attention "
                + "patterns, \((100 * validation.share(of: .routing)).text(1))% through routing\n"
        }
        try StandardOutput.write(alignedTable(rows, textColumns: [1, 2]) + "\n" + shares.joined())
    }

    private static func json(_ validation: AttributionValidation) -> JSONValue {
        func agreement(_ agreement: AttributionValidation.Agreement) -> JSONValue {
            [
                "count": .integer(agreement.count), "slope": .number(agreement.slope),
                "r_squared": agreement.rSquared.map { .number($0) } ?? .null,
                "worst": .number(agreement.worst),
            ]
        }
        return [
            "nodes": .object(
                AttributionValidation.Held.allCases.map {
                    .init($0.rawValue, agreement(validation.agreement($0)))
                }),
            "edges": agreement(validation.edgeAgreement),
            "share_through_patterns": .number(validation.share(of: .patterns)),
            "share_through_routing": .number(validation.share(of: .routing)),
        ]
    }

    private func explained(
        _ ids: [Int32], _ model: MonetLanguageModel, _ tokenizer: Tokenizer?, _ mask: UnitMask?,
        _ backend: CPUBackend
    ) throws -> ExplainedPrediction {
        if tokenizer == nil, metric != nil || target != nil {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "a token's text")
        }
        let choice: ExplainedPrediction.Choice =
            if let metric { .metric(metric) } else if let target { .token(target) } else if let targetId {
                .id(targetId)
            } else { .mostLikely }
        return try ExplainedPrediction(
            choice, after: ids, model: model, tokenizer: tokenizer, mask: mask, backend: backend)
    }
}

extension OpenedPath: ExpressibleByArgument {}
