import Foundation
import MonetFoundation

extension RoutingTrace {
    /// A table with a row per token and a column per group; cells show the `strongest` experts with scores.
    public func table(strongest: Int = 3) -> String {
        let header =
            ["token"]
            + layersOfGroup.enumerated().map { group, layers in
                "group \(group) (layers \(layers.first ?? 0)–\(layers.last ?? 0))"
            }
        let rows = tokens.map { token in
            [token.text.quotedForTable]
                + token.groups.map { routing in
                    routing.experts.prefix(strongest).map {
                        "\($0.expert) " + String(format: "%.2f", $0.score)
                    }.joined(separator: "  ")
                }
        }
        return TextTable(header, rows).text
    }
}
