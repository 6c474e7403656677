import Foundation
import MonetFoundation

extension SteeringSweep {
    /// Curves of one name as one, point by point: means over random draws.
    public var meanCurves: [(name: String, draws: Int, points: [Point])] {
        var order: [String] = []
        for curve in curves where !order.contains(curve.name) { order.append(curve.name) }
        return order.map { name in
            let own = curves.filter { $0.name == name }
            let points = own[0].points.indices.map { place -> Point in
                let points = own.map { $0.points[place] }
                let effects = points.map(\.effect)
                let mean = effects.reduce(0, +) / Double(effects.count)
                let variance =
                    effects.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(max(1, effects.count - 1))
                return Point(
                    strength: points[0].strength, effect: mean,
                    effectError: own.count > 1
                        ? (variance / Double(own.count)).squareRoot() : points[0].effectError,
                    neutral: points.map(\.neutral).reduce(HeldOutScore(), +))
            }
            return (name, own.count, points)
        }
    }

    /// Effect over damage: every method from the plain model on, as SVG.
    ///
    /// - `effect`: what the vertical axis shows.
    public func svg(effect: String) -> String {
        CurvePlot(
            title: "Effect of steering against damage", horizontal: "loss on neutral text, nats per token",
            vertical: effect,
            curves: meanCurves.map { curve in
                CurvePlot.Curve(
                    name: curve.draws > 1 ? "\(curve.name) (mean of \(curve.draws))" : curve.name,
                    points: [.init(x: plain.neutral.loss, y: plain.effect, label: "")]
                        + curve.points.map {
                            .init(
                                x: $0.neutral.loss, y: $0.effect, label: String(format: "%g", $0.strength))
                        })
            }
        ).svg()
    }

    /// The sweep as JSON.
    public func json() -> JSONValue {
        func json(_ point: Point) -> JSONValue {
            [
                "strength": .number(Double(point.strength)), "effect": .number(point.effect),
                "effect_error": .number(point.effectError), "neutral_loss": .number(point.neutral.loss),
                "neutral_perplexity": .number(point.neutral.perplexity),
                "neutral_accuracy": .number(point.neutral.accuracy),
                "neutral_tokens": .integer(point.neutral.tokens),
            ]
        }
        return [
            "plain": json(plain),
            "curves": .array(
                curves.map { ["method": .string($0.name), "points": .array($0.points.map(json))] }),
        ]
    }
}
