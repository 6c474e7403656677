import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Why a model predicts a token: the target as an exact sum over paths of the linearized pass.
///
///     let pass = try LinearizedPass(ids, target: AttributionTarget(token: 13), model: model)
///     let graph = try AttributionGraph(pass, unitCount: 500).pruned()
///     for edge in graph.edges { print(graph.nodes[edge.source], graph.nodes[edge.target], edge.weight) }
///
/// A node is a unit at a position in a layer, the sum of a layer's other units at a position, an embedding, a
/// bias, or the target. An edge's weight is what its source sends to the target of the attribution through its
/// target node *next*, that is through residual stream and attention alone. What enters a node is what leaves it: its
/// contribution. Nothing is left over, so that there are no error nodes.
public struct AttributionGraph: Sendable {
    /// What a node stands for.
    public enum Kind: Sendable, Equatable {
        /// The embedding of a token.
        case embedding
        /// A unit of the group, in one layer.
        case unit(Int)
        /// All units of a layer that have no node of their own at the position.
        case others
        /// What a layer's attention patterns, or a group's routing, make of the stream at a position, to first order; only in
        /// a pass that opens them.
        case opened(OpenedPath)
        /// The biases of the node with this index: of a unit, of the others, or of attention on the way.
        case bias(of: Int)
        /// The explained sum of logits.
        case target
    }

    /// A node.
    public struct Node: Sendable, Equatable {
        /// What it stands for.
        public let kind: Kind
        /// The layer; −1 for embeddings, and the number of layers for the target.
        public let layer: Int
        /// The position.
        public let position: Int
        /// What goes through it to the target, in units of the target.
        public let contribution: Double
        /// The routing score, or a neuron's absolute activation; 0 where there is none.
        public let score: Double
        /// Share of the target's absolute incoming flow that reaches it through this node, by the influence matrix.
        public internal(set) var influence = 0.0
    }

    /// An edge, from a lower to a higher node.
    public struct Edge: Sendable, Equatable {
        /// Index of the node from which it comes.
        public let source: Int
        /// Index of the node to which it leads.
        public let target: Int
        /// What the source contributes to the attribution's target by way of this edge.
        public let weight: Double
    }

    /// The sequence.
    public let tokens: [Int32]
    /// What is explained, and its value in the true pass.
    public let target: AttributionTarget
    public let value: Double
    /// The model's units.
    public let units: UnitLayout
    /// In ascending order of layers; the last one is the target.
    public let nodes: [Node]
    /// Grouped by target node.
    public let edges: [Edge]

    /// The group of units of a layer.
    public func group(ofLayer layer: Int) -> Int {
        units.layersOfGroup.firstIndex { $0.contains(layer) } ?? 0
    }

    /// The largest difference between what enters a node and its contribution, relative to the largest contribution:
    /// rounding, if the graph is right and whole.
    public var imbalance: Double {
        var incoming = [Double](repeating: 0, count: nodes.count)
        for edge in edges { incoming[edge.target] += edge.weight }
        let differences = nodes.indices.map { index -> Double in
            switch nodes[index].kind {
            case .unit, .others, .opened, .target: abs(incoming[index] - nodes[index].contribution)
            case .embedding, .bias: 0
            }
        }
        let largest = nodes.map { abs($0.contribution) }.max() ?? 0
        return largest > 0 ? (differences.max() ?? 0) / largest : 0
    }

    /// The unit of a node; nil for other kinds.
    public func unit(of node: Node) -> UnitID? {
        guard case .unit(let index) = node.kind else { return nil }
        return UnitID(group: group(ofLayer: node.layer), index: index)
    }

    /// The most floats that rows of gradients may take at a time.
    private static let rowFloats = 1 << 25

    /// Finds the units that contribute most, and all edges between them.
    ///
    /// - `unitCount`: nodes of single units; all others at a layer and position share a node.
    /// - `progress`: called with the share that is done; false stops.
    /// - Throws: `CancellationError` when stopped, `ModelError`, `ComputeError`.
    public init(
        _ pass: LinearizedPass, unitCount: Int = 500, progress: (Double) -> Bool = { _ in true }
    ) throws {
        (tokens, target, value, units) = (pass.tokens, pass.target, pass.value, pass.model.units)
        var builder = try GraphBuilder(pass, unitCount: unitCount)
        let count = builder.nodes.count
        // Half of the pairs are of lower layers, and half of these of earlier positions; edges are copied when sorted.
        try MemoryLimits.require(
            MemoryLimits.product(count, count / 4 + 1, 3 * MemoryLayout<Edge>.stride),
            for:
                "a graph of \(count.grouped) nodes, with one for each layer and position and \(unitCount.grouped) "
                + "for single \(units.kind.rawValue)")
        var edges: [Edge] = []
        let targets = builder.expanded
        var first = 0
        while first < targets.count {
            // As many functionals at a time as the memory for their gradients allows.
            var (end, rows) = (first, 0)
            while end < targets.count,
                end == first || rows < Self.rowFloats / pass.model.configuration.hiddenSize
            {
                rows += builder.nodes[targets[end]].position + 1
                end += 1
            }
            guard progress(Double(first) / Double(targets.count)) else { throw CancellationError() }
            edges += try builder.edges(into: Array(targets[first..<end]))
            first = end
        }
        (nodes, self.edges) = Self.ordered(builder.allNodes, edges + builder.openedEdges)
    }

    init(
        tokens: [Int32], target: AttributionTarget, value: Double, units: UnitLayout, nodes: [Node],
        edges: [Edge]
    ) {
        (self.tokens, self.target, self.value, self.units) = (tokens, target, value, units)
        (self.nodes, self.edges) = (nodes, edges)
    }

    /// Nodes in ascending order of layers and positions, the target last, with their influence; edges grouped by target.
    private static func ordered(_ nodes: [Node], _ edges: [Edge]) -> ([Node], [Edge]) {
        func rank(_ index: Int) -> (Int, Int, Int, Int) {
            let node = nodes[index]
            let kind =
                switch node.kind {
                case .bias: 0
                case .opened(.patterns): 1
                case .unit: 2
                case .others: 3
                case .opened(.routing): 4
                case .embedding, .target: 5
                }
            return (node.layer, kind, node.position, index)
        }
        let order = nodes.indices.sorted { rank($0) < rank($1) }
        var place = [Int](repeating: 0, count: nodes.count)
        for (new, old) in order.enumerated() { place[old] = new }
        let sortedNodes = order.map { old -> Node in
            let node = nodes[old]
            guard case .bias(let owner) = node.kind else { return node }
            return Node(
                kind: .bias(of: place[owner]), layer: node.layer, position: node.position,
                contribution: node.contribution, score: node.score)
        }
        let sortedEdges = edges.map {
            Edge(source: place[$0.source], target: place[$0.target], weight: $0.weight)
        }.sorted { ($0.target, $0.source) < ($1.target, $1.source) }
        return (Influence(nodes: sortedNodes, edges: sortedEdges).nodes, sortedEdges)
    }
}

/// The part of the construction that propagates gradients from nodes to what they read directly.
private struct GraphBuilder {
    let pass: LinearizedPass
    /// Embeddings, then units and others by layer, then the target.
    var nodes: [AttributionGraph.Node] = []
    /// Bias nodes, which follow the others.
    var biasNodes: [AttributionGraph.Node] = []
    /// Nodes with incoming edges, from the target downwards.
    private(set) var expanded: [Int] = []
    private let width: Int
    /// Node of the others of a layer at a position.
    private var others: [[Int]] = []
    /// Nodes of units in a layer at a position.
    private var unitNodes: [[[Int]]] = []
    private var outputs: [Int: [Float]] = [:]
    /// For every node of units or others: gradient at the residual stream that it reads, and what its biases contribute.
    private var readings: [Int: (gradient: [Float], bias: Double)] = [:]
    private var targetNode = 0

    var allNodes: [AttributionGraph.Node] { nodes + biasNodes }

    init(_ pass: LinearizedPass, unitCount: Int) throws {
        self.pass = pass
        width = pass.model.configuration.hiddenSize
        let positions = pass.tokens.indices
        for position in positions {
            nodes.append(
                .init(
                    kind: .embedding, layer: -1, position: position,
                    contribution: pass.embeddings[position], score: 0))
        }
        // The strongest units of all, kept in a list that is cut whenever it has grown.
        struct Candidate {
            let (layer, position, unit, contribution): (Int, Int, Int, Double)
        }
        var candidates: [Candidate] = []
        func cut() {
            candidates.sort {
                (abs($1.contribution), $0.layer, $0.position, $0.unit)
                    < (abs($0.contribution), $1.layer, $1.position, $1.unit)
            }
            candidates.removeLast(max(0, candidates.count - max(0, unitCount)))
        }
        try pass.visitContributions { layer, position, unit, contribution in
            guard contribution != 0 else { return }
            candidates.append(
                Candidate(layer: layer, position: position, unit: unit, contribution: contribution))
            if candidates.count > 4 * unitCount + 10_000 { cut() }
        }
        cut()
        for layer in pass.layers.indices {
            let own = candidates.filter { $0.layer == layer }
                .sorted { ($0.position, $0.unit) < ($1.position, $1.unit) }
            try add(layer, own.map { (UnitTerm(token: $0.position, unit: $0.unit), $0.contribution) })
        }
        targetNode = nodes.count
        nodes.append(
            .init(
                kind: .target, layer: pass.layers.count, position: pass.tokens.count - 1,
                contribution: pass.total, score: 0))
        expanded = [targetNode] + (positions.count..<targetNode).reversed()
    }

    /// Adds a layer's nodes, what they write and what they read.
    private mutating func add(_ layer: Int, _ units: [(term: UnitTerm, contribution: Double)]) throws {
        let block = pass.layers[layer].feedForward
        let norm = pass.layers[layer].norm
        // Patterns read the stream before attention: they are activated after the nodes that read the one after it.
        addOpened(.patterns, layer)
        let gradient = pass.gradients[layer]
        func rows(_ values: [Float], _ row: Int) -> ArraySlice<Float> {
            values[(row * width)..<((row + 1) * width)]
        }
        let terms = units.map(\.term)
        let written = try block.outputs(terms)
        let read = try block.inputGradients(terms, of: terms.flatMap { rows(gradient, $0.token) })
        var otherNodes: [Int] = []
        var byPosition = pass.tokens.map { _ in [Int]() }
        var place = 0
        for position in pass.tokens.indices {
            // What the others write and read is what the whole block does less what the nodes do.
            var restOutput = Array(rows(pass.blockOutputs[layer], position))
            var restGradient = Array(rows(pass.blocks[layer].gradient, position))
            var restBias = pass.blocks[layer].biases[position]
            while place < units.count, terms[place].token == position {
                let node = nodes.count
                nodes.append(
                    .init(
                        kind: .unit(terms[place].unit), layer: layer, position: position,
                        contribution: units[place].contribution, score: block.score(terms[place])))
                byPosition[position].append(node)
                let (output, inner) = (Array(rows(written, place)), rows(read.gradients, place))
                for column in 0..<width {
                    restOutput[column] -= output[column]
                    restGradient[column] -= inner[inner.startIndex + column]
                }
                restBias -= read.biases[place]
                outputs[node] = output
                readings[node] = (norm.inputGradient(of: inner, token: position), read.biases[place])
                place += 1
            }
            let node = nodes.count
            let flow = (0..<width).reduce(0.0) {
                $0 + Double(restOutput[$1]) * Double(gradient[position * width + $1])
            }
            nodes.append(
                .init(kind: .others, layer: layer, position: position, contribution: flow, score: 0))
            otherNodes.append(node)
            outputs[node] = restOutput
            readings[node] = (norm.inputGradient(of: restGradient, token: position), restBias)
        }
        others.append(otherNodes)
        unitNodes.append(byPosition)
        addOpened(.routing, layer)
    }

    private mutating func addOpened(_ path: OpenedPath, _ layer: Int) {
        guard let reading = pass.opened.first(where: { $0.path == path && $0.layer == layer }) else { return }
        for position in pass.tokens.indices {
            readings[nodes.count] = (
                Array(reading.gradient[(position * width)..<((position + 1) * width)]), 0
            )
            nodes.append(
                .init(
                    kind: .opened(path), layer: layer, position: position,
                    contribution: reading.contributions[position], score: 0))
        }
    }

    /// Edges from opened nodes to the target, which stand for all that they change on the way.
    var openedEdges: [AttributionGraph.Edge] {
        nodes.indices.compactMap { index in
            guard case .opened = nodes[index].kind, nodes[index].contribution != 0 else { return nil }
            return .init(source: index, target: targetNode, weight: nodes[index].contribution)
        }
    }

    /// Edges into some of the nodes, given from the top downwards. Adds their bias nodes.
    mutating func edges(into targets: [Int]) throws -> [AttributionGraph.Edge] {
        var edges: [AttributionGraph.Edge] = []
        var biases = [Double](repeating: 0, count: targets.count)
        var active: [Int] = []
        var lengths: [Int] = []
        var gradients: [Float] = []
        func activate(_ place: Int, _ gradient: [Float]) {
            let position = nodes[targets[place]].position
            active.append(place)
            lengths.append(position + 1)
            gradients += [Float](repeating: 0, count: position * width)
            gradients += gradient
        }
        var next = 0
        if targets.first == targetNode {
            activate(0, pass.topGradient)
            next = 1
        }
        for layer in pass.layers.indices.reversed() {
            for position in pass.tokens.indices where !active.isEmpty {
                let sources = unitNodes[layer][position] + [others[layer][position]]
                edges += try products(
                    sources, sources.flatMap { outputs[$0] ?? [] }, position, targets, active, lengths,
                    gradients)
            }
            while next < targets.count, nodes[targets[next]].layer == layer,
                nodes[targets[next]].kind != .opened(.patterns)
            {
                let reading = readings[targets[next]]
                biases[next] = reading?.bias ?? 0
                activate(next, reading?.gradient ?? [])
                next += 1
            }
            if !active.isEmpty {
                let own = try pass.layers[layer].attention.addInputGradients(to: &gradients, lengths: lengths)
                for (place, bias) in zip(active, own) { biases[place] += bias }
            }
            while next < targets.count, nodes[targets[next]].layer == layer {
                activate(next, readings[targets[next]]?.gradient ?? [])
                next += 1
            }
        }
        for position in pass.tokens.indices {
            let start = position * width
            edges += try products(
                [position], Array(pass.stream[start..<(start + width)]), position, targets, active, lengths,
                gradients)
        }
        for (place, bias) in biases.enumerated() where bias != 0 {
            let owner = nodes[targets[place]]
            edges.append(.init(source: nodes.count + biasNodes.count, target: targets[place], weight: bias))
            biasNodes.append(
                .init(
                    kind: .bias(of: targets[place]), layer: owner.layer, position: owner.position,
                    contribution: bias, score: 0))
        }
        return edges
    }

    /// Edges from sources at a position to all active functionals that reach it: products of what the sources write with
    /// the functionals' gradients there.
    private func products(
        _ sources: [Int], _ written: [Float], _ position: Int, _ targets: [Int], _ active: [Int],
        _ lengths: [Int], _ gradients: [Float]
    ) throws -> [AttributionGraph.Edge] {
        var rows: [Float] = []
        var reached: [Int] = []
        var first = 0
        for (place, length) in zip(active, lengths) {
            if position < length {
                let start = (first + position) * width
                rows += gradients[start..<(start + width)]
                reached.append(targets[place])
            }
            first += length
        }
        guard !reached.isEmpty else { return [] }
        let backend = pass.backend
        let result = try backend.linear(
            backend.tensor(Tensor(rows, shape: [reached.count, width])),
            weight: backend.tensor(Tensor(written, shape: [sources.count, width])), bias: nil
        ).floats()
        var edges: [AttributionGraph.Edge] = []
        for (row, target) in reached.enumerated() {
            for (column, source) in sources.enumerated() {
                let weight = result[row * sources.count + column]
                if weight != 0 { edges.append(.init(source: source, target: target, weight: Double(weight))) }
            }
        }
        return edges
    }
}
