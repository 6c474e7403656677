import Foundation
import MonetFoundation

/// How what was forgotten comes back under fine-tuning.
public struct RelearningReport: Sendable {
    /// A measurement.
    public struct Point: Sendable, Equatable {
        /// Tokens of fine-tuning before it.
        public let tokens: Int
        /// Accuracy and loss on what is to be forgotten, then on the rest.
        public let values: [Double]

        /// Joins both.
        public init(tokens: Int, values: [Double]) { (self.tokens, self.values) = (tokens, values) }
    }

    /// A fine-tuning of one model; several of one name differ in the order of the texts.
    public struct Curve: Sendable, Equatable {
        public let name: String
        /// Units removed before.
        public let removed: Int
        public let points: [Point]

        /// Joins them.
        public init(name: String, removed: Int, points: [Point]) {
            (self.name, self.removed, self.points) = (name, removed, points)
        }

        /// The tokens after which the accuracy reaches a level, interpolated between measurements; nil if it does
        /// not.
        package func tokens(to level: Double) -> Double? {
            guard let place = points.firstIndex(where: { $0.values[0] >= level }) else { return nil }
            guard place > 0 else { return Double(points[0].tokens) }
            let (before, after) = (points[place - 1], points[place])
            let share = (level - before.values[0]) / (after.values[0] - before.values[0])
            return Double(before.tokens) + share * Double(after.tokens - before.tokens)
        }
    }

    let curves: [Curve]
    /// The same values of the model that knows everything.
    let original: [Double]
    /// The share of its accuracy that counts as brought back.
    let level: Double
    /// What is to be forgotten.
    public let what: String

    /// Collects the curves.
    public init(curves: [Curve], original: [Double], level: Double, what: String) {
        (self.curves, self.original, self.level, self.what) = (curves, original, level, what)
    }

    private var names: [String] {
        curves.reduce(into: []) { names, curve in if !names.contains(curve.name) { names.append(curve.name) }
        }
    }

    private func runs(_ name: String) -> [Curve] { curves.filter { $0.name == name } }

    /// Mean values over the orders of the texts, at every measurement.
    private func mean(_ name: String) -> [Point] {
        let runs = runs(name)
        return (runs.first?.points ?? []).indices.map { place in
            Point(
                tokens: runs[0].points[place].tokens,
                values: runs[0].points[place].values.indices.map { value in
                    SampleMean(runs.map { $0.points[place].values[value] }).mean
                })
        }
    }

    /// Rows of cells: the accuracy on what is to be forgotten at each measurement.
    public var table: [[String]] {
        let curves = names.map(mean)
        return [["tokens"] + names]
            + (curves.first ?? []).indices.map { place in
                [curves[0][place].tokens.grouped]
                    + curves.map { String(format: "%.4f", $0[place].values[0]) }
            }
    }

    /// Rows of cells: what each model knew before, and how many tokens brought it back.
    public var summaryTable: [[String]] {
        let wanted = level * original[0]
        return [
            [
                "", "units removed", "accuracy before", "loss before", "others: loss before",
                "tokens to \(String(format: "%.4f", wanted))", "accuracy after", "others: loss after",
            ],
            [
                "the model itself", "0", String(format: "%.4f", original[0]),
                String(format: "%.3f", original[1]), String(format: "%.3f", original[3]), "", "", "",
            ],
        ]
            + names.map { name in
                let points = mean(name)
                guard let first = points.first, let last = points.last else { return [name] }
                return [
                    name, (runs(name).first?.removed ?? 0).grouped, String(format: "%.4f", first.values[0]),
                    String(format: "%.3f", first.values[1]), String(format: "%.3f", first.values[3]),
                    returnText(name), String(format: "%.4f", last.values[0]),
                    String(format: "%.3f", last.values[3]),
                ]
            }
    }

    /// The tokens that bring the accuracy back, as text.
    private func returnText(_ name: String) -> String {
        let runs = runs(name)
        let reached = runs.compactMap { $0.tokens(to: level * original[0]) }
        let most = (runs.first?.points.last?.tokens ?? 0).grouped
        if reached.isEmpty { return "more than \(most)" }
        let mean = SampleMean(reached)
        let text = Int(mean.mean.rounded()).grouped
        if reached.count < runs.count {
            return "\(text) (\(reached.count) of \(runs.count) orders; else more than \(most))"
        }
        return mean.standardError.isFinite ? text + " ± " + Int(mean.standardError.rounded()).grouped : text
    }

    /// The accuracy over the tokens of fine-tuning.
    public func plot(title: String) -> CurvePlot {
        CurvePlot(
            title: title, horizontal: "tokens of fine-tuning",
            vertical: "cloze accuracy on held-out \(what)",
            curves: names.map { name in
                .init(
                    name: name,
                    points: mean(name).map { .init(x: Double($0.tokens), y: $0.values[0], label: "") })
            }
                + [
                    .init(
                        name: "the model itself",
                        points: [0, curves.flatMap(\.points).map(\.tokens).max() ?? 0].map {
                            .init(x: Double($0), y: original[0], label: "")
                        })
                ])
    }

    /// Curves and tables as a page.
    public func page(title: String, origin: PageOrigin) -> String {
        ReportPage.html(
            title: title, lead: [],
            sections: [
                ReportPage.figure(plot(title: title).svg()), ReportPage.table(summaryTable),
                ReportPage.table(table),
            ],
            definitions: [
                "Cloze accuracy: the share of tokens of held-out documents that the model ranks as the most likely. Each "
                    + "model is fine-tuned on other documents of what is to be forgotten. Removed units stay removed. "
                    + "Tokens to a level: of fine-tuning, until the accuracy is \(String(format: "%g", 100 * level))% of "
                    + "that of the model that knows everything, interpolated between measurements; ± the standard error "
                    + "over orders of the texts."
            ], origin: origin)
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        [
            "original": .array(original.map { .number($0) }), "level": .number(level),
            "curves": .array(
                curves.map { curve in
                    [
                        "name": .string(curve.name), "removed": .integer(curve.removed),
                        "tokens_to_level": curve.tokens(to: level * original[0]).map { .number($0) } ?? .null,
                        "points": .array(
                            curve.points.map { point in
                                [
                                    "tokens": .integer(point.tokens),
                                    "accuracy": .number(point.values[0]), "loss": .number(point.values[1]),
                                    "others_accuracy": .number(point.values[2]),
                                    "others_loss": .number(point.values[3]),
                                ]
                            }),
                    ]
                }),
        ]
    }
}
