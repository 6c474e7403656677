import Foundation
import MonetFoundation

/// Values under several conditions as lines, with one panel per scale.
public struct LinePlot: Sendable {
    /// One line.
    public struct Series: Sendable {
        /// Shown next to its last point.
        public var name: String
        /// One value per condition; values that are not finite are left out.
        public var values: [Double]
        /// Half the length of the error bars; empty for no error bars.
        public var errors: [Double] = []

        /// A line without error bars.
        public init(name: String, values: [Double], errors: [Double] = []) {
            self.name = name
            self.values = values
            self.errors = errors
        }
    }

    /// Lines on one scale.
    public struct Panel: Sendable {
        /// Shown above.
        public var title: String
        /// The lines.
        public var series: [Series]

        /// Joins title and lines.
        public init(title: String, series: [Series]) {
            self.title = title
            self.series = series
        }
    }

    /// Shown above all panels.
    public var title: String
    /// The text below each place: a line, and a smaller one.
    public var conditions: [(name: String, detail: String)]
    /// The panels, from top to bottom.
    public var panels: [Panel]
    /// Places at which a line begins anew, because what stands there does not follow from what stands before.
    public var gaps: Set<Int> = []

    /// Joins the parts.
    public init(title: String, conditions: [(name: String, detail: String)], panels: [Panel]) {
        self.title = title
        self.conditions = conditions
        self.panels = panels
    }

    private static let colours = ["#c8323a", "#3f7cc8", "#5c8a2a", "#a06a00"]
    private static let panelHeight = 150.0
    private static let (left, right, top) = (64.0, 170.0, 46.0)

    /// The picture as SVG.
    public func svg() -> String {
        // Wide enough that names of conditions do not overlap.
        let longest = conditions.map { max($0.name.count, $0.detail.count) }.max() ?? 0
        let step = max(110, Double(longest) * 6.6 + 16)
        let plotWidth = max(1, Double(conditions.count)) * step
        // Wide enough for the title in semibold letters of 15 px.
        let width = max(Self.left + plotWidth + Self.right, Double(title.count) * 8.6 + 24)
        let height = Self.top + Double(panels.count) * (Self.panelHeight + 44) + 44
        func x(_ place: Int) -> Double { Self.left + (Double(place) + 0.5) * step }
        var body = SVGDrawing.text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        for (number, panel) in panels.enumerated() {
            let start = Self.top + Double(number) * (Self.panelHeight + 44) + 22
            body += SVGDrawing.text(
                panel.title, x: Self.left, y: start - 8, anchor: "start", size: 12, weight: 600)
            body += drawn(panel, from: start, plotWidth: plotWidth, step: step, x: x)
        }
        let foot = Self.top + Double(panels.count) * (Self.panelHeight + 44) + 4
        for (place, condition) in conditions.enumerated() {
            body += SVGDrawing.text(
                condition.name, x: x(place), y: foot, anchor: "middle", size: 12, weight: 400)
            body += SVGDrawing.text(
                condition.detail, x: x(place), y: foot + 16, anchor: "middle", size: 10, weight: 400)
        }
        return SVGDrawing.document(width: width, height: height, title: title, body: body)
    }

    private func drawn(
        _ panel: Panel, from start: Double, plotWidth: Double, step: Double, x: (Int) -> Double
    ) -> String {
        let reach = panel.series.flatMap { series in
            series.values.enumerated().flatMap { place, value -> [Double] in
                let error = place < series.errors.count ? series.errors[place] : 0
                return [value - error, value + error]
            }
        }.filter(\.isFinite)
        let (ticks, low, high) = Self.scale(reach.min() ?? 0, reach.max() ?? 1)
        func y(_ value: Double) -> Double {
            start + Self.panelHeight * (1 - (value - low) / (high - low))
        }
        var body = SVGDrawing.rules(ticks, left: Self.left, width: plotWidth, y: y)
        var names: [(y: Double, name: String, colour: String)] = []
        for (number, series) in panel.series.enumerated() {
            let colour = Self.colours[number % Self.colours.count]
            let points = series.values.enumerated().filter { $0.element.isFinite }
            let starts = [0] + gaps.sorted() + [series.values.count]
            for (start, end) in zip(starts, starts.dropFirst()) {
                let path = points.filter { (start..<max(start, end)).contains($0.offset) }
                    .map { "\(SVGDrawing.fixed(x($0.offset))),\(SVGDrawing.fixed(y($0.element)))" }
                guard !path.isEmpty else { continue }
                body +=
                    "<polyline points=\"\(path.joined(separator: " "))\" fill=\"none\" stroke=\"\(colour)\" stroke-width=\"2\"/>"
            }
            for (place, value) in points {
                let centre = SVGDrawing.fixed(x(place))
                if place < series.errors.count, series.errors[place].isFinite {
                    body +=
                        "<line x1=\"\(centre)\" x2=\"\(centre)\" y1=\"\(SVGDrawing.fixed(y(value - series.errors[place])))\" y2=\"\(SVGDrawing.fixed(y(value + series.errors[place])))\" stroke=\"\(colour)\"/>"
                }
                body +=
                    "<circle cx=\"\(centre)\" cy=\"\(SVGDrawing.fixed(y(value)))\" r=\"3.5\" fill=\"\(colour)\"/>"
            }
            if let last = points.last { names.append((y(last.element), series.name, colour)) }
        }
        return body + SVGDrawing.names(names, x: Self.left + plotWidth - step / 2 + 12)
    }

    /// Round ticks that enclose two numbers.
    package static func scale(_ least: Double, _ most: Double) -> (ticks: [Double], low: Double, high: Double)
    {
        // Differences and ticks of larger numbers would be infinite.
        let (least, most) = (max(-1e300, min(1e300, least)), max(-1e300, min(1e300, most)))
        let span = max(most - least, max(abs(most), 1e-9) * 1e-3)
        let rough = span / 4
        let power = pow(10, floor(log10(rough)))
        let step = power * ([1, 2, 5, 10].first { $0 * power >= rough } ?? 10)
        let (low, high) = (floor(least / step) * step, ceil(most / step) * step)
        let top = high > low ? high : low + step
        let count = Int(((top - low) / step).rounded())
        return ((0...count).map { low + Double($0) * step }, low, top)
    }

    /// A tick's number, with the decimals that its step needs.
    static func label(_ value: Double, step: Double) -> String {
        String(format: "%.\(max(0, Int(ceil(-log10(step) - 1e-9))))f", value)
    }
}
