import Foundation
import MonetFoundation
import MonetModel

extension AttributionGraph {
    /// The graph as a table for the terminal: its nodes by influence, and how it relates to the whole one.
    ///
    /// - `names`: the tokens' texts.
    /// - `whole`: the graph from which this one was pruned.
    public func table(names: [String], target: String, whole: AttributionGraph, count: Int) -> String {
        let shown = nodes.indices.dropLast().sorted { (nodes[$1].influence, $0) < (nodes[$0].influence, $1) }
            .prefix(count)
        let rows = shown.map { index -> [String] in
            let node = nodes[index]
            let (layer, name): (String, String) =
                switch node.kind {
                case .embedding: ("", "embedding")
                case .others: ("\(node.layer)", "other \(units.kind.rawValue)")
                case .bias(let owner):
                    ("\(node.layer)", "biases of " + (unit(of: nodes[owner])?.description ?? "others"))
                default: ("\(node.layer)", unit(of: node)?.description ?? "")
                }
            return [
                "\(node.position)", names[node.position].onOneLine, layer, name,
                String(format: "%.4f", node.contribution),
                String(format: "%.1f%%", 100 * node.influence),
            ]
        }
        let scores = whole.scores(within: whole)
        return TextTable(
            ["position", "token", "layer", "node", "contribution", "influence"], rows,
            numbers: [0, 2, 4, 5]
        ).text
            + "\n\(target) has "
            + String(
                format: "%.4f; replacement score %.4f, completeness %.4f; ", value, scores.replacement,
                scores.completeness)
            + "\(nodes.count) of \(whole.nodes.count) nodes, \(edges.count) of \(whole.edges.count) edges shown in the graph\n"
    }
}
