import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation

struct RunsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "runs", abstract: "Look at training runs.", subcommands: [RunsCompareCommand.self])
}

struct RunsCompareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "compare",
        abstract: "Show training runs side by side.",
        discussion: """
            EXAMPLES
              monet runs compare runs/vertical runs/dense
              monet runs compare runs/a runs/b --html compare.html --svg compare.svg

            Prints the last losses of each run and how its routers are used; --html and --svg draw the curves. Runs \
            that go on can be compared, too.
            """)

    @Argument(help: ArgumentHelp("The runs' folders.", valueName: "run"))
    var folders: [String]
    @Option(help: ArgumentHelp("Write a page with curves and figures.", valueName: "path"))
    var html: String?
    @Option(help: ArgumentHelp("Write the curves as a picture.", valueName: "path"))
    var svg: String?
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func run() throws {
        try overwriting.check(html, svg)
        let comparison = try RunComparison(folders: folders)
        let title = folders.map(\.lastPathName).joined(separator: " and ")
        if let svg { try AtomicFile.write(comparison.svg(title: title), to: svg) }
        if let html {
            try AtomicFile.write(
                comparison.page(title: title, origin: .ofThisCommand(model: folders.joined(separator: ", "))),
                to: html)
        }
        let rows = comparison.table
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        for row in rows {
            let cells = row.enumerated().map { column, text in
                let padding = String(repeating: " ", count: widths[column] - text.count)
                return column == 0 ? text + padding : padding + text
            }
            try StandardOutput.write(cells.joined(separator: "  ") + "\n")
        }
        if !common.quiet {
            for path in [html, svg].compactMap(\.self) { StandardError.write("wrote \(path)\n") }
        }
    }
}
