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
            ["removed": .integer(row.removed), "scores": scores(row.scores)]
        }
        return [
            "labels": .array(labels.map { .string($0) }), "baseline": scores(baseline),
            "rows": .object(zip(labels, rows).map { .init($0, row($1)) }),
            "random": .array(randomRows.map(row)),
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
            "random": random.map { .number($0) } ?? .null, "removed": .number(removed),
        ]
    }
}

/// A number with its sign; zero has none.
func signed(_ value: Double, digits: Int) -> String {
    let text = String(format: "%+.\(digits)f", value)
    return text.contains { "123456789na".contains($0) } ? text : String(text.dropFirst())
}
