import Foundation
import MonetFoundation

/// A matrix as a picture: a coloured cell with its value for every pair of labels, and averages on the right.
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
        // The corner says what rows and columns are, however short the labels.
        let (left, top) = (max(130, longest * 7.2 + 34), longest * 5.4 + 64)
        let columns = Double(labels.count + averages.count)
        let width = max(left + columns * cell + longest * 4 + 24, Double(title.count) * 8.6 + 24)
        let height = top + Double(labels.count) * cell + 16
        let all = values.flatMap { $0 } + averages.flatMap(\.values)
        let largest = max(1e-12, all.map(abs).filter(\.isFinite).max() ?? 1)
        var body = SVGDrawing.text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        body += SVGDrawing.text(
            "removed ↓  measured →", x: left - 8, y: top - 10, anchor: "end", size: 10, weight: 400)
        let names = labels + averages.map(\.name)
        for (column, name) in names.enumerated() {
            let x = left + (Double(column) + 0.5) * cell + gap(column)
            body +=
                "<text transform=\"translate(\(fixed(x + 4)) \(fixed(top - 8))) rotate(-42)\" font-size=\"11\">\(name.htmlEscaped)</text>"
        }
        for (row, label) in labels.enumerated() {
            let y = top + Double(row) * cell
            body += SVGDrawing.text(
                label, x: left - 8, y: y + cell / 2 + 4, anchor: "end", size: 11, weight: 400)
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
        return SVGDrawing.document(width: width, height: height, title: title, body: body)
    }

    /// A page around the picture.
    ///
    /// - `notes`: paragraphs below it.
    public static func page(title: String, pictures: [HeatMap], notes: [String]) -> String {
        ReportPage.html(title: title, body: pictures.map { ReportPage.figure($0.svg()) }, notes: notes)
    }

    /// The distance of averages from the other columns.
    private func gap(_ column: Int) -> Double { column >= labels.count ? 12 : 0 }

    private func fixed(_ value: Double) -> String { SVGDrawing.fixed(value) }

    /// From blue through white to red for −1 to 1; the square root makes small values visible.
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
    /// The matrix as a heat map, with the averages of the target and of the other labels on the right.
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
