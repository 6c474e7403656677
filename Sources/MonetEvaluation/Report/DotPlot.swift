import Foundation

/// Values of several series beside each other, a row for each name, with errors and a mark for guessing.
struct DotPlot {
    struct Dot {
        let value: Double
        let error: Double?
    }

    struct Row {
        let name: String
        /// A dot of each series; nil for what was not measured.
        let dots: [Dot?]
        /// What guessing would give.
        let chance: Double?
    }

    let title: String
    let series: [String]
    let rows: [Row]

    private static let (left, right, top, lane) = (210.0, 40.0, 64.0, 14.0)
    private static let width = 720.0

    /// The picture; values from 0 to 1.
    func svg() -> String {
        let step = Self.lane * Double(max(1, series.count)) + 12
        let legendRows = (series.count + 2) / 3
        let top = Self.top + Double(max(0, legendRows - 1)) * 18
        let height = top + step * Double(rows.count) + 36
        let plot = Self.width - Self.left - Self.right
        func x(_ value: Double) -> Double { Self.left + min(1, max(0, value)) * plot }
        var body = SVGDrawing.text(title, x: 16, y: 24, anchor: "start", size: 15, weight: 600)
        for (place, name) in series.enumerated() {
            let (column, line) = (Double(place % 3), Double(place / 3))
            let (cx, cy) = (20 + column * 230, 44 + line * 18)
            body +=
                circle(cx, cy, place)
                + SVGDrawing.text(shortened(name), x: cx + 10, y: cy + 4, anchor: "start", size: 12)
        }
        for tick in stride(from: 0.0, through: 1.0, by: 0.25) {
            body +=
                "<line class=\"rule\" x1=\"\(fixed(x(tick)))\" x2=\"\(fixed(x(tick)))\" y1=\"\(fixed(top))\" "
                + "y2=\"\(fixed(height - 28))\"/>"
                + SVGDrawing.text(
                    String(format: "%g", tick), x: x(tick), y: height - 12, anchor: "middle", size: 11)
        }
        for (number, row) in rows.enumerated() {
            let start = top + step * Double(number) + 6
            body += SVGDrawing.text(
                row.name, x: Self.left - 10, y: start + step / 2 - 2, anchor: "end", size: 12)
            if let chance = row.chance {
                body +=
                    "<line x1=\"\(fixed(x(chance)))\" x2=\"\(fixed(x(chance)))\" y1=\"\(fixed(start - 2))\" "
                    + "y2=\"\(fixed(start + step - 14))\" stroke=\"#888\" stroke-width=\"2\" stroke-dasharray=\"2 3\"/>"
            }
            for (place, dot) in row.dots.enumerated() {
                guard let dot, dot.value.isFinite else { continue }
                let y = start + Self.lane * (Double(place) + 0.5)
                if let error = dot.error, error.isFinite {
                    body +=
                        "<line x1=\"\(fixed(x(dot.value - error)))\" x2=\"\(fixed(x(dot.value + error)))\" "
                        + "y1=\"\(fixed(y))\" y2=\"\(fixed(y))\" stroke=\"\(colour(place))\" stroke-width=\"2\"/>"
                }
                body += circle(x(dot.value), y, place)
            }
        }
        return SVGDrawing.document(width: Self.width, height: height, title: title, body: body)
    }

    private func colour(_ place: Int) -> String { SVGDrawing.colours[place % SVGDrawing.colours.count] }

    private func circle(_ x: Double, _ y: Double, _ place: Int) -> String {
        "<circle cx=\"\(fixed(x))\" cy=\"\(fixed(y))\" r=\"4\" fill=\"\(colour(place))\"/>"
    }

    private func fixed(_ value: Double) -> String { SVGDrawing.fixed(value) }

    private func shortened(_ name: String) -> String { name.count > 32 ? "…" + name.suffix(31) : name }
}
