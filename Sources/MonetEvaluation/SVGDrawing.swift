import Foundation
import MonetFoundation

/// Parts of SVG that pictures share.
enum SVGDrawing {
    /// The colours of series, in their order.
    static let colours = ["#c8323a", "#3f7cc8", "#5c8a2a", "#a06a00", "#7a4fb0", "#12877f"]

    /// A picture: dark ink on white, and light ink on dark where the reader's screen is dark.
    static func document(width: Double, height: Double, title: String, body: String) -> String {
        """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(fixed(width)) \(fixed(height))" width="\(fixed(width))" font-family="system-ui, sans-serif" role="img" aria-label="\(title.htmlEscaped)">
        <style>.ground{fill:#fff}.ink{fill:#222}.rule{stroke:#e4e4e4}@media screen and (prefers-color-scheme:dark){.ground{fill:#1f2024}.ink{fill:#e8e6e1}.rule{stroke:#3a3b40}}</style>
        <rect class="ground" width="100%" height="100%"/><g class="ink">\(body)</g>
        </svg>

        """
    }

    /// A line of text; `anchor` is start, middle or end.
    static func text(
        _ text: String, x: Double, y: Double, anchor: String, size: Double, weight: Int = 400
    ) -> String {
        "<text x=\"\(fixed(x))\" y=\"\(fixed(y))\" text-anchor=\"\(anchor)\" style=\"font-size: \(fixed(size))px\" font-weight=\"\(weight)\">\(text.htmlEscaped)</text>"
    }

    /// Horizontal rules at some values with their numbers, from `left` over `width`.
    static func rules(_ ticks: [Double], left: Double, width: Double, y: (Double) -> Double) -> String {
        ticks.reduce(into: "") { body, tick in
            let line = fixed(y(tick))
            body +=
                "<line x1=\"\(fixed(left))\" x2=\"\(fixed(left + width))\" y1=\"\(line)\" y2=\"\(line)\" class=\"rule\"/>"
            body += text(
                LinePlot.label(tick, step: ticks.count > 1 ? ticks[1] - ticks[0] : 1), x: left - 8,
                y: y(tick) + 3.5, anchor: "end", size: 10)
        }
    }

    /// The names of lines beside their ends, in their colours; those that end close together are moved apart.
    static func names(_ ends: [(y: Double, name: String, colour: String)], x: Double) -> String {
        var names = ends.sorted { $0.y < $1.y }
        for index in names.indices.dropFirst() where names[index].y - names[index - 1].y < 14 {
            names[index].y = names[index - 1].y + 14
        }
        return names.reduce(into: "") { body, name in
            body +=
                "<text x=\"\(fixed(x))\" y=\"\(fixed(name.y + 4))\" style=\"fill: \(name.colour); font-size: 11px\">\(name.name.htmlEscaped)</text>"
        }
    }

    /// From blue through white to red for −1 to 1; the square root makes small values visible.
    static func colour(_ value: Double) -> (fill: String, ink: String) {
        guard value.isFinite else { return ("#ddd", "#222") }
        let strength = min(1, abs(value)).squareRoot()
        let far = value >= 0 ? (178.0, 30.0, 38.0) : (33.0, 92.0, 166.0)
        func mixed(_ end: Double) -> Int { Int(255 + (end - 255) * strength) }
        let fill = String(format: "#%02x%02x%02x", mixed(far.0), mixed(far.1), mixed(far.2))
        return (fill, strength > 0.6 ? "#fff" : "#222")
    }

    /// A coordinate.
    static func fixed(_ value: Double) -> String { String(format: "%.1f", value) }
}

/// Pages of results: conclusions first, then figures and tables, and what they mean.
enum ReportPage {
    static func html(
        title: String, lead: [String], sections: [String], definitions: [String] = [], style: String = "",
        origin: PageOrigin
    ) -> String {
        var parts = ["<h1>\(title.htmlEscaped)</h1>"]
        parts += lead.map { "<p class=\"lead\">\($0.htmlEscaped)</p>" }
        parts += sections.filter { !$0.isEmpty }.map { "<section>\($0)</section>" }
        if !definitions.isEmpty {
            parts.append(
                "<section><h2>What the numbers mean</h2>"
                    + definitions.map { "<p>\($0.htmlEscaped)</p>" }.joined() + "</section>")
        }
        return Page.html(title: title, body: parts.joined(separator: "\n"), style: style, origin: origin)
    }

    /// A picture.
    static func figure(_ svg: String) -> String { "<figure>\n\(svg)</figure>" }

    /// Rows of cells, the heading first; nothing without rows.
    static func table(_ rows: [[String]], title: String? = nil) -> String {
        if rows.isEmpty { return "" }
        let lines = rows.enumerated().map { number, row in
            let tag = number == 0 ? "th" : "td"
            return "<tr>" + row.map { "<\(tag)>\($0.htmlEscaped)</\(tag)>" }.joined() + "</tr>"
        }
        return (title.map { "<h2>\($0.htmlEscaped)</h2>" } ?? "")
            + "<div class=\"wide\"><table class=\"plain\">\n\(lines.joined(separator: "\n"))\n</table></div>"
    }
}
