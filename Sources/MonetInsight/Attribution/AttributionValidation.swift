import Foundation
import MonetCompute
import MonetModel

/// What a graph predicts against what interventions in the true model change: the strongest nodes are removed one at a
/// time, and the strongest edges are cut one at a time.
///
/// The linearized model holds attention patterns, norms, routing and gates; the true one answers with all of them. Where
/// patterns or routing are held in the true model too, the difference is their share.
public struct AttributionValidation: Sendable {
    /// One intervention.
    public struct Change: Sendable, Equatable {
        /// The node, or the edge's source, and the edge's target.
        public let source: Int
        public let target: Int?
        /// The predicted change of the attribution's target.
        public let predicted: Double
        /// The change in the true model.
        public let measured: Double
    }

    /// How predictions and measurements agree.
    public struct Agreement: Sendable, Equatable {
        /// Interventions.
        public let count: Int
        /// Slope of the measured on the predicted changes, by least squares through the origin.
        public let slope: Double
        /// Square of their correlation; nil for fewer than three, or where they do not vary.
        public let rSquared: Double?
        /// The largest difference, relative to the largest prediction.
        public let worst: Double

        init(_ changes: [Change]) {
            count = changes.count
            let (x, y) = (changes.map(\.predicted), changes.map(\.measured))
            let squares = x.reduce(0) { $0 + $1 * $1 }
            slope = squares > 0 ? zip(x, y).reduce(0) { $0 + $1.0 * $1.1 } / squares : 0
            let (meanX, meanY) = (
                x.reduce(0, +) / Double(max(1, count)), y.reduce(0, +) / Double(max(1, count))
            )
            let covariance = zip(x, y).reduce(0) { $0 + ($1.0 - meanX) * ($1.1 - meanY) }
            let variances =
                x.reduce(0) { $0 + ($1 - meanX) * ($1 - meanX) }
                * y.reduce(0) { $0 + ($1 - meanY) * ($1 - meanY) }
            rSquared = count > 2 && variances > 0 ? covariance * covariance / variances : nil
            let largest = x.map(abs).max() ?? 0
            worst = largest > 0 ? (zip(x, y).map { abs($0 - $1) }.max() ?? 0) / largest : 0
        }
    }

    /// What the true model may change in answer to an intervention.
    public enum Held: String, Sendable, CaseIterable {
        /// Everything answers.
        case nothing
        /// Attention patterns keep their values.
        case patterns
        /// Routing probabilities keep their values.
        case routing
        /// Both keep their values: norms and gates alone answer.
        case patternsAndRouting = "patterns and routing"
        /// The norms' scales too: gates alone answer.
        case norms = "patterns, routing and norms"
    }

    /// Removals of nodes, by what was held.
    public let nodes: [Held: [Change]]
    /// Cuts of edges; everything answers to the change of what the edge's target writes.
    public let edges: [Change]

    /// How the nodes' predictions agree.
    public func agreement(_ held: Held) -> Agreement { Agreement(nodes[held] ?? []) }
    /// How the edges' predictions agree.
    public var edgeAgreement: Agreement { Agreement(edges) }

    /// Share of the removals' effects that goes through something that the linearized model holds: the sum of absolute
    /// differences between the effects with and without it, over that of the effects.
    public func share(of held: Held) -> Double {
        let (free, fixed) = (nodes[.nothing] ?? [], nodes[held] ?? [])
        let total = free.reduce(0.0) { $0 + abs($1.measured) }
        return total > 0
            ? zip(free, fixed).reduce(0.0) { $0 + abs($1.0.measured - $1.1.measured) } / total : 0
    }

    fileprivate static func canCut(_ source: AttributionGraph.Node, _ target: AttributionGraph.Node) -> Bool {
        switch (source.kind, target.kind) {
        case (.unit, .unit), (.unit, .target), (.embedding, .unit), (.embedding, .target): true
        default: false
        }
    }

    /// Intervenes.
    ///
    /// - `count`: the most nodes, and the most edges.
    /// - `batch`: interventions in one forward pass.
    /// - `progress`: called with the share that is done; false stops.
    /// - Throws: `CancellationError` when stopped, `ModelError`, `ComputeError`.
    public init(
        _ graph: AttributionGraph, _ pass: LinearizedPass, count: Int = 20, batch: Int = 8,
        progress: (Double) -> Bool = { _ in true }
    ) throws {
        let trial = try Trial(pass)
        let units = graph.nodes.indices.filter { graph.unit(of: graph.nodes[$0]) != nil }
            .sorted { (abs(graph.nodes[$1].contribution), $0) < (abs(graph.nodes[$0].contribution), $1) }
            .prefix(count)
        let removals = try units.map { index in
            try trial.removal(of: graph.nodes[index])
        }
        let cuts = try graph.edges.filter { Self.canCut(graph.nodes[$0.source], graph.nodes[$0.target]) }
            .sorted { (abs($1.weight), $0.target, $0.source) < (abs($0.weight), $1.target, $1.source) }
            .prefix(count)
            .map { edge in (edge, try trial.cut(graph.nodes[edge.source], graph.nodes[edge.target])) }
        let steps = Double(Held.allCases.count + 1)
        var step = 0.0
        func measure(_ interventions: [Trial.Intervention], _ held: Held) throws -> [Double] {
            var measured: [Double] = []
            while measured.count < interventions.count {
                let part = step + Double(measured.count) / Double(interventions.count)
                guard progress(part / steps) else { throw CancellationError() }
                let next = Array(interventions[measured.count...].prefix(batch))
                measured += try trial.changes(next, holding: held)
            }
            step += 1
            return measured
        }
        var nodes: [Held: [Change]] = [:]
        for held in Held.allCases {
            nodes[held] = zip(units, try measure(removals, held)).map {
                Change(source: $0, target: nil, predicted: -graph.nodes[$0].contribution, measured: $1)
            }
        }
        self.nodes = nodes
        edges = zip(cuts.map(\.0), try measure(cuts.map(\.1), .nothing)).map {
            Change(source: $0.source, target: $0.target, predicted: -$0.weight, measured: $1)
        }
    }
}

extension AttributionGraph {
    /// Whether an edge can be cut: it leads from a unit or an embedding to a unit or the target.
    public func canCut(from source: Int, to target: Int) -> Bool {
        AttributionValidation.canCut(nodes[source], nodes[target])
    }

    /// The change of the explained value in the true model when a unit is removed at its position.
    ///
    /// - `pass`: the pass that the graph is of.
    /// - `holding`: what keeps its values.
    /// - Throws: `ModelError.invalidInput` for a node that is no unit.
    public func change(
        removing node: Int, in pass: LinearizedPass, holding: AttributionValidation.Held = .nothing
    ) throws -> Double {
        let trial = try Trial(pass)
        return try trial.changes([trial.removal(of: nodes[node])], holding: holding)[0]
    }

    /// The change of the explained value in the true model when an edge is cut: the target node reads what it would without
    /// what the source sends it directly.
    public func change(cutting source: Int, to target: Int, in pass: LinearizedPass) throws -> Double {
        let trial = try Trial(pass)
        return try trial.changes([trial.cut(nodes[source], nodes[target])], holding: .nothing)[0]
    }
}

/// Interventions in the true model.
private struct Trial {
    /// A change of one row at a hook point.
    struct Intervention {
        let point: HookPoint
        let position: Int
        let change: [Float]
    }

    private let pass: LinearizedPass
    private let width: Int
    /// Patterns and routing probabilities of the pass, by hook point.
    private let held: [HookPoint: Tensor]
    private let mids: [[Float]]

    init(_ pass: LinearizedPass) throws {
        self.pass = pass
        let model = pass.model
        width = model.configuration.hiddenSize
        let points = model.hookPoints.filter { [.pattern, .g1, .g2].contains($0.kind) }
        let layers = 0..<model.configuration.layerCount
        var input = ForwardInput([pass.tokens], mask: pass.mask)
        input.hooks.observed = Set(points + layers.map { HookPoint(.residMid, layer: $0) })
        let output = try model.forward(input, on: pass.backend)
        held = output.observations.filter { $0.key.kind != .residMid }.mapValues(\.value)
        mids = try layers.map { try output.observed(.residMid, $0).floats() }
    }

    /// Removes what a unit writes at its position.
    func removal(of node: AttributionGraph.Node) throws -> Intervention {
        Intervention(
            point: HookPoint(.mlpOut, layer: node.layer), position: node.position,
            change: try written(node).map { -$0 })
    }

    /// What a unit or an embedding adds to the stream.
    private func written(_ node: AttributionGraph.Node) throws -> [Float] {
        switch node.kind {
        case .unit(let unit):
            return try pass.layers[node.layer].feedForward.outputs([
                UnitTerm(token: node.position, unit: unit)
            ])
        case .embedding: return Array(pass.stream[(node.position * width)...].prefix(width))
        default: throw ModelError.invalidInput(reason: "only units and embeddings can be removed")
        }
    }

    /// Takes what a source sends directly to a target out of what the target reads, and changes what it writes.
    func cut(_ source: AttributionGraph.Node, _ target: AttributionGraph.Node) throws -> Intervention {
        var change = [Float](repeating: 0, count: pass.tokens.count * width)
        change.replaceSubrange(
            (source.position * width)..<((source.position + 1) * width), with: try written(source))
        let layers = (source.layer + 1)..<min(target.layer + 1, pass.layers.count)
        for layer in layers {
            change = zip(change, try pass.layers[layer].attention.outputs(ofChange: change)).map { $0 + $1 }
        }
        let row = Array(change[(target.position * width)...].prefix(width))
        guard case .unit(let unit) = target.kind else {
            return Intervention(
                point: HookPoint(.residPost, layer: pass.layers.count - 1), position: target.position,
                change: row.map { -$0 })
        }
        let block = pass.layers[target.layer]
        let term = [UnitTerm(token: target.position, unit: unit)]
        let stream = mids[target.layer][(target.position * width)...].prefix(width)
        let before = try block.feedForward.outputs(term, forInputs: block.norm.trueOutput(of: Array(stream)))
        let after = try block.feedForward.outputs(
            term, forInputs: block.norm.trueOutput(of: zip(stream, row).map { $0 - $1 }))
        return Intervention(
            point: HookPoint(.mlpOut, layer: target.layer), position: target.position,
            change: zip(after, before).map { $0 - $1 })
    }

    /// The change of the target's value under each of some interventions, one a sequence of the batch.
    func changes(_ interventions: [Intervention], holding: AttributionValidation.Held) throws -> [Double] {
        let (tokens, count) = (pass.tokens, interventions.count)
        var input = ForwardInput(Array(repeating: tokens, count: count), mask: pass.mask)
        let kinds: [HookPoint.Kind] =
            switch holding {
            case .nothing: []
            case .patterns: [.pattern]
            case .routing: [.g1, .g2]
            case .patternsAndRouting, .norms: [.pattern, .g1, .g2]
            }
        for (point, value) in held where kinds.contains(point.kind) {
            let values = value.floats()
            input.hooks.write(point) { _, tape in
                let all = Tensor(
                    (0..<count).flatMap { _ in values },
                    shape: [count * tokens.count] + value.shape.dropFirst())
                return Variable(try tape.backend.tensor(all))
            }
        }
        for (point, own) in Dictionary(grouping: interventions.enumerated(), by: \.element.point) {
            input.hooks.write(point) { [width] value, tape in
                var values = value.value.floats()
                for (sequence, intervention) in own {
                    let start = (sequence * tokens.count + intervention.position) * width
                    for column in 0..<width { values[start + column] += intervention.change[column] }
                }
                return Variable(try tape.backend.tensor(Tensor(values, shape: value.value.shape)))
            }
        }
        let top = pass.layers.count - 1
        if holding == .norms {
            holdNorms(&input)
            input.hooks.observed = [HookPoint(.residPost, layer: top)]
        }
        let output = try pass.model.forward(input, on: pass.backend)
        if holding == .norms {
            let stream = try output.observed(.residPost, top).floats()
            return (0..<count).map { sequence in
                let start = ((sequence + 1) * tokens.count - 1) * width
                return (0..<width).reduce(-pass.value) {
                    $0 + Double(pass.topGradient[$1]) * Double(stream[start + $1])
                }
            }
        }
        return try (0..<count).map { sequence in
            let row = (sequence + 1) * tokens.count - 1
            let logits = try pass.model.logits(output.hidden.value.slice(row..<(row + 1)), on: pass.backend)
                .floats()
            return pass.target.terms.reduce(0.0) { $0 + Double($1.weight) * Double(logits[Int($1.token)]) }
                - pass.value
        }
    }

    /// Replaces what each layer reads by its stream normalized with the pass's scales. With patterns held, attention
    /// reads its input through the values alone.
    private func holdNorms(_ input: inout ForwardInput) {
        final class Stream { var values: [Float] = [] }
        for (place, layer) in pass.layers.enumerated() {
            let stream = Stream()
            func keep(_ value: Variable, _ tape: GradientTape) -> Variable {
                stream.values = value.value.floats()
                return value
            }
            input.hooks.write(HookPoint(.residPre, layer: place), keep)
            input.hooks.write(HookPoint(.v, layer: place)) { [width] value, _ in
                let normed = layer.attention.norm.output(of: stream.values)
                let values = try layer.attention.values(
                    of: Tensor(normed, shape: [normed.count / width, width]))
                return Variable(values.reshaped(value.value.shape))
            }
            input.hooks.write(HookPoint(.residMid, layer: place), keep)
            input.hooks.write(HookPoint(.mlpIn, layer: place)) { value, tape in
                let normed = layer.norm.output(of: stream.values)
                return Variable(try tape.backend.tensor(Tensor(normed, shape: value.value.shape)))
            }
        }
    }
}
