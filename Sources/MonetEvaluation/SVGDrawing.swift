import Foundation
import MonetFoundation

/// Parts of SVG that pictures share.
enum SVGDrawing {
    /// A picture with dark ink on white.
    static func document(width: Double, height: Double, title: String, body: String) -> String {
        """
        <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(fixed(width)) \(fixed(height))" width="\(fixed(width))" font-family="system-ui, sans-serif" role="img" aria-label="\(title.htmlEscaped)">
        <rect width="100%" height="100%" fill="#fff"/><g fill="#222">\(body)</g>
        </svg>

        """
    }

    /// A line of text; `anchor` is start, middle or end.
    static func text(
        _ text: String, x: Double, y: Double, anchor: String, size: Double, weight: Int = 400
    ) -> String {
        "<text x=\"\(fixed(x))\" y=\"\(fixed(y))\" text-anchor=\"\(anchor)\" font-size=\"\(fixed(size))\" font-weight=\"\(weight)\">\(text.htmlEscaped)</text>"
    }

    /// A coordinate.
    static func fixed(_ value: Double) -> String { String(format: "%.1f", value) }
}

/// A self-contained page around pictures and tables.
enum ReportPage {
    static func html(title: String, body: [String], notes: [String]) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>\(title.htmlEscaped)</title>
        <style>
        body { margin: 0 auto; max-width: 80rem; padding: 1.5rem; background: #fff; color: #222; font: 16px/1.5 system-ui, sans-serif; }
        figure { margin: 0 0 1.5rem; overflow-x: auto; } svg { max-width: 100%; height: auto; } p { max-width: 60rem; color: #555; margin: .4rem 0; }
        .wide { overflow-x: auto; } table { border-collapse: collapse; margin: 0 0 1.2rem; font-variant-numeric: tabular-nums; }
        th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap; } th:first-child, td:first-child { text-align: left; padding-left: 0; }
        </style>
        </head>
        <body>
        <h1>\(title.htmlEscaped)</h1>
        \((body + notes.map { "<p>\($0.htmlEscaped)</p>" }).joined(separator: "\n"))
        </body>
        </html>

        """
    }

    /// A picture.
    static func figure(_ svg: String) -> String { "<figure>\n\(svg)</figure>" }

    /// Rows of cells, the heading first; nothing without rows.
    static func table(_ rows: [[String]]) -> String {
        if rows.isEmpty { return "" }
        let lines = rows.enumerated().map { number, row in
            let tag = number == 0 ? "th" : "td"
            return "<tr>" + row.map { "<\(tag)>\($0.htmlEscaped)</\(tag)>" }.joined() + "</tr>"
        }
        return "<div class=\"wide\"><table>\n\(lines.joined(separator: "\n"))\n</table></div>"
    }
}
