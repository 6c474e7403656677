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
        let widths = header.indices.map { column in ([header] + rows).map { $0[column].count }.max() ?? 0 }
        func line(_ cells: [String]) -> String {
            zip(cells, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
                .joined(separator: "   ").trimmingTrailingSpaces + "\n"
        }
        return line(header) + line(widths.map { String(repeating: "─", count: $0) }) + rows.map(line).joined()
    }
}

extension String {
    fileprivate var trimmingTrailingSpaces: String {
        var text = Substring(self)
        while text.last == " " { text.removeLast() }
        return String(text)
    }
}
