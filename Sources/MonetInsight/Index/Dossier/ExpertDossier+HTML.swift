import Foundation
import MonetFoundation

extension ExpertDossier {
    /// A self-contained page: contexts with every token coloured by its score, from the strongest and from bands of
    /// lower scores, the histogram, a bar for every label, effects and neighbours.
    ///
    /// - `links`: the pages of other experts, by expert, relative to this page; neighbours among them are links.
    public func html(origin: PageOrigin, links: [UnitID: String] = [:]) -> String {
        let kind = halves == nil ? "Neuron" : "Expert"
        let body = """
            <header>
            <h1>\(kind) \(expert)</h1>
            <p>layers \(layers.lowerBound)–\(layers.upperBound)\(halves.map { "; left half \($0.left), right half \($0.right)" } ?? "")</p>
            \(explanations.filter(\.isCredible).map { "<blockquote>\($0.text.onOneLine.htmlEscaped)</blockquote>" }.joined(separator: "\n"))
            <dl>
            \(figure("fires on", Self.share(frequency), "of tokens (\(count.grouped))"))
            \(figure("mean score", Self.score(mean), "over all tokens"))
            \(figure("largest score", Self.score(max), "sum over heads"))
            \(figure("commonest token", Self.share(tokenConcentration), "of the top scores"))
            </dl>
            </header>
            <main>
            <div>
            \(contexts)
            </div>
            <aside>
            <section><h2>Scores above zero</h2>\(histogramChart)</section>
            \(labels.map { "<section><h2>\($0.set.htmlEscaped)</h2>\($0.chart)</section>" }.joined(separator: "\n"))
            \(effectLists)
            \(neighbourList(links))
            </aside>
            </main>
            """
        return Page.html(
            title: "\(kind) \(expert) – \(origin.model)", body: body, style: Self.style, origin: origin)
    }

    private func figure(_ name: String, _ value: String, _ unit: String) -> String {
        "<div><dt>\(name)</dt><dd>\(value)</dd><dd class=\"unit\">\(unit)</dd></div>"
    }

    // MARK: Contexts

    private var contexts: String {
        if count == 0 {
            return "<section><p>It never fired in the corpus of this index.</p></section>"
        }
        let largest = Swift.max(max, 1e-12)
        var notes: [String] = []
        if duplicates > 0 {
            notes.append("\(duplicates) near-duplicate\(duplicates == 1 ? "" : "s") left out")
        }
        if activations.contains(where: { $0.scores == nil }) {
            notes.append("only the strongest token of a context is coloured, as the model was not run")
        }
        let note = notes.isEmpty ? "" : "<p class=\"unit\">\(notes.joined(separator: "; "))</p>"
        let top =
            activations.isEmpty
            ? ""
            : "<section><h2>Top activations</h2>\(Self.table(activations, largest))\(note)</section>"
        let bands = samples.map { band in
            let range =
                switch (band.lower, band.upper) {
                case (let lower?, let upper?): "\(Self.score(lower)) to \(Self.score(upper))"
                case (let lower?, nil): "above \(Self.score(lower))"
                case (nil, let upper?): "up to \(Self.score(upper))"
                case (nil, nil): "all"
                }
            return
                "<section><h2>Scores \(range)</h2><p class=\"unit\">\(band.count.grouped) tokens, of which \(band.activations.count) at random</p>\(Self.table(band.activations, largest))</section>"
        }
        return ([top] + bands).joined(separator: "\n")
    }

    private static func table(_ activations: [Activation], _ largest: Double) -> String {
        let rows = activations.map { activation in
            """
            <tr><td class="score">\(score(activation.score))</td><td class="context">\(spans(activation, largest))</td>\
            <td class="label">\(activation.labels.joined(separator: ", ").onOneLine.htmlEscaped)</td></tr>
            """
        }
        return "<table class=\"contexts\">\n" + rows.joined(separator: "\n") + "\n</table>"
    }

    /// A context's tokens, each with its score as the strength of its colour. Tokens that are bytes of one character
    /// stand together, with the largest of their scores.
    private static func spans(_ activation: Activation, _ largest: Double) -> String {
        var result = ""
        var place = 0
        while place < activation.pieces.count {
            var end = place + 1
            if TokenText.isByte(activation.pieces[place]) {
                while end < activation.pieces.count, TokenText.isByte(activation.pieces[end]) { end += 1 }
            }
            let own = activation.scores.map { $0[place..<end].max() ?? 0 }
            let isTarget = (place..<end).contains(activation.place)
            let value = own ?? (isTarget ? activation.score : 0)
            let text = TokenText.joined(activation.pieces[place..<end]).onOneLine.htmlEscaped
            place = end
            guard value > 0 || isTarget else {
                result += text
                continue
            }
            let strength = String(format: "%.2f", 0.12 + 0.88 * Swift.min(1, value / largest))
            let tag = isTarget ? "mark class=\"target\"" : "mark"
            result +=
                "<\(tag) style=\"--strength: \(strength)\" title=\"\(score(value))\">\(text)</mark>"
        }
        return result
    }

    // MARK: Beside the contexts

    /// Bars on a logarithmic axis of scores.
    private var histogramChart: String {
        let (width, height, bar) = (300.0, 96.0, 300.0 / Double(Swift.max(1, histogram.count)))
        let largest = Double(histogram.max() ?? 0)
        guard largest > 0 else { return "<p>none</p>" }
        let bars = histogram.enumerated().map { bin, count in
            let size = height * Double(count) / largest
            return String(
                format:
                    "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"><title>%@ tokens up to %.4f</title></rect>",
                Double(bin) * bar, height - size, bar - 1.5, size, count.grouped, histogramEnds[bin])
        }
        let labels = stride(from: 1, to: histogram.count - 1, by: 6).map { bin in
            String(
                format: "<text x=\"%.1f\" y=\"%.1f\">%@</text>", Double(bin + 1) * bar, height + 15,
                Self.score(histogramEnds[bin]))
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
                return Self.bar(
                    "<code>\(token.text.quotedForTable.htmlEscaped)</code>", width,
                    Self.signedPoints(token.change))
            }
            return
                "<h2>\(title)</h2>\(bars.isEmpty ? "<p>nothing</p>" : bars.joined(separator: "\n"))"
        }
        return "<section>" + list("Promotes", logitEffects.promoted) + "<div class=\"gap\"></div>"
            + list("Suppresses", logitEffects.suppressed)
            + "<p class=\"unit\">change of the next token’s probability through the expert, mean over its \(logitEffects.places) strongest tokens, percentage points</p></section>"
    }

    fileprivate static func bar(_ name: String, _ width: Double, _ value: String) -> String {
        "<div class=\"bar\"><span>\(name)</span><i style=\"width: \(String(format: "%.1f", width))%\"></i><span>\(value)</span></div>"
    }

    private func neighbourList(_ links: [UnitID: String]) -> String {
        if neighbours.isEmpty { return "" }
        let rows = neighbours.map { neighbour in
            let name =
                links[neighbour.expert].map { "<a href=\"\($0.htmlEscaped)\">\(neighbour.expert)</a>" }
                ?? "\(neighbour.expert)"
            return
                "<li>\(name) <span class=\"unit\">\(neighbour.sharesLeft ? "left" : "right") half shared, mean \(Self.score(neighbour.mean))</span></li>"
        }
        return "<section><h2>Neighbours</h2><ul>\n\(rows.joined(separator: "\n"))\n</ul></section>"
    }

    private static let style = """
        main { display: grid; grid-template-columns: minmax(0, 1fr) 20rem; gap: 0 1.25rem; align-items: start; }
        blockquote { margin: .75rem 0 0; padding-left: .75rem; border-left: 3px solid var(--accent); }
        dl { display: flex; flex-wrap: wrap; gap: .75rem 2rem; margin: 1rem 0 0; }
        dt { color: var(--soft); font-size: .8rem; } dd { margin: 0; font-size: 1.2rem; font-variant-numeric: tabular-nums; } dd.unit { font-size: .75rem; }
        .contexts { width: 100%; }
        .contexts td { padding: .3rem .5rem; border-top: 1px solid var(--line); vertical-align: top; } .contexts tr:first-child td { border-top: 0; }
        .score { text-align: right; white-space: nowrap; color: var(--soft); }
        .context { font: .9rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere; white-space: pre-wrap; }
        .label { color: var(--soft); font-size: .8rem; text-align: right; overflow-wrap: break-word; max-width: 9rem; }
        mark { color: inherit; background: rgb(var(--tint) / var(--strength)); border-radius: .2rem; padding: .1rem 0; }
        mark.target { outline: 1.5px solid var(--accent); outline-offset: -1px; font-weight: 600; }
        aside svg { width: 100%; height: auto; overflow: visible; } .bars { fill: var(--accent); } aside svg text { fill: var(--soft); text-anchor: middle; }
        .bar { display: grid; grid-template-columns: 6.5rem 1fr 4rem; gap: .5rem; align-items: center; font-size: .8rem; font-variant-numeric: tabular-nums; }
        .bar span:first-child { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; } .bar i { height: .55rem; background: var(--accent); border-radius: .3rem; } .bar span:last-child { text-align: right; color: var(--soft); }
        .gap { height: .8rem; }
        ul { margin: 0; padding: 0; list-style: none; font-variant-numeric: tabular-nums; }
        @media (max-width: 56rem) { main { grid-template-columns: minmax(0, 1fr); } }
        @media (max-width: 30rem) { .contexts tr { display: grid; grid-template-columns: 1fr auto; padding: .4rem 0; border-top: 1px solid var(--line); } .contexts td { border: 0; padding: 0; } .context { grid-column: 1 / -1; grid-row: 1; } .score { text-align: left; } }
        @media print { main { display: block; } aside { columns: 2; } .contexts tr { break-inside: avoid; } section:has(.contexts) { break-inside: auto; } }
        """
}

extension ExpertDossier.LabelStatistics {
    /// A bar for every label, at most 20 of them.
    fileprivate var chart: String {
        let largest = labels.first?.mean ?? 0
        let bars = labels.prefix(20).map { label in
            ExpertDossier.bar(
                label.name.onOneLine.htmlEscaped, largest > 0 ? 100 * label.mean / largest : 0,
                ExpertDossier.score(label.mean))
        }
        let ratio = ratio.map { String(format: "%.1f × the next label", $0) } ?? "no other label"
        return bars.joined(separator: "\n")
            + "<p class=\"unit\">mean score on the label's tokens; \(ratio), entropy \(String(format: "%.2f", entropy)) bits</p>"
    }
}

extension ExpertDossier {
    /// A page that lists dossiers written together, by file.
    public static func list(_ pages: [(dossier: ExpertDossier, file: String)], origin: PageOrigin) -> String {
        let rows = pages.map { dossier, file in
            let label = dossier.labels.first?.labels.first?.name.onOneLine.htmlEscaped ?? ""
            let tokens = Set(dossier.activations.prefix(5).map(\.token.onOneLine)).sorted()
            return
                "<tr><td><a href=\"\(file.htmlEscaped)\">\(dossier.expert)</a></td><td>\(share(dossier.frequency))</td><td>\(score(dossier.max))</td><td>\(label)</td><td>\(tokens.joined(separator: " ").htmlEscaped)</td></tr>"
        }
        let table =
            "<tr><th>expert</th><th>fires on</th><th>largest score</th><th>strongest label</th><th>top tokens</th></tr>"
            + rows.joined(separator: "\n")
        return Page.html(
            title: "Experts of \(origin.model)",
            body:
                "<h1>Experts of \(origin.model.htmlEscaped)</h1>\n<section class=\"wide\"><table class=\"plain\">\(table)</table></section>",
            origin: origin)
    }
}
