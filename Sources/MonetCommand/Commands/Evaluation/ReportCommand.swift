import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation

struct ReportCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "report",
        abstract: "Gather the results in a folder into one document with figures.",
        discussion: """
            EXAMPLES
              monet eval --model M --tasks arc_easy,piqa --data benchmarks --output results
              monet unlearn-matrix --model M --index m.sqlite --corpus corpus --json > results/matrix.json
              monet report results --html report.html

            Reads every .json file in the folder and below: benchmarks as eval --output writes them, and what \
            unlearn-matrix, unlearn examine, tofu, muse and relearn, toxicity measure and monosemanticity print with \
            --json. The page needs no other file.
            """)

    @Argument(help: ArgumentHelp("The folder with the results.", valueName: "dir"))
    var folder: String
    @Option(help: ArgumentHelp("The page. (default: DIR/report.html)", valueName: "path"))
    var html: String?
    @Option(help: "The title. (default: the folder's name)")
    var title: String?
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func run() throws {
        let path = html ?? folder + "/report.html"
        let report = try ResultsReport(folder: folder)
        try overwriting.check(path)
        let name = title ?? "Results in \(folder.lastPathName)"
        try AtomicFile.write(
            try report.page(title: name, origin: .ofThisCommand(model: folder, corpus: nil)), to: path)
        if common.quiet { return }
        for line in report.summary { StandardError.write(line + "\n") }
        StandardError.write("wrote \(path)\n")
    }
}
