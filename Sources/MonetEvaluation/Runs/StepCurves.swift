import Foundation

/// Curves over steps, in panels above each other that share the axis of steps.
struct StepCurves {
    struct Curve {
        let name: String
        /// Ascending steps with their values, all finite.
        let points: [(step: Double, value: Double)]
    }

    struct Panel {
        let title: String
        let curves: [Curve]
    }

    let title: String
    /// What the axis below counts.
    let axis: String
    let panels: [Panel]

    private static let (width, panelHeight) = (620.0, 150.0)
    private static let (left, right, top) = (64.0, 190.0, 46.0)
    /// More points than there are pixels show nothing more.
    private static let mostPoints = 600

    func svg() -> String {
        let steps = panels.flatMap { $0.curves.flatMap { $0.points.map(\.step) } }
        let (ticks, low, high) = LinePlot.scale(steps.min() ?? 0, steps.max() ?? 1)
        func x(_ step: Double) -> Double { Self.left + Self.width * (step - low) / (high - low) }
        let foot = Self.top + Double(panels.count) * (Self.panelHeight + 44)
        var body = SVGDrawing.text(title, x: 12, y: 24, anchor: "start", size: 15, weight: 600)
        for (number, panel) in panels.enumerated() {
            let start = Self.top + Double(number) * (Self.panelHeight + 44) + 22
            body += SVGDrawing.text(
                panel.title, x: Self.left, y: start - 8, anchor: "start", size: 12, weight: 600)
            body += drawn(panel, from: start, x: x)
        }
        for tick in ticks {
            body += SVGDrawing.text(
                LinePlot.label(tick, step: ticks.count > 1 ? ticks[1] - ticks[0] : 1), x: x(tick),
                y: foot + 4,
                anchor: "middle", size: 10)
        }
        body += SVGDrawing.text(axis, x: Self.left + Self.width / 2, y: foot + 22, anchor: "middle", size: 11)
        return SVGDrawing.document(
            width: Self.left + Self.width + Self.right, height: foot + 34, title: title, body: body)
    }

    private func drawn(_ panel: Panel, from start: Double, x: (Double) -> Double) -> String {
        let values = panel.curves.flatMap { $0.points.map(\.value) }
        let (ticks, low, high) = LinePlot.scale(values.min() ?? 0, values.max() ?? 1)
        func y(_ value: Double) -> Double { start + Self.panelHeight * (1 - (value - low) / (high - low)) }
        var body = SVGDrawing.rules(ticks, left: Self.left, width: Self.width, y: y)
        var names: [(y: Double, name: String, colour: String)] = []
        for (number, curve) in panel.curves.enumerated() {
            let colour = SVGDrawing.colours[number % SVGDrawing.colours.count]
            let every = max(1, curve.points.count / Self.mostPoints)
            let shown = curve.points.enumerated().filter {
                $0.offset % every == 0 || $0.offset == curve.points.count - 1
            }.map(\.element)
            let path = shown.map { "\(SVGDrawing.fixed(x($0.step))),\(SVGDrawing.fixed(y($0.value)))" }
            body +=
                "<polyline points=\"\(path.joined(separator: " "))\" fill=\"none\" stroke=\"\(colour)\" stroke-width=\"1.6\"/>"
            // A line of one point is none.
            if shown.count == 1, let only = shown.first {
                body +=
                    "<circle cx=\"\(SVGDrawing.fixed(x(only.step)))\" cy=\"\(SVGDrawing.fixed(y(only.value)))\" r=\"3\" fill=\"\(colour)\"/>"
            }
            if let last = shown.last { names.append((y(last.value), curve.name, colour)) }
        }
        return body + SVGDrawing.names(names, x: Self.left + Self.width + 10)
    }
}
