import Foundation
import MonetFoundation

extension ExpertDossier {
    /// A self-contained page: contexts with the token highlighted, the histogram of scores, and a bar
    /// for every label.
    ///
    /// - Parameters:
    ///   - model: the model's name.
    ///   - corpus: where the contexts come from.
    public func html(model: String, corpus: String) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <title>Expert \(expert) – \(model.htmlEscaped)</title>
        <style>
        \(Self.style)
        </style>
        </head>
        <body>
        <main>
        <header>
        <h1>Expert \(expert)</h1>
        <p>\(model.htmlEscaped), layers \(layers.lowerBound)–\(layers.upperBound)\(halves.map { "; left half \($0.left), right half \($0.right)" } ?? ""). Read on \(corpus.htmlEscaped).</p>
        \(explanations.filter(\.isCredible).map { "<blockquote>\($0.text.htmlEscaped)</blockquote>" }.joined(separator: "\n"))
        <dl>
        \(figure("fires on", Self.percent(frequency), "of tokens"))
        \(figure("mean score", Self.percent(mean), "over all tokens"))
        \(figure("largest score", Self.percent(max), "sum over heads"))
        \(figure("commonest token", Self.percent(tokenConcentration), "of the top scores"))
        </dl>
        </header>
        <section><h2>Top activations</h2>
        \(contextTable)
        </section>
        <aside>
        <section><h2>Scores above zero</h2>\(histogramChart)</section>
        \(labels.map { "<section><h2>\($0.set.htmlEscaped)</h2>\($0.chart)</section>" }.joined(separator: "\n"))
        \(effectLists)
        \(neighbourList)
        </aside>
        </main>
        </body>
        </html>

        """
    }

    private func figure(_ name: String, _ value: String, _ unit: String) -> String {
        "<div><dt>\(name)</dt><dd>\(value.trimmingCharacters(in: .whitespaces))</dd><dd class=\"unit\">\(unit)</dd></div>"
    }

    private var contextTable: String {
        if activations.isEmpty { return "<p>It never fired.</p>" }
        let largest = activations.first?.score ?? 1
        let rows = activations.map { activation in
            let strength = String(format: "%.2f", 0.2 + 0.8 * activation.score / largest)
            let score = Self.percent(activation.score).trimmingCharacters(in: .whitespaces)
            return """
                <tr><td class="score">\(score)</td><td class="context">\(activation.before.onOneLine.htmlEscaped)\
                <mark style="--strength: \(strength)">\(activation.token.onOneLine.htmlEscaped)</mark>\
                \(activation.after.onOneLine.htmlEscaped)</td><td class="label">\(activation.labels.joined(separator: ", ").htmlEscaped)</td></tr>
                """
        }
        return "<table>\n" + rows.joined(separator: "\n") + "\n</table>"
    }

    /// Bars on a logarithmic axis of scores.
    private var histogramChart: String {
        let (width, height, bar) = (300.0, 96.0, 300.0 / Double(Swift.max(1, histogram.count)))
        let largest = Double(histogram.max() ?? 0)
        guard largest > 0 else { return "<p>none</p>" }
        let bars = histogram.enumerated().map { bin, count in
            let size = height * Double(count) / largest
            return String(
                format:
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%d tokens up to %.4f</title></rect>",
                Double(bin) * bar, height - size, bar - 1.5, size, count, histogramEnds[bin])
        }
        let labels = stride(from: 1, to: histogram.count - 1, by: 6).map { bin in
            String(
                format: "<text x=\"%.1f\" y=\"%.1f\">%.3g%%</text>", Double(bin + 1) * bar, height + 15,
                100 * histogramEnds[bin])
        }
        return """
            <svg viewBox="0 0 \(width) \(height + 20)" role="img" aria-label="histogram of scores">\
            <g class="bars">\(bars.joined())</g>\(labels.joined())</svg>
            """
    }

    private var effectLists: String {
        guard let logitEffects else { return "" }
        func list(_ title: String, _ tokens: [LogitEffects.Token]) -> String {
            let largest = tokens.first.map { abs($0.change) } ?? 0
            let bars = tokens.map { token in
                let width = largest > 0 ? 100 * abs(token.change) / largest : 0
                return
                    "<div class=\"bar\"><span><code>\(token.text.onOneLine.htmlEscaped)</code></span><i style=\"width: \(String(format: "%.1f", width))%\"></i><span>\(String(format: "%+.2f", token.change))</span></div>"
            }
            return
                "<section><h2>\(title)</h2>\(bars.isEmpty ? "<p>nothing</p>" : bars.joined(separator: "\n"))</section>"
        }
        return list("Promotes", logitEffects.promoted) + list("Suppresses", logitEffects.suppressed)
            + "<p class=\"unit\">change of the next token’s log-probability through the expert, mean over its \(logitEffects.places) strongest tokens, nats</p>"
    }

    private var neighbourList: String {
        if neighbours.isEmpty { return "" }
        let rows = neighbours.map { neighbour in
            "<li>\(neighbour.expert) <span class=\"unit\">\(neighbour.sharesLeft ? "left" : "right") half shared, mean \(Self.percent(neighbour.mean).trimmingCharacters(in: .whitespaces))</span></li>"
        }
        return "<section><h2>Neighbours</h2><ul>\n\(rows.joined(separator: "\n"))\n</ul></section>"
    }

    private static let style = """
        :root { color-scheme: light dark; --ink: #1c1d21; --paper: #fbfaf7; --line: #d9d6cd; --soft: #6b6a66; --card: #fff; --accent: #b3541e; }
        @media (prefers-color-scheme: dark) { :root { --ink: #e8e6e1; --paper: #17181b; --line: #37383d; --soft: #a09e98; --card: #1f2024; --accent: #f0955c; } }
        * { box-sizing: border-box; }
        body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        main { max-width: 76rem; margin: 0 auto; padding: 1.5rem; display: grid; grid-template-columns: minmax(0, 1fr) 20rem; gap: 1.5rem; align-items: start; }
        header { grid-column: 1 / -1; }
        h1 { font-size: 1.4rem; margin: 0; font-variant-numeric: tabular-nums; }
        h2 { font-size: .8rem; margin: 0 0 .5rem; color: var(--soft); font-weight: 600; text-transform: uppercase; letter-spacing: .05em; }
        p, .unit { color: var(--soft); font-size: .875rem; margin: .2rem 0 0; }
        blockquote { margin: .75rem 0 0; padding-left: .75rem; border-left: 3px solid var(--accent); }
        dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 1rem 0 0; }
        dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; } dd.unit { font-size: .75rem; }
        section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; overflow-x: auto; }
        aside { display: grid; gap: 1rem; }
        table { border-collapse: collapse; width: 100%; }
        td { padding: .3rem .5rem; border-top: 1px solid var(--line); vertical-align: top; } tr:first-child td { border-top: 0; }
        .score { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
        .context { font: .9rem/1.5 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
        .label { color: var(--soft); font-size: .8rem; white-space: nowrap; }
        mark { color: inherit; background: rgb(233 140 70 / var(--strength)); border-radius: .2rem; padding: .1rem 0; }
        svg { width: 100%; height: auto; overflow: visible; } .bars { fill: var(--accent); } svg text { fill: var(--soft); font-size: 11px; text-anchor: middle; }
        .bar { display: grid; grid-template-columns: 6.5rem 1fr 3.5rem; gap: .5rem; align-items: center; font-size: .8rem; font-variant-numeric: tabular-nums; }
        .bar span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .bar i { height: .55rem; background: var(--accent); border-radius: .3rem; } .bar span:last-child { text-align: right; color: var(--soft); }
        ul { margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
        @media (max-width: 56rem) { main { grid-template-columns: minmax(0, 1fr); } }
        @media print { body { background: none; } section { break-inside: avoid; } }
        """
}

extension ExpertDossier.LabelStatistics {
    /// A bar for every label, at most 20 of them.
    fileprivate var chart: String {
        let largest = labels.first?.mean ?? 0
        let bars = labels.prefix(20).map { label in
            let width = largest > 0 ? 100 * label.mean / largest : 0
            let mean = ExpertDossier.percent(label.mean).trimmingCharacters(in: .whitespaces)
            return
                "<div class=\"bar\"><span>\(label.name.htmlEscaped)</span><i style=\"width: \(String(format: "%.1f", width))%\"></i><span>\(mean)</span></div>"
        }
        let ratio = ratio.map { String(format: "%.1f × the next label", $0) } ?? "no other label"
        return bars.joined(separator: "\n")
            + "<p>mean score on the label's tokens; \(ratio), entropy \(String(format: "%.2f", entropy)) bits</p>"
    }
}
