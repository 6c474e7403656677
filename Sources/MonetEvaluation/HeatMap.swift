import Foundation
import MonetFoundation

/// A matrix as a picture: a coloured cell with its value for every pair of labels, averages on the right, and a
/// row of comparison below.
public struct HeatMap: Sendable {
    /// Shown above.
    public var title: String
    /// Names of the rows and columns.
    public var labels: [String]
    /// Values by row and column; positive is red, negative blue.
    public var values: [[Double]]
    /// Columns of averages at the right, with the values' deviations where they have some.
    public var averages: [Column]
    /// A row below, with a value for each label; nil if there is none.
    public var control: Column?
    /// How values are written.
    public var format: @Sendable (Double) -> String

    /// A named list of values.
    public struct Column: Sendable {
        /// Shown at its head.
        public var name: String
        /// One value for each label.
        public var values: [Double]
        /// Standard deviations of the values; empty if they have none.
        public var deviations: [Double] = []
    }

    private static let cell = 46.0

    /// The largest magnitude, which has the full colour.
    private var largest: Double {
        let all = values.flatMap { $0 } + averages.flatMap(\.values) + (control?.values ?? [])
        return max(1e-12, all.map(abs).filter(\.isFinite).max() ?? 1)
    }

    // MARK: SVG

    /// The picture as SVG.
    public func svg() -> String {
        let cell = Self.cell
        let longest = Double(labels.map(\.count).max() ?? 0)
        // The corner says what rows and columns are, however short the labels.
        let longestRow = max(longest, Double(control?.name.count ?? 0))
        let (left, top) = (max(130, longestRow * 7.2 + 34), longest * 5.4 + 64)
        let columns = Double(labels.count + averages.count)
        let width = max(left + columns * cell + longest * 4 + 24, Double(title.count) * 8.6 + 24)
        let rows = Double(labels.count) + (control == nil ? 0 : 1)
        let height = top + rows * cell + (control == nil ? 16 : 28)
        var body = SVGDrawing.text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        body += SVGDrawing.text("removed ↓  measured →", x: left - 8, y: top - 10, anchor: "end", size: 10)
        for (column, name) in (labels + averages.map(\.name)).enumerated() {
            let x = left + (Double(column) + 0.5) * cell + gap(column)
            body +=
                "<text transform=\"translate(\(fixed(x + 4)) \(fixed(top - 8))) rotate(-42)\" style=\"font-size: 11px\">\(name.htmlEscaped)</text>"
        }
        for (row, label) in labels.enumerated() {
            let y = top + Double(row) * cell
            body += SVGDrawing.text(label, x: left - 8, y: y + cell / 2 + 4, anchor: "end", size: 11)
            for (column, value) in values[row].enumerated() {
                body += drawn(value, nil, x: left + Double(column) * cell, y: y, isTarget: column == row)
            }
            for (number, average) in averages.enumerated() {
                let column = labels.count + number
                body += drawn(
                    average.values[row],
                    average.deviations.indices.contains(row) ? average.deviations[row] : nil,
                    x: left + Double(column) * cell + gap(column), y: y)
            }
        }
        if let control {
            let y = top + Double(labels.count) * cell + 12
            body += SVGDrawing.text(control.name, x: left - 8, y: y + cell / 2 + 4, anchor: "end", size: 11)
            for (column, value) in control.values.enumerated() {
                body += drawn(
                    value, control.deviations.indices.contains(column) ? control.deviations[column] : nil,
                    x: left + Double(column) * cell, y: y)
            }
        }
        return SVGDrawing.document(width: width, height: height, title: title, body: body)
    }

    private func drawn(_ value: Double, _ deviation: Double?, x: Double, y: Double, isTarget: Bool = false)
        -> String
    {
        let cell = Self.cell
        let (fill, ink) = SVGDrawing.colour(value / largest)
        let stroke = isTarget ? " stroke=\"#222\" stroke-width=\"1.5\"" : ""
        var text =
            "<rect x=\"\(fixed(x + 1))\" y=\"\(fixed(y + 1))\" width=\"\(fixed(cell - 2))\" height=\"\(fixed(cell - 2))\" fill=\"\(fill)\"\(stroke)/>"
        let middle = y + cell / 2 + (deviation == nil ? 4 : -1)
        text +=
            "<text x=\"\(fixed(x + cell / 2))\" y=\"\(fixed(middle))\" text-anchor=\"middle\" style=\"fill: \(ink); font-size: 10.5px\">\(format(value).htmlEscaped)</text>"
        if let deviation {
            text +=
                "<text x=\"\(fixed(x + cell / 2))\" y=\"\(fixed(middle + 12))\" text-anchor=\"middle\" style=\"fill: \(ink); font-size: 9px\">\(spread(deviation))</text>"
        }
        return text
    }

    private func spread(_ deviation: Double) -> String {
        let text = format(deviation)
        return "± " + (text.hasPrefix("+") ? String(text.dropFirst()) : text)
    }

    /// The distance of averages from the other columns.
    private func gap(_ column: Int) -> Double { column >= labels.count ? 12 : 0 }

    private func fixed(_ value: Double) -> String { SVGDrawing.fixed(value) }

    // MARK: HTML

    /// The matrix as a table, which keeps its size in narrow windows, with the names of rows in place while it
    /// is moved.
    public func table() -> String {
        func cell(_ value: Double, _ deviation: Double?, _ kind: String) -> String {
            let strength = value.isFinite ? min(1, abs(value / largest)).squareRoot() : 0
            let sign = value < 0 ? "negative" : "positive"
            let ink = strength > 0.6 ? " strong" : ""
            let spread = deviation.map { "<small>\(self.spread($0).htmlEscaped)</small>" } ?? ""
            return
                "<td class=\"\(sign)\(ink)\(kind)\" style=\"--s: \(String(format: "%.0f", 100 * strength))%\">\(format(value).htmlEscaped)\(spread)</td>"
        }
        func deviation(_ column: Column, _ place: Int) -> Double? {
            column.deviations.indices.contains(place) ? column.deviations[place] : nil
        }
        let names =
            labels.map { "<th scope=\"col\"><span>\($0.htmlEscaped)</span></th>" }
            + averages.map { "<th scope=\"col\" class=\"average\"><span>\($0.name.htmlEscaped)</span></th>" }
        var rows = ["<tr><th class=\"corner\">removed ↓<br>measured →</th>\(names.joined())</tr>"]
        for (row, label) in labels.enumerated() {
            let own = values[row].enumerated().map { cell($1, nil, $0 == row ? " target" : "") }
            let means = averages.map { cell($0.values[row], deviation($0, row), " average") }
            rows.append("<tr><th scope=\"row\">\(label.htmlEscaped)</th>\((own + means).joined())</tr>")
        }
        if let control {
            let cells = control.values.enumerated().map { cell($1, deviation(control, $0), "") }
            rows.append(
                "<tr class=\"control\"><th scope=\"row\">\(control.name.htmlEscaped)</th>\(cells.joined())</tr>"
            )
        }
        return """
            <h2>\(title.htmlEscaped)</h2>
            <div class="wide" tabindex="0" role="region" aria-label="\(title.htmlEscaped)"><table class="heat">
            \(rows.joined(separator: "\n"))
            </table></div>
            """
    }

    static let style = """
        .heat { border-collapse: separate; border-spacing: 2px; font-size: .75rem; }
        .heat td { min-width: 2.9rem; height: 2.3rem; padding: .15rem; text-align: center; line-height: 1.2; }
        .heat small { display: block; font-size: .65rem; white-space: nowrap; }
        .heat .positive { background: color-mix(in srgb, var(--card), var(--positive) var(--s)); }
        .heat .negative { background: color-mix(in srgb, var(--card), var(--negative) var(--s)); }
        .heat .strong { color: #fff; } .heat .target { outline: 2px solid var(--ink); outline-offset: -2px; }
        .heat th { font-weight: 500; color: var(--soft); background: var(--card); }
        .heat th[scope=row], .heat .corner { position: sticky; left: 0; text-align: right; padding-right: .4rem; max-width: 8.5rem; overflow-wrap: break-word; }
        .heat .corner { font-size: .65rem; vertical-align: bottom; white-space: nowrap; }
        .heat th[scope=col] { vertical-align: bottom; } .heat th[scope=col] span { writing-mode: vertical-rl; transform: rotate(180deg); max-height: 11rem; }
        .heat td.average, .heat th.average { border-left: 0; } .heat td.average:nth-last-child(1) { min-width: 3.4rem; }
        .heat .control td, .heat .control th { border-top: 6px solid var(--card); }
        @media print { .heat { font-size: 6.5pt; border-spacing: 1px; } .heat td { min-width: 0; height: auto; } .heat small { font-size: 5.5pt; } }
        @page { size: A4 landscape; }
        """

    /// A page of several matrices.
    ///
    /// - `lead`: the conclusions, on top.
    /// - `definitions`: paragraphs below.
    public static func page(
        title: String, lead: [String], pictures: [HeatMap], definitions: [String], origin: PageOrigin
    ) -> String {
        ReportPage.html(
            title: title, lead: lead, sections: pictures.map { $0.table() }, definitions: definitions,
            style: style, origin: origin)
    }
}

extension UnlearningMatrix {
    /// The matrix as a heat map, with the averages of the target and of the other labels on the right, and what
    /// random units cost the targets there and in a row below.
    public func heatMap(_ metric: Metric, title: String) -> HeatMap {
        let pairs = rows.indices.map { targetAndOthers($0, metric) }
        let digits = metric == .loss ? 2 : 1
        var averages: [HeatMap.Column] = [
            .init(name: "target", values: pairs.map(\.target)),
            .init(name: "others", values: pairs.map(\.others)),
        ]
        let targets = rows.indices.compactMap { control($0, metric)?.target }
        var row: HeatMap.Column?
        if targets.count == rows.count, !targets.isEmpty {
            let (means, deviations) = (targets.map(\.mean), targets.map(\.deviation))
            averages.append(.init(name: "random, target", values: means, deviations: deviations))
            row = .init(name: "random, its own label", values: means, deviations: deviations)
        }
        return HeatMap(
            title: title, labels: labels,
            values: rows.indices.map { row in labels.indices.map { damage(row, $0, metric) } },
            averages: averages, control: row,
            format: { value in
                signed(metric == .loss ? value : 100 * value, digits: digits)
            })
    }
}
