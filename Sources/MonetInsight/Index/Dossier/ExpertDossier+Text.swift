import Foundation
import MonetFoundation

extension ExpertDossier {
    /// The dossier for a terminal: statistics, labels, and the top tokens with their score in percent and
    /// context, as in the paper's figure 2. Scores are sums over heads, so they can exceed 100%.
    ///
    /// - Parameter usesColor: whether to highlight tokens with terminal escape codes.
    public func text(usesColor: Bool = false) -> String {
        var lines = [
            (halves.map { "expert \(expert)   halves \($0.left) and \($0.right)" } ?? "neuron \(expert)")
                + "   layers \(layers.lowerBound)–\(layers.upperBound)"
        ]
        guard count > 0 else { return lines[0] + "\nnever fired in the corpus of this index\n" }
        lines.append(
            "fires on \(Self.percent(frequency)) of tokens (\(count)), mean score \(Self.percent(mean)), "
                + "largest \(Self.percent(max)); commonest top token \(Self.percent(tokenConcentration))")
        for (number, explanation) in explanations.enumerated() {
            let doubt = explanation.isCredible ? "" : "  (noise: the model cannot predict the question)"
            lines.append(
                (number == 0 ? "says of itself  " : "                ") + explanation.text.quotedForTable
                    + doubt)
        }
        for set in labels {
            lines.append("")
            let ratio = set.ratio.map { String(format: "%.1f × the next", $0) } ?? "no other"
            lines.append("\(set.set)   entropy \(String(format: "%.2f", set.entropy)) bits, \(ratio)")
            let widest = set.labels.first?.mean ?? 0
            let width = set.labels.map(\.name.count).max() ?? 0
            for label in set.labels.prefix(8) where label.mean > 0 {
                let bar = String(
                    repeating: "█", count: widest > 0 ? Int((24 * label.mean / widest).rounded(.up)) : 0)
                lines.append(
                    "  " + label.name.padding(toLength: width, withPad: " ", startingAt: 0) + "  "
                        + Self.percent(label.mean) + "  " + bar)
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
                "\(Self.percent(activation.score))  (\(token))\(gap)  …\(activation.before.onOneLine)"
                    + "\(marked)\(activation.after.onOneLine)…")
        }
        if let logitEffects {
            lines.append("")
            for (title, tokens) in [
                ("promotes  ", logitEffects.promoted), ("suppresses", logitEffects.suppressed),
            ] {
                let words = tokens.map {
                    "\($0.text.quotedForTable) \(String(format: "%+.2f", $0.change))"
                }
                lines.append("\(title)  " + (words.isEmpty ? "nothing" : words.joined(separator: "   ")))
            }
        }
        if !neighbours.isEmpty {
            lines.append("")
            for (title, sharesLeft) in [("same left half ", true), ("same right half", false)] {
                let experts = neighbours.filter { $0.sharesLeft == sharesLeft }
                    .map { "\($0.expert) \(Self.percent($0.mean))" }
                if !experts.isEmpty { lines.append("\(title)  " + experts.joined(separator: "   ")) }
            }
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A share in percent with two significant decimals: `36.11%`.
    static func percent(_ value: Double) -> String {
        let text = String(format: value < 0.0001 && value > 0 ? "%.4f%%" : "%.2f%%", 100 * value)
        return String(repeating: " ", count: Swift.max(0, 7 - text.count)) + text
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
