import Foundation
import MonetFoundation

/// A matrix as a picture: a coloured cell with its value for every pair of labels, averages beside it.
public struct HeatMap: Sendable {
    /// Shown above.
    public var title: String
    /// Names of the rows and columns.
    public var labels: [String]
    /// Values by row and column; positive is red, negative blue.
    public var values: [[Double]]
    /// Columns of averages at the right.
    public var averages: [(name: String, values: [Double])]
    /// How values are written.
    public var format: @Sendable (Double) -> String

    private static let cell = 46.0

    /// The picture as SVG.
    public func svg() -> String {
        let cell = Self.cell
        let longest = Double(labels.map(\.count).max() ?? 0)
        // The corner names what rows and columns are, however short the labels.
        let (left, top) = (max(130, longest * 7.2 + 34), longest * 5.4 + 64)
        let columns = Double(labels.count + averages.count)
        let width = max(left + columns * cell + longest * 4 + 24, Double(title.count) * 8.6 + 24)
        let height = top + Double(labels.count) * cell + 16
        let all = values.flatMap { $0 } + averages.flatMap(\.values)
        let largest = max(1e-12, all.map(abs).filter(\.isFinite).max() ?? 1)
        var body = text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        body += text(
            "removed ↓  measured →", x: left - 8, y: top - 10, anchor: "end", size: 10, weight: 400)
        let names = labels + averages.map(\.name)
        for (column, name) in names.enumerated() {
            let x = left + (Double(column) + 0.5) * cell + gap(column)
            body +=
                "<text transform=\"translate(\(fixed(x + 4)) \(fixed(top - 8))) rotate(-42)\" font-size=\"11\">\(name.htmlEscaped)</text>"
        }
        for (row, label) in labels.enumerated() {
            let y = top + Double(row) * cell
            body += text(label, x: left - 8, y: y + cell / 2 + 4, anchor: "end", size: 11, weight: 400)
            for (column, value) in (values[row] + averages.map { $0.values[row] }).enumerated() {
                let x = left + Double(column) * cell + gap(column)
                let (fill, ink) = colour(value / largest)
                let isTarget = column == row
                body +=
                    "<rect x=\"\(fixed(x + 1))\" y=\"\(fixed(y + 1))\" width=\"\(fixed(cell - 2))\" height=\"\(fixed(cell - 2))\" fill=\"\(fill)\"\(isTarget ? " stroke=\"#222\" stroke-width=\"1.5\"" : "")/>"
                body +=
                    "<text x=\"\(fixed(x + cell / 2))\" y=\"\(fixed(y + cell / 2 + 4))\" text-anchor=\"middle\" font-size=\"10.5\" style=\"fill: \(ink)\">\(format(value).htmlEscaped)</text>"
            }
        }
        return """
            <svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \(fixed(width)) \(fixed(height))" width="\(fixed(width))" font-family="system-ui, sans-serif" role="img" aria-label="\(title.htmlEscaped)">
            <rect width="100%" height="100%" fill="#fff"/><g fill="#222">\(body)</g>
            </svg>

            """
    }

    /// A page around the picture.
    ///
    /// - Parameter notes: paragraphs below it.
    public static func page(title: String, pictures: [HeatMap], notes: [String]) -> String {
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
        </style>
        </head>
        <body>
        <h1>\(title.htmlEscaped)</h1>
        \(pictures.map { "<figure>\n\($0.svg())</figure>" }.joined(separator: "\n"))
        \(notes.map { "<p>\($0.htmlEscaped)</p>" }.joined(separator: "\n"))
        </body>
        </html>

        """
    }

    /// Averages stand apart.
    private func gap(_ column: Int) -> Double { column >= labels.count ? 12 : 0 }

    private func text(
        _ text: String, x: Double, y: Double, anchor: String, size: Double, weight: Int
    ) -> String {
        "<text x=\"\(fixed(x))\" y=\"\(fixed(y))\" text-anchor=\"\(anchor)\" font-size=\"\(fixed(size))\" font-weight=\"\(weight)\">\(text.htmlEscaped)</text>"
    }

    private func fixed(_ value: Double) -> String { String(format: "%.1f", value) }

    /// From blue through white to red for −1 to 1; the square root shows small values too.
    private func colour(_ value: Double) -> (fill: String, ink: String) {
        guard value.isFinite else { return ("#ddd", "#222") }
        let strength = min(1, abs(value)).squareRoot()
        let far = value >= 0 ? (178.0, 30.0, 38.0) : (33.0, 92.0, 166.0)
        func mixed(_ end: Double) -> Int { Int(255 + (end - 255) * strength) }
        let fill = String(format: "#%02x%02x%02x", mixed(far.0), mixed(far.1), mixed(far.2))
        return (fill, strength > 0.6 ? "#fff" : "#222")
    }
}

extension UnlearningMatrix {
    /// The matrix as a heat map, with the target's and the others' average beside it.
    public func heatMap(_ metric: Metric, title: String) -> HeatMap {
        let pairs = rows.indices.map { targetAndOthers($0, metric) }
        let digits = metric == .loss ? 2 : 1
        return HeatMap(
            title: title, labels: labels,
            values: rows.indices.map { row in labels.indices.map { damage(row, $0, metric) } },
            averages: [("target", pairs.map(\.target)), ("others", pairs.map(\.others))],
            format: { value in
                signed(metric == .loss ? value : 100 * value, digits: digits)
            })
    }
}
