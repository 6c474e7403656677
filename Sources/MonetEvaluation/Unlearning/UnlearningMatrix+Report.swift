import Foundation
import MonetFoundation

extension UnlearningMatrix {
    /// The matrix as text: a row for each label whose specialists are removed, a column for each label
    /// that is measured, then the damage to the target and the mean damage to the others.
    public func table(_ metric: Metric) -> String {
        let digits = metric == .loss ? 3 : 1
        func text(_ value: Double) -> String { number(value, metric, digits: digits) }
        var lines = [["removed", "experts"] + labels + ["target", "others"]]
        for row in rows.indices {
            let (target, others) = targetAndOthers(row, metric)
            lines.append(
                [labels[row], "\(rows[row].removed)"] + labels.indices.map { text(damage(row, $0, metric)) }
                    + [text(target), text(others)])
        }
        let base = baseline.map { metric == .loss ? $0.loss : 100 * $0.accuracy }
        lines.append(["(none)", ""] + base.map { String(format: "%.\(digits)f", $0) } + ["", ""])
        return Self.aligned(lines)
    }

    /// What random experts cost in place of each label's specialists, as text: means over the draws, and the
    /// standard deviations for the target and for the others. Empty without draws.
    public func controlTable(_ metric: Metric) -> String {
        guard !controls.allSatisfy(\.isEmpty) else { return "" }
        let digits = metric == .loss ? 3 : 1
        func text(_ spread: Spread) -> String {
            number(spread.mean, metric, digits: digits) + " ± "
                + String(format: "%.\(digits)f", (metric == .loss ? 1 : 100) * spread.deviation)
        }
        var lines = [["random for", "fires on", "(them)"] + labels + ["target", "others"]]
        for row in rows.indices {
            guard let control = control(row, metric) else { continue }
            lines.append(
                [labels[row], Self.percent(rows[row].meanFrequency), Self.percent(meanFrequency(row))]
                    + control.damages.map { number($0.mean, metric, digits: digits) }
                    + [text(control.target), text(control.others)])
        }
        return Self.aligned(lines)
    }

    /// Mean share of tokens that the random experts fire on.
    func meanFrequency(_ row: Int) -> Double? {
        let known = controls[row].compactMap(\.meanFrequency)
        return known.isEmpty ? nil : known.reduce(0, +) / Double(known.count)
    }

    private static func percent(_ share: Double?) -> String {
        share.map { String(format: "%.2f%%", 100 * $0) } ?? ""
    }

    /// A value with its sign; accuracies in percentage points.
    func number(_ value: Double, _ metric: Metric, digits: Int) -> String {
        signed(metric == .loss ? value : 100 * value, digits: digits)
    }

    private static func aligned(_ rows: [[String]]) -> String {
        let widths = (rows.first ?? []).indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            row.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return column == 0 ? cell + space : space + cell
            }.joined(separator: "  ") + "\n"
        }.joined()
    }

    /// All numbers as JSON.
    public func json() -> JSONValue {
        func scores(_ scores: [HeldOutScore]) -> JSONValue {
            .object(
                zip(labels, scores).map { label, score in
                    .init(
                        label,
                        [
                            "loss": .number(score.loss), "cloze_accuracy": .number(score.accuracy),
                            "tokens": .integer(score.tokens),
                        ])
                })
        }
        func row(_ row: Row) -> JSONValue {
            [
                "removed": .integer(row.removed),
                "mean_frequency": row.meanFrequency.map { .number($0) } ?? .null,
                "scores": scores(row.scores),
            ]
        }
        func control(_ label: Int) -> JSONValue {
            .object(
                [.init("draws", .array(controls[label].map(row)))]
                    + Metric.allCases.compactMap { metric in
                        self.control(label, metric).map { .init(metric.rawValue, $0.json()) }
                    })
        }
        return [
            "labels": .array(labels.map { .string($0) }), "baseline": scores(baseline),
            "rows": .object(zip(labels, rows).map { .init($0, row($1)) }),
            "random": .object(controls.indices.map { .init(labels[$0], control($0)) }),
            "summary": .object(
                Metric.allCases.map { metric in
                    let summary = summary(metric)
                    return .init(metric.rawValue, summary.json())
                }),
        ]
    }
}

extension UnlearningMatrix.Summary {
    /// Damage to the targets divided by damage to the others; infinite if the others lose nothing.
    public var selectivity: Double { others > 0 ? target / others : .infinity }

    func json() -> JSONValue {
        [
            "target": .number(target), "others": .number(others), "selectivity": .number(selectivity),
            "random": random.map { $0.json() } ?? .null, "removed": .number(removed),
        ]
    }
}

extension UnlearningMatrix.Spread {
    func json() -> JSONValue { ["mean": .number(mean), "deviation": .number(deviation)] }
}

extension UnlearningMatrix.Control {
    func json() -> JSONValue { ["target": target.json(), "others": others.json()] }
}

/// A number with its sign; zero has none.
func signed(_ value: Double, digits: Int) -> String {
    let text = String(format: "%+.\(digits)f", value)
    return text.contains { "123456789na".contains($0) } ? text : String(text.dropFirst())
}
