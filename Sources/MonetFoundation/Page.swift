import Foundation

/// Where a page's content comes from; its footer says so.
public struct PageOrigin: Sendable {
    /// The command that wrote the page.
    public var command: String
    /// The model's name or folder.
    public var model: String
    /// Where the texts come from; nil if there are none.
    public var corpus: String?
    /// When it was written.
    public var date: Date

    /// Collects the parts; the date is now.
    public init(command: String, model: String, corpus: String? = nil, date: Date = Date()) {
        self.command = command
        self.model = model
        self.corpus = corpus
        self.date = date
    }

    fileprivate var footer: String {
        var style = Date.ISO8601FormatStyle().year().month().day()
        style.timeZone = .gmt
        let parts = ["model \(model)"] + (corpus.map { ["corpus \($0)"] } ?? []) + [date.formatted(style)]
        return """
            <footer><p><code>\(command.onOneLine.htmlEscaped)</code></p>\
            <p>\(parts.map { $0.onOneLine.htmlEscaped }.joined(separator: " · "))</p></footer>
            """
    }
}

/// A self-contained page: nothing in it is loaded from elsewhere.
///
/// All pages share one stylesheet, with a dark variant on screens, narrow windows and print, and one footer.
public enum Page {
    /// The page as HTML.
    ///
    /// - `title`: plain text.
    /// - `body`: HTML below the heading.
    /// - `style`: rules of this page alone.
    public static func html(title: String, body: String, style: String = "", origin: PageOrigin) -> String {
        """
        <!doctype html>
        <html lang="en">
        <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="generator" content="monet">
        <title>\(title.onOneLine.htmlEscaped)</title>
        <style>
        \(shared)
        \(style)
        </style>
        </head>
        <body>
        \(body)
        \(origin.footer)
        </body>
        </html>

        """
    }

    private static let shared = """
        :root { color-scheme: light; --ink: #1c1d21; --paper: #fbfaf7; --line: #d9d6cd; --soft: #62615d; --card: #fff; --accent: #b3541e; --tint: 233 140 70; --positive: #b21e26; --negative: #215ca6; --light: 78%; }
        @media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --ink: #e8e6e1; --paper: #17181b; --line: #37383d; --soft: #a9a7a1; --card: #1f2024; --accent: #f0955c; --tint: 214 120 52; --positive: #c23b40; --negative: #2f6fbf; --light: 34%; } }
        * { box-sizing: border-box; }
        body { margin: 0 auto; max-width: 78rem; padding: 1.5rem; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
        h1 { font-size: 1.35rem; margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
        h2 { font-size: .8rem; margin: 0 0 .5rem; color: var(--soft); font-weight: 600; text-transform: uppercase; letter-spacing: .05em; }
        p { margin: .3rem 0 0; color: var(--soft); font-size: .9rem; max-width: 62rem; }
        p.lead { color: var(--ink); font-size: 1rem; }
        .unit { color: var(--soft); font-size: .8rem; }
        code { font: .85em ui-monospace, monospace; overflow-wrap: anywhere; }
        a { color: var(--accent); }
        section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; margin: 1rem 0 0; }
        figure, .wide { margin: 0; overflow-x: auto; }
        svg text { font-size: 11px; }
        table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
        .plain th, .plain td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
        .plain th:first-child, .plain td:first-child { text-align: left; padding-left: 0; }
        footer { margin-top: 2rem; padding-top: .75rem; border-top: 1px solid var(--line); }
        footer p { font-size: .8rem; max-width: none; }
        @media (max-width: 30rem) { body { padding: .9rem; } section { padding: .75rem; } }
        @media print { body { background: none; max-width: none; padding: 0; font-size: 11pt; } section { break-inside: avoid; } figure, .wide { overflow: visible; } * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
        @page { margin: 14mm; }
        """
}
