import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel

struct TraceCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "trace",
        abstract: "Show which experts fire on each token.",
        discussion: """
            EXAMPLES
              monet trace --model checkpoints/demo "A parrot is a tropical bird"
              monet trace --model checkpoints/demo -f page.txt --json > trace.json
              monet trace --model checkpoints/demo "A parrot" --html trace.html

            Experts are written group/index, with index = i·E + j for the halves i and j. A routing score is \
            the sum over routing heads of the product of both halves' probabilities, times the expert's \
            strength in the masks, so that removed experts do not appear.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var input: InputOptions
    @Option(help: "Experts per token and group; by default 3 in the table, 8 in JSON and HTML.")
    var top: Int?
    @Flag(help: "JSON instead of a table.")
    var json = false
    @Option(help: ArgumentHelp("Write an HTML page with coloured tokens.", valueName: "path"))
    var html: String?
    @Option(
        help: ArgumentHelp(
            "An expert index, from which the page shows what else activates each expert.",
            valueName: "path"))
    var index: String?
    @OptionGroup var masking: MaskOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    /// What activates the listed experts most, by the index, and the index's corpus.
    private func topTokens(of trace: RoutingTrace, _ model: MonetLanguageModel) throws -> (
        tokens: [UnitID: [String]], corpus: String?
    ) {
        guard let index else { return ([:], nil) }
        let opened = try ExpertIndex(path: index)
        try model.accept(opened, common.logger)
        let experts = trace.listed.map(\.expert)
        let tokens = try opened.topTokens(of: experts, count: 5)
        return (Dictionary(zip(experts, tokens), uniquingKeysWith: { first, _ in first }), opened.corpus)
    }

    func validate() throws {
        if index != nil, html == nil { throw ValidationError("--index is for the page that --html writes.") }
        if let top, !(1...10_000).contains(top) {
            throw ValidationError("--top is \(top), expected 1 to 10000")
        }
    }

    func run() throws {
        try overwriting.check(html)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let ids = try input.ids(
            tokenizer, folder: modelOptions.model, vocabularySize: model.configuration.vocabularySize)
        guard !ids.isEmpty else {
            throw CommandError.malformedInput(source: "the text", reason: "there are no tokens to trace")
        }
        let shown = top ?? (json || html != nil ? 8 : 3)
        let trace = try RoutingTrace(
            of: ids, model: model, tokenizer: tokenizer, count: shown, backend: try compute.backend(),
            mask: try masking.load(for: model, common.logger))
        if let html {
            let name = try modelOptions.title()
            let top = try topTokens(of: trace, model)
            try AtomicFile.write(
                trace.html(
                    origin: .ofThisCommand(model: name, corpus: top.corpus), topTokens: top.tokens), to: html)
            if !common.quiet { StandardError.write("wrote \(html)\n") }
        }
        if json {
            try StandardOutput.write(trace.json())
        } else if html == nil {
            try StandardOutput.write(trace.table(strongest: shown))
        }
    }
}
