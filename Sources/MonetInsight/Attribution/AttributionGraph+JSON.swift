import Foundation
import MonetFoundation
import MonetModel
import MonetText

extension AttributionGraph {
    /// What a graph file says beside the graph.
    public struct Description: Sendable {
        /// Name of the file, unique among the graphs of a page.
        public var slug: String
        /// The model's name.
        public var model: String
        /// The prompt's text.
        public var prompt: String
        /// What is explained, as text: a token, or a metric.
        public var target: String
        /// The probability of the explained token; nil for a metric.
        public var probability: Double?
        /// Nodes of single units in the whole graph, and the shares that pruning kept.
        public var unitCount: Int
        public var nodeShare: Double
        public var edgeShare: Double

        /// Collects the facts.
        public init(
            slug: String, model: String, prompt: String, target: String, probability: Double?, unitCount: Int,
            nodeShare: Double, edgeShare: Double
        ) {
            (self.slug, self.model, self.prompt, self.target) = (slug, model, prompt, target)
            (self.probability, self.unitCount) = (probability, unitCount)
            (self.nodeShare, self.edgeShare) = (nodeShare, edgeShare)
        }
    }

    /// The graph in the format of circuit-tracer's page and Neuronpedia's viewer.
    ///
    /// These show details of nodes of the type `cross layer transcoder`, so units have this type; `metadata.info` says
    /// what they really are. A pair (i, j) is feature i · E + j of its layer; the other units of a layer come after
    /// the last one.
    ///
    /// - `names`: the tokens' texts.
    /// - `labels`: what is known of units, such as labels or explanations.
    public func json(_ description: Description, names: [String], labels: [UnitID: String] = [:]) -> JSONValue
    {
        let influences = cumulativeInfluences()
        return [
            "metadata": [
                "slug": .string(description.slug), "scan": .string(description.model),
                "prompt_tokens": .array(names.map { .string($0) }), "prompt": .string(description.prompt),
                "node_threshold": .number(description.nodeShare), "schema_version": 1, "transcoder_list": [],
                "feature_details": ["feature_json_base_url": "./features"],
                "info": [
                    "creator_name": "monet", "generator": ["name": "Monet for Swift", "url": ""],
                    "target": .string(description.target), "value": .number(value),
                    "units": .string(units.kind.rawValue),
                    "opened": .array(
                        OpenedPath.allCases.filter { path in nodes.contains { $0.kind == .opened(path) } }
                            .map { .string($0.rawValue) }),
                    "note": .string(
                        "Nodes of the type 'cross layer transcoder' are \(units.kind.rawValue) of the model itself, "
                            + "or all others of a layer at a position: the graph has no replacement model and no "
                            + "error nodes. A link's weight is what its source contributes to the target by way of it."
                    ),
                ],
                "generation_settings": [
                    "max_n_logits": 1, "max_feature_nodes": .integer(description.unitCount),
                ],
                "pruning_settings": [
                    "node_threshold": .number(description.nodeShare),
                    "edge_threshold": .number(description.edgeShare),
                ],
            ],
            "qParams": [
                "pinnedIds": .array([.string(id(nodes.count - 1))]), "supernodes": [], "linkType": "both",
                "clickedId": .string(id(nodes.count - 1)), "sg_pos": "",
            ],
            "nodes": .array(
                nodes.indices.map {
                    json(node: $0, description, names: names, labels: labels, influence: influences[$0])
                }),
            "links": .array(
                edges.map {
                    [
                        "source": .string(id($0.source)), "target": .string(id($0.target)),
                        "weight": .number($0.weight),
                    ]
                }),
        ]
    }

    /// The share of all influence that the nodes with as much or more hold, by node: viewers show the nodes up to a
    /// threshold of it.
    private func cumulativeInfluences() -> [Double] {
        let total = nodes.dropLast().reduce(0.0) { $0 + $1.influence }
        var result = [Double](repeating: 0, count: nodes.count)
        var sum = 0.0
        for index in nodes.indices.dropLast().sorted(by: {
            (nodes[$1].influence, $0) < (nodes[$0].influence, $1)
        }) {
            sum += nodes[index].influence
            result[index] = total > 0 ? sum / total : 0
        }
        return result
    }

    /// The node with an id of the JSON form.
    public func node(withID name: String) -> Int? { nodes.indices.first { id($0) == name } }

    /// `layer_token_position` for embeddings and the target, otherwise `layer_feature_position`.
    private func id(_ index: Int) -> String {
        let node = nodes[index]
        return "\(layerName(node))_\(token(of: node) ?? feature(index))_\(node.position)"
    }

    /// The token that an embedding or the target stands for.
    private func token(of node: Node) -> Int? {
        switch node.kind {
        case .embedding: Int(tokens[node.position])
        case .target: Int(target.terms.first?.token ?? 0)
        case .unit, .others, .opened, .bias: nil
        }
    }

    private func layerName(_ node: Node) -> String {
        switch node.kind {
        case .embedding: "E"
        case .target: "\((units.layersOfGroup.last?.upperBound ?? 0) + 2)"
        default: "\(node.layer)"
        }
    }

    /// The number of a node in its layer. Units have their index; others and biases follow them with a number for each
    /// position, because pages take equal numbers for one feature.
    private func feature(_ index: Int) -> Int {
        let node = nodes[index]
        switch node.kind {
        case .embedding: return node.position
        case .target: return token(of: node) ?? 0
        case .unit(let unit): return unit
        case .others: return units.unitsPerGroup + node.position
        case .bias, .opened: return units.unitsPerGroup + tokens.count + index
        }
    }

    /// The identity of a node's feature on circuit-tracer's page.
    private func pageID(_ node: Node, _ feature: Int) -> String {
        switch node.kind {
        case .embedding: "E_\(tokens[node.position])-\(node.position)"
        case .target: "L_\(feature)-\(node.position)"
        case .unit, .others, .opened, .bias: "\(node.layer)_\(feature)-0"
        }
    }

    private func json(
        node index: Int, _ description: Description, names: [String], labels: [UnitID: String],
        influence: Double
    ) -> JSONValue {
        let node = nodes[index]
        let (feature, layer) = (feature(index), max(0, node.layer))
        func halves(_ unit: UnitID) -> String {
            units.halves(unit.index).map { " (\($0.left), \($0.right))" } ?? ""
        }
        let (type, name): (String, String) =
            switch node.kind {
            case .embedding: ("embedding", names[node.position])
            case .target:
                (
                    // Pages read the probability out of this text.
                    "logit",
                    "Output \"\(description.target)\" (p="
                        + String(format: "%.3f)", description.probability ?? 1)
                )
            case .others: ("cross layer transcoder", "other \(units.kind.rawValue)")
            case .opened(.patterns): ("attention pattern", "attention patterns")
            case .opened(.routing): ("routing", "routing")
            case .unit:
                (
                    "cross layer transcoder",
                    unit(of: node).map { labels[$0] ?? "\($0)\(halves($0))" } ?? ""
                )
            case .bias(let owner):
                (
                    "bias",
                    unit(of: nodes[owner]).map { "biases of \($0)" }
                        ?? "biases of other \(units.kind.rawValue)"
                )
            }
        // Cantor's pairing of layer and feature, as circuit-tracer numbers features over all layers.
        let sum = layer + feature
        let paired = sum * (sum + 1) / 2 + feature
        let isUnit = type == "cross layer transcoder"
        return [
            "node_id": .string(id(index)), "feature": .integer(isUnit ? paired : feature),
            "layer": .string(layerName(node)), "ctx_idx": .integer(node.position),
            "feature_type": .string(type),
            "token_prob": .number(
                node.kind == .target ? description.probability ?? 0 : 0),
            "is_target_logit": .bool(node.kind == .target), "run_idx": 0, "reverse_ctx_idx": 0,
            "jsNodeId": .string(pageID(node, feature)), "clerp": .string(name),
            "influence": .number(influence), "influence_share": .number(node.influence),
            "activation": isUnit ? .number(node.score) : .null,
            "contribution": .number(node.contribution),
            "unit": unit(of: node).map { .string($0.description) } ?? .null,
        ]
    }
}
