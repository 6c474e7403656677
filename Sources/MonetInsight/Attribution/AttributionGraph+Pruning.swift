/// How much of the target's incoming flow passes each node, by the influence matrix: every node's incoming weights are
/// taken absolutely and divided by their sum, and shares multiply along paths (Ameisen et al. 2025, circuit-tracer).
struct Influence {
    /// The nodes with their influence.
    let nodes: [AttributionGraph.Node]
    /// The influence of every edge: its share among those into its target, times the target's influence.
    let edges: [Double]

    /// - `nodes`: such that edges lead from lower to higher indices, with the target last.
    /// - `edges`: grouped by target, in ascending order.
    init(nodes: [AttributionGraph.Node], edges: [AttributionGraph.Edge]) {
        var influence = [Double](repeating: 0, count: nodes.count)
        if !nodes.isEmpty { influence[nodes.count - 1] = 1 }
        var ofEdges = [Double](repeating: 0, count: edges.count)
        var end = edges.count
        while end > 0 {
            let target = edges[end - 1].target
            var start = end
            while start > 0, edges[start - 1].target == target { start -= 1 }
            let sum = edges[start..<end].reduce(0.0) { $0 + abs($1.weight) }
            if sum > 0 {
                for place in start..<end {
                    ofEdges[place] = abs(edges[place].weight) / sum * influence[target]
                    influence[edges[place].source] += ofEdges[place]
                }
            }
            end = start
        }
        self.nodes = zip(nodes, influence).map { node, value in
            var node = node
            node.influence = value
            return node
        }
        self.edges = ofEdges
    }
}

extension AttributionGraph {
    /// The graph's scores by circuit-tracer's definitions.
    public struct Scores: Sendable, Equatable {
        /// Share of the influence of embeddings on the target that passes no error node.
        public let replacement: Double
        /// Mean share of a node's incoming influence that is no error, weighted by the node's influence.
        public let completeness: Double
    }

    /// The scores of this graph as a part of a whole one: what the whole graph has and this one lacks counts as error.
    ///
    /// - `whole`: the graph from which it was pruned; itself for a whole graph.
    public func scores(within whole: AttributionGraph) -> Scores {
        var incoming = [NodeKey: Double]()
        for edge in whole.edges { incoming[whole.key(edge.target), default: 0] += abs(edge.weight) }
        var shares = [Double](repeating: 0, count: nodes.count)
        var starts = [Double](repeating: 0, count: nodes.count)
        starts[nodes.count - 1] = 1
        var kept = [Double](repeating: 0, count: nodes.count)
        for edge in edges { kept[edge.target] += abs(edge.weight) }
        for index in nodes.indices {
            let all = incoming[key(index)] ?? 0
            // Embeddings and biases have nothing incoming: they are explained.
            shares[index] = all > 0 ? kept[index] / all : 1
        }
        // Influence along paths that stay in this graph, with the whole graph's shares.
        for edge in edges.reversed() {
            let all = incoming[key(edge.target)] ?? 0
            if all > 0 { starts[edge.source] += abs(edge.weight) / all * starts[edge.target] }
        }
        let leaves = nodes.indices.filter { (incoming[key($0)] ?? 0) == 0 }
        let total = starts.reduce(0, +)
        return Scores(
            replacement: leaves.reduce(0.0) { $0 + starts[$1] },
            completeness: total > 0 ? zip(shares, starts).reduce(0.0) { $0 + $1.0 * $1.1 } / total : 1)
    }

    /// What identifies a node in a graph and its parts.
    private struct NodeKey: Hashable {
        let (kind, layer, position, unit): (Int, Int, Int, Int)
    }

    private func key(_ index: Int) -> NodeKey {
        let node = nodes[index]
        func key(_ kind: Int, _ unit: Int = 0) -> NodeKey {
            NodeKey(kind: kind, layer: node.layer, position: node.position, unit: unit)
        }
        switch node.kind {
        case .embedding: return key(0)
        case .unit(let unit): return key(1, unit)
        case .others: return key(2)
        case .opened(let path): return key(path == .patterns ? 7 : 8)
        case .target: return key(3)
        case .bias(let owner):
            switch nodes[owner].kind {
            case .unit(let unit): return key(4, unit)
            case .others: return key(5)
            default: return key(6)
            }
        }
    }

    /// The part with most influence: nodes until they hold a share of all influence, then edges likewise, then what still
    /// leads from the embeddings or biases to the target.
    ///
    /// - `nodeShare`: 0.8 in circuit-tracer.
    /// - `edgeShare`: 0.98 in circuit-tracer.
    public func pruned(nodeShare: Double = 0.8, edgeShare: Double = 0.98) -> AttributionGraph {
        func kept(_ values: [Double], share: Double) -> [Bool] {
            let limit = values.reduce(0, +) * share
            var (sum, kept) = (0.0, [Bool](repeating: false, count: values.count))
            for index in values.indices.sorted(by: { (values[$1], $0) < (values[$0], $1) }) {
                if sum >= limit, share < 1 { break }
                sum += values[index]
                kept[index] = values[index] > 0
            }
            return kept
        }
        let inner = nodes.map { node -> Double in
            switch node.kind {
            case .unit, .others, .opened, .bias: node.influence
            case .embedding, .target: 0
            }
        }
        var keeps = kept(inner, share: nodeShare)
        for (index, node) in nodes.enumerated() {
            if node.kind == .embedding || node.kind == .target { keeps[index] = true }
            // A bias without its node explains nothing.
            if case .bias(let owner) = node.kind, !keeps[owner], nodes[owner].kind != .target {
                keeps[index] = false
            }
        }
        let remaining = edges.filter { keeps[$0.source] && keeps[$0.target] }
        let influence = Influence(nodes: nodes, edges: remaining)
        let keptEdges = zip(remaining, kept(influence.edges, share: edgeShare)).filter(\.1).map(\.0)
        // Nodes that the target does not hear of, and those that nothing reaches.
        var leads = nodes.indices.map { $0 == nodes.count - 1 }
        for edge in keptEdges.reversed() where leads[edge.target] { leads[edge.source] = true }
        var reached = nodes.map { node -> Bool in
            switch node.kind {
            case .embedding, .bias: true
            default: false
            }
        }
        for edge in keptEdges where reached[edge.source] { reached[edge.target] = true }
        reached[nodes.count - 1] = true
        var places: [Int: Int] = [:]
        var indices: [Int] = []
        for index in nodes.indices where keeps[index] && leads[index] && reached[index] {
            if case .bias(let owner) = nodes[index].kind, !(keeps[owner] && leads[owner] && reached[owner]) {
                continue
            }
            places[index] = indices.count
            indices.append(index)
        }
        let newNodes = indices.map { index -> Node in
            let node = nodes[index]
            guard case .bias(let owner) = node.kind else { return node }
            var moved = Node(
                kind: .bias(of: places[owner] ?? 0), layer: node.layer, position: node.position,
                contribution: node.contribution, score: node.score)
            moved.influence = node.influence
            return moved
        }
        let newEdges = keptEdges.compactMap { edge -> Edge? in
            guard let source = places[edge.source], let target = places[edge.target] else { return nil }
            return Edge(source: source, target: target, weight: edge.weight)
        }
        return AttributionGraph(
            tokens: tokens, target: target, value: value, units: units, nodes: newNodes, edges: newEdges)
    }
}
