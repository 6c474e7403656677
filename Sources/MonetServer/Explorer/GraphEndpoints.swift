import Foundation
import HTTPTypes
import Hummingbird
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import Synchronization

/// Attribution graphs of prompts, and interventions that test them.
struct GraphEndpoints: Sendable {
    let holder: ModelHolder
    let admission: Admission
    private let sessions = GraphSessions()

    init(holder: ModelHolder, admission: Admission) { (self.holder, self.admission) = (holder, admission) }

    var all: [Endpoint] { [graph, test] }

    private static let fields: [Schema.Field] = [
        .init("prompt", .string(lengths: 1...20_000), "The prompt.", isRequired: true),
        .init("target", .string(lengths: 1...200), "The token to explain; by default the most likely one."),
        .init("metric", .string(lengths: 1...500), "A sum of logits instead, as logit( x)-logit( y)."),
        .init("nodes", .integer(1...2000), "Experts with a node of their own; 300 by default."),
        .init("node_threshold", .number(0...1), "Share of the influence that the nodes kept hold; 0.8."),
        .init("edge_threshold", .number(0...1), "Share of the influence that the edges kept hold; 0.98."),
    ]

    private var graph: Endpoint {
        Endpoint(
            method: .post, path: "/api/graph",
            summary: "Why a token is predicted: the graph of the experts that contribute to its logit.",
            body: .object(Self.fields), errors: [.notFound]
        ) { call in
            try await run(call) { request, served, cancellation in
                let found = try sessions.graph(request, served, cancellation)
                return [
                    "graph": found.graph.json(
                        found.description, names: found.names,
                        labels: try Self.labels(found.graph, served.explorer.index)),
                    "value": .number(found.graph.value), "target": .string(found.description.target),
                    "nodes_in_all": .integer(found.nodesInAll),
                    "edges_in_all": .integer(found.edgesInAll),
                    "replacement": .number(found.scores.replacement),
                    "completeness": .number(found.scores.completeness),
                ]
            }
        }
    }

    private var test: Endpoint {
        Endpoint(
            method: .post, path: "/api/graph/test",
            summary: "Remove an expert, or cut an edge, in the true model, beside what the graph predicts.",
            body: .object(
                Self.fields + [
                    .init(
                        "source", .string(lengths: 1...100), "The node's id in the graph.", isRequired: true),
                    .init(
                        "target_node", .string(lengths: 1...100),
                        "The edge's upper node; none removes the source."),
                ]), errors: [.notFound]
        ) { call in
            let (source, target) = (
                call.body["source"]?.stringValue ?? "", call.body["target_node"]?.stringValue
            )
            return try await run(call) { request, served, cancellation in
                let found = try sessions.graph(request, served, cancellation)
                let graph = found.graph
                func node(_ name: String, _ param: String) throws -> Int {
                    guard let node = graph.node(withID: name) else {
                        throw APIError(
                            .notFound, "the graph has no node '\(name)'", param: param, code: "node_not_found"
                        )
                    }
                    return node
                }
                let first = try node(source, "source")
                let pass = try sessions.pass(request, served)
                try cancellation.check()
                guard let target else {
                    guard graph.unit(of: graph.nodes[first]) != nil else {
                        throw APIError.invalid("source", "'\(source)' is no expert, which could be removed")
                    }
                    func change(_ held: AttributionValidation.Held) throws -> JSONValue {
                        try cancellation.check()
                        return .number(try graph.change(removing: first, in: pass, holding: held))
                    }
                    return [
                        "predicted": .number(-graph.nodes[first].contribution),
                        "measured": try change(.nothing),
                        "patterns_held": try change(.patterns), "routing_held": try change(.routing),
                        "all_held": try change(.norms),
                    ]
                }
                let second = try node(target, "target_node")
                guard let edge = graph.edges.first(where: { $0.source == first && $0.target == second }),
                    graph.canCut(from: first, to: second)
                else {
                    throw APIError.invalid(
                        "target_node", "there is no edge from '\(source)' to '\(target)' that can be cut")
                }
                return [
                    "predicted": .number(-edge.weight),
                    "measured": .number(try graph.change(cutting: first, to: second, in: pass)),
                ]
            }
        }
    }

    /// Runs something on a thread of its own for a checked request.
    private func run(
        _ call: Endpoint.Call,
        _ body: @escaping @Sendable (GraphRequest, ServedModel, Cancellation) throws -> JSONValue
    ) async throws -> Response {
        let served = try holder.model()
        let request = try GraphRequest(call.body, served)
        let places = try admission.take(1)
        defer { withExtendedLifetime(places) {} }
        return .json(
            try await call.context.whileConnected {
                try await Cancellation.measure { cancellation in
                    try ExplorerEndpoints.translated(request.metric == nil ? "target" : "metric") {
                        try body(request, served, cancellation)
                    }
                }
            })
    }

    /// What the index knows of the graph's experts, in a few words.
    private static func labels(_ graph: AttributionGraph, _ index: ExpertIndex?) throws -> [UnitID: String] {
        guard let index else { return [:] }
        let units = Array(Set(graph.nodes.compactMap { graph.unit(of: $0) }))
        return Dictionary(
            try index.summaries(of: units).map { summary in
                let words = (summary.label.map { [$0] } ?? []) + summary.tokens.prefix(3)
                return (summary.expert, ([summary.expert.description] + words).joined(separator: " · "))
            }, uniquingKeysWith: { first, _ in first })
    }
}

/// A request for a graph.
private struct GraphRequest: Sendable, Hashable {
    let model: String
    let ids: [Int32]
    let target: String?
    let metric: String?
    let nodes: Int
    let nodeShare: Double
    let edgeShare: Double

    /// - Throws: `APIError` for a target beside a metric, and for a prompt beyond the context.
    init(_ body: JSONValue, _ served: ServedModel) throws {
        (target, metric) = (body["target"]?.stringValue, body["metric"]?.stringValue)
        if target != nil, metric != nil {
            throw APIError.invalid("metric", "metric and target exclude each other")
        }
        let tokenizer = served.tokenizer
        ids = try tokenizer.encode(body["prompt"]?.stringValue ?? "", addBegin: tokenizer.addsBegin)
        // Edges grow with the square of the nodes, of which every position has one in each layer.
        let most = min(128, served.contextLength)
        guard (1...most).contains(ids.count) else {
            throw APIError.invalid("prompt", "the prompt has \(ids.count) tokens, expected 1 to \(most)")
        }
        model = served.folder
        nodes = body["nodes"]?.intValue ?? 300
        nodeShare = body["node_threshold"]?.doubleValue ?? 0.8
        edgeShare = body["edge_threshold"]?.doubleValue ?? 0.98
    }
}

/// The last graphs, so that tests of one need not build it again, and the models that they are of.
private final class GraphSessions: Sendable {
    /// A pruned graph, what it was pruned from in numbers, and what its file says beside it.
    struct Found: Sendable {
        let graph: AttributionGraph
        let nodesInAll: Int
        let edgesInAll: Int
        let scores: AttributionGraph.Scores
        let description: AttributionGraph.Description
        let names: [String]
    }

    private struct State {
        var graphs: [(request: GraphRequest, found: Found)] = []
        /// Serving prepares a model's weights in another layout; attribution reads the checkpoint's.
        var model: (folder: String, model: MonetLanguageModel)?
    }

    private let state = Mutex(State())
    private static let mostGraphs = 4
    /// What a browser draws without trouble.
    private static let mostEdges = 50_000

    func graph(_ request: GraphRequest, _ served: ServedModel, _ cancellation: Cancellation) throws -> Found {
        let known = state.withLock { state in state.graphs.first { $0.request == request }?.found }
        if let known { return known }
        let model = try model(served)
        let explained = try explained(request, served, model)
        let pass = try LinearizedPass(
            request.ids, target: explained.target, model: model, backend: served.backend)
        let whole = try AttributionGraph(pass, unitCount: request.nodes) { _ in !cancellation.isRequested }
        let names = try request.ids.map { try served.tokenizer.displayText($0) }
        let graph = whole.pruned(nodeShare: request.nodeShare, edgeShare: request.edgeShare)
        guard graph.edges.count <= Self.mostEdges else {
            throw APIError.invalid(
                "edge_threshold",
                "the graph has \(graph.edges.count.grouped) edges, expected at most \(Self.mostEdges.grouped); lower the "
                    + "thresholds or the nodes")
        }
        let found = Found(
            graph: graph, nodesInAll: whole.nodes.count, edgesInAll: whole.edges.count,
            scores: graph.scores(within: whole),
            description: .init(
                slug: "\(served.name)-\(explained.name.filter { $0.isLetter || $0.isNumber })",
                model: served.name, prompt: names.joined(), target: explained.name,
                probability: explained.probability, unitCount: request.nodes, nodeShare: request.nodeShare,
                edgeShare: request.edgeShare), names: names)
        state.withLock { state in
            state.graphs.append((request, found))
            if state.graphs.count > Self.mostGraphs { state.graphs.removeFirst() }
        }
        return found
    }

    func pass(_ request: GraphRequest, _ served: ServedModel) throws -> LinearizedPass {
        let model = try model(served)
        return try LinearizedPass(
            request.ids, target: explained(request, served, model).target, model: model,
            backend: served.backend)
    }

    private func explained(_ request: GraphRequest, _ served: ServedModel, _ model: MonetLanguageModel) throws
        -> ExplainedPrediction
    {
        let choice: ExplainedPrediction.Choice =
            if let metric = request.metric { .metric(metric) } else if let target = request.target {
                .token(target)
            } else { .mostLikely }
        return try ExplainedPrediction(
            choice, after: request.ids, model: model, tokenizer: served.tokenizer, backend: served.backend)
    }

    private func model(_ served: ServedModel) throws -> MonetLanguageModel {
        let known = state.withLock { $0.model }
        if let known, known.folder == served.folder { return known.model }
        let model = try MonetLanguageModel.load(served.folder, for: .conversion)
        state.withLock { $0.model = (served.folder, model) }
        return model
    }
}
