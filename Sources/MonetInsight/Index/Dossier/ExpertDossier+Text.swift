import Foundation
import MonetFoundation

extension ExpertDossier {
    /// The dossier for a terminal: statistics, labels, and the top tokens with their score and context, as in the
    /// paper's figure 2. Scores are sums over heads, so they can exceed 1.
    ///
    /// - Parameter usesColor: whether to highlight tokens with terminal escape codes.
    public func text(usesColor: Bool = false) -> String {
        var lines = [
            (halves.map { "expert \(expert)   halves \($0.left) and \($0.right)" } ?? "neuron \(expert)")
                + "   layers \(layers.lowerBound)–\(layers.upperBound)"
        ]
        guard count > 0 else { return lines[0] + "\nnever fired in the corpus of this index\n" }
        lines.append(
            "fires on \(Self.share(frequency)) of tokens (\(count)), mean score \(Self.score(mean)), "
                + "largest \(Self.score(max)); commonest top token \(Self.share(tokenConcentration))")
        for (number, explanation) in explanations.enumerated() {
            let doubt = explanation.isCredible ? "" : "  (noise: the model cannot predict the question)"
            lines.append(
                (number == 0 ? "says of itself  " : "                ") + explanation.text.quotedForTable
                    + doubt)
        }
        for set in labels {
            lines.append("")
            let ratio = set.ratio.map { String(format: "%.1f × the next", $0) } ?? "no other"
            lines.append(
                "\(set.set.onOneLine)   entropy \(String(format: "%.2f", set.entropy)) bits, \(ratio)")
            let widest = set.labels.first?.mean ?? 0
            let width = set.labels.map(\.name.onOneLine.count).max() ?? 0
            for label in set.labels.prefix(8) where label.mean > 0 {
                let name = label.name.onOneLine
                let bar = String(
                    repeating: "█", count: widest > 0 ? Int((24 * label.mean / widest).rounded(.up)) : 0)
                lines.append(
                    "  " + name + String(repeating: " ", count: width - name.count) + "  "
                        + Self.column(label.mean) + "  " + bar)
            }
        }
        lines.append("")
        lines.append("scores  " + Self.sparkline(histogram))
        lines.append("")
        let width = activations.map(\.token.onOneLine.count).max() ?? 0
        for activation in activations {
            let token = activation.token.onOneLine
            let marked = usesColor ? "\u{1b}[1;33m\(token)\u{1b}[0m" : "[\(token)]"
            let gap = String(repeating: " ", count: width - token.count)
            lines.append(
                "\(Self.column(activation.score))  (\(token))\(gap)  …\(activation.before.onOneLine)"
                    + "\(marked)\(activation.after.onOneLine)…")
        }
        if duplicates > 0 { lines.append("(\(duplicates) near-duplicates left out)") }
        if let logitEffects {
            lines.append("")
            lines.append("probability of the next token, percentage points")
            for (title, tokens) in [
                ("promotes  ", logitEffects.promoted), ("suppresses", logitEffects.suppressed),
            ] {
                let words = tokens.map {
                    "\($0.text.quotedForTable) \(Self.signedPoints($0.change))"
                }
                lines.append("\(title)  " + (words.isEmpty ? "nothing" : words.joined(separator: "   ")))
            }
        }
        if !neighbours.isEmpty {
            lines.append("")
            for (title, sharesLeft) in [("same left half ", true), ("same right half", false)] {
                let experts = neighbours.filter { $0.sharesLeft == sharesLeft }
                    .map { "\($0.expert) \(Self.score($0.mean))" }
                if !experts.isEmpty { lines.append("\(title)  " + experts.joined(separator: "   ")) }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A share in percent: `1.12%`, `0.0029%`.
    package static func share(_ value: Double) -> String {
        String(format: value < 0.0001 && value > 0 ? "%.4f%%" : "%.2f%%", 100 * value)
    }

    /// A score or mean of scores: `0.405`, and two digits of small ones, `0.00053` or `4.2e-05`.
    package static func score(_ value: Double) -> String {
        if value > 0, value < 1e-4 { return String(format: "%.1e", value) }
        guard value > 0, value < 0.01 else { return String(format: "%.3f", value) }
        let digits = Swift.min(9, 1 - Int(log10(value).rounded(.down)))
        return String(format: "%.\(digits)f", value)
    }

    /// A score in a column.
    private static func column(_ value: Double) -> String {
        let text = score(value)
        return String(repeating: " ", count: Swift.max(0, 8 - text.count)) + text
    }

    /// A change of probability in percentage points: `+3.21`, `-0.04`.
    static func signedPoints(_ change: Double) -> String {
        String(format: abs(change) < 0.001 ? "%+.3f" : "%+.2f", 100 * change)
    }

    private static func sparkline(_ histogram: [Int]) -> String {
        let blocks = Array("▁▂▃▄▅▆▇█")
        let largest = Double(histogram.max() ?? 0)
        return String(
            histogram.map { $0 == 0 ? " " : blocks[Int(7 * (Double($0) / largest).squareRoot())] })
            + "  (\(String(format: "%.4f", GroupStatistics.upperEnd(ofBin: 0))) to "
            + "\(String(format: "%.2f", GroupStatistics.upperEnd(ofBin: GroupStatistics.bins - 2))), logarithmic)"
    }
}
