import Foundation
import MonetFoundation

/// A table of numbers as a picture: a coloured cell with its value for every row and column.
public struct GridMap: Sendable {
    /// Shown above.
    public var title: String
    /// Names of the rows, from above.
    public var rows: [String]
    /// Names of the columns.
    public var columns: [String]
    /// Values by row and column; positive is red, negative blue.
    public var values: [[Double]]

    /// Joins a table and its names.
    public init(title: String, rows: [String], columns: [String], values: [[Double]]) {
        (self.title, self.rows, self.columns, self.values) = (title, rows, columns, values)
    }

    private static let cell = 40.0

    /// The picture as SVG.
    public func svg() -> String {
        let cell = Self.cell
        let largest = max(1e-12, values.flatMap { $0 }.map(abs).filter(\.isFinite).max() ?? 1)
        let longest = Double(columns.map(\.count).max() ?? 0)
        let left = Double(rows.map(\.count).max() ?? 0) * 7.2 + 30
        let top = longest * 5.4 + 60
        let width = max(
            left + Double(columns.count) * cell + longest * 4 + 24, Double(title.count) * 8.6 + 24)
        let height = top + Double(rows.count) * cell + 16
        var body = SVGDrawing.text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        for (column, name) in columns.enumerated() {
            let x = SVGDrawing.fixed(left + (Double(column) + 0.5) * cell + 4)
            body +=
                "<text transform=\"translate(\(x) \(SVGDrawing.fixed(top - 8))) rotate(-42)\" style=\"font-size: 11px\">\(name.htmlEscaped)</text>"
        }
        for (row, name) in rows.enumerated() {
            let y = top + Double(row) * cell
            body += SVGDrawing.text(name, x: left - 8, y: y + cell / 2 + 4, anchor: "end", size: 11)
            for (column, value) in values[row].enumerated() {
                let (fill, ink) = SVGDrawing.colour(value / largest)
                let x = left + Double(column) * cell
                body +=
                    "<rect x=\"\(SVGDrawing.fixed(x + 1))\" y=\"\(SVGDrawing.fixed(y + 1))\" width=\"\(SVGDrawing.fixed(cell - 2))\" height=\"\(SVGDrawing.fixed(cell - 2))\" fill=\"\(fill)\"/>"
                    + "<text x=\"\(SVGDrawing.fixed(x + cell / 2))\" y=\"\(SVGDrawing.fixed(y + cell / 2 + 4))\" text-anchor=\"middle\" style=\"fill: \(ink); font-size: 10px\">\(String(format: "%.2f", value))</text>"
            }
        }
        return SVGDrawing.document(width: width, height: height, title: title, body: body)
    }
}
