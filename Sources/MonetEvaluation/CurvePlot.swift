import Foundation
import MonetFoundation

/// Curves through labelled points of a plane, as SVG.
public struct CurvePlot: Sendable {
    /// A point with what stands beside it.
    public struct Point: Sendable {
        public var x: Double
        public var y: Double
        public var label: String

        /// Joins them.
        public init(x: Double, y: Double, label: String) { (self.x, self.y, self.label) = (x, y, label) }
    }

    /// Points joined by lines, in their order.
    public struct Curve: Sendable {
        public var name: String
        public var points: [Point]

        /// Joins name and points.
        public init(name: String, points: [Point]) { (self.name, self.points) = (name, points) }
    }

    /// Shown above, and beside the axes.
    public var title: String
    public var horizontal: String
    public var vertical: String
    /// The curves.
    public var curves: [Curve]

    /// Joins the parts.
    public init(title: String, horizontal: String, vertical: String, curves: [Curve]) {
        (self.title, self.horizontal, self.vertical, self.curves) = (title, horizontal, vertical, curves)
    }

    private static let shapes: [@Sendable (Double, Double) -> String] = [
        { "<circle cx=\"\(SVGDrawing.fixed($0))\" cy=\"\(SVGDrawing.fixed($1))\" r=\"4\"/>" },
        {
            "<rect x=\"\(SVGDrawing.fixed($0 - 4))\" y=\"\(SVGDrawing.fixed($1 - 4))\" width=\"8\" height=\"8\"/>"
        },
        {
            "<path d=\"M\(SVGDrawing.fixed($0)) \(SVGDrawing.fixed($1 - 5))l5 9h-10z\"/>"
        },
    ]
    private static let (width, height) = (720.0, 420.0)
    private static let (left, right, top, bottom) = (76.0, 24.0, 64.0, 56.0)

    /// The picture. Points that are not finite are left out.
    public func svg() -> String {
        let points = curves.flatMap(\.points).filter { $0.x.isFinite && $0.y.isFinite }
        let xs = LinePlot.scale(points.map(\.x).min() ?? 0, points.map(\.x).max() ?? 1)
        let ys = LinePlot.scale(points.map(\.y).min() ?? 0, points.map(\.y).max() ?? 1)
        func x(_ value: Double) -> Double {
            Self.left + (value - xs.low) / (xs.high - xs.low) * (Self.width - Self.left - Self.right)
        }
        func y(_ value: Double) -> Double {
            Self.height - Self.bottom - (value - ys.low) / (ys.high - ys.low)
                * (Self.height - Self.top - Self.bottom)
        }
        var body = SVGDrawing.text(title, x: Self.left, y: 22, anchor: "start", size: 15, weight: 600)
        for tick in xs.ticks {
            body += Self.line(x(tick), Self.top, x(tick), Self.height - Self.bottom, "class=\"rule\"")
            body += SVGDrawing.text(
                LinePlot.label(tick, step: Self.step(xs.ticks)), x: x(tick),
                y: Self.height - Self.bottom + 18, anchor: "middle", size: 11)
        }
        for tick in ys.ticks {
            body += Self.line(Self.left, y(tick), Self.width - Self.right, y(tick), "class=\"rule\"")
            body += SVGDrawing.text(
                LinePlot.label(tick, step: Self.step(ys.ticks)), x: Self.left - 8, y: y(tick) + 4,
                anchor: "end", size: 11)
        }
        body += SVGDrawing.text(
            horizontal, x: (Self.left + Self.width - Self.right) / 2, y: Self.height - 14, anchor: "middle",
            size: 12)
        body +=
            "<g transform=\"translate(16 \(SVGDrawing.fixed((Self.top + Self.height - Self.bottom) / 2))) rotate(-90)\">"
        body += SVGDrawing.text(vertical, x: 0, y: 0, anchor: "middle", size: 12) + "</g>"
        var legend = Self.left
        for (number, curve) in curves.enumerated() {
            let colour = SVGDrawing.colours[number % SVGDrawing.colours.count]
            let shape = Self.shapes[number % Self.shapes.count]
            let own = curve.points.filter { $0.x.isFinite && $0.y.isFinite }
            for (a, b) in zip(own, own.dropFirst()) {
                body += Self.line(x(a.x), y(a.y), x(b.x), y(b.y), "stroke=\"\(colour)\" stroke-width=\"1.5\"")
            }
            body += "<g fill=\"\(colour)\">" + own.map { shape(x($0.x), y($0.y)) }.joined()
            for point in own where !point.label.isEmpty {
                body +=
                    "<text x=\"\(SVGDrawing.fixed(x(point.x) + 6))\" y=\"\(SVGDrawing.fixed(y(point.y) - 6))\" font-size=\"10\">\(point.label.htmlEscaped)</text>"
            }
            body += shape(legend + 5, 42)
            body +=
                "<text x=\"\(SVGDrawing.fixed(legend + 16))\" y=\"46\" font-size=\"12\">\(curve.name.htmlEscaped)</text></g>"
            legend += 34 + 6.6 * Double(curve.name.count)
        }
        return SVGDrawing.document(
            width: max(Self.width, legend), height: Self.height, title: title, body: body)
    }

    private static func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double, _ style: String)
        -> String
    {
        "<line x1=\"\(SVGDrawing.fixed(x1))\" y1=\"\(SVGDrawing.fixed(y1))\" x2=\"\(SVGDrawing.fixed(x2))\" y2=\"\(SVGDrawing.fixed(y2))\" \(style)/>"
    }

    private static func step(_ ticks: [Double]) -> Double { ticks.count > 1 ? ticks[1] - ticks[0] : 1 }
}
