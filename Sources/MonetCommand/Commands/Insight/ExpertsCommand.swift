import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct ExpertsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "experts",
        abstract: "Look experts up in an index.",
        subcommands: [ExpertsShowCommand.self, ExpertsFindCommand.self, ExpertsExplainCommand.self])
}

/// The index that a command reads.
struct IndexOptions: ParsableArguments {
    @Option(name: [.customShort("i"), .long], help: ArgumentHelp("The expert index.", valueName: "path"))
    var index: String
}

struct ExpertsFindCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "find",
        abstract: "Find experts by label, token or text.",
        discussion: """
            EXAMPLES
              monet experts find --index demo.sqlite --label animals
              monet experts find --index demo.sqlite --token fish --sort mean
              monet experts find --index demo.sqlite --text "The parrot is a bird"
              monet experts find --index demo.sqlite --min-frequency 0.01 --sort max

            --label finds the experts that score highest on the label, sorted by the ratio to the next \
            label; --token finds those that have the token among their five strongest top tokens; --text \
            finds those that fire more on the text than on the corpus.
            """)

    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "A label of the index.")
    var label: String?
    @Option(help: "The label set, if several sets contain the label.")
    var set: String?
    @Option(help: "A token's text.")
    var token: String?
    @Option(help: "A text, which the model is run on.")
    var text: String?
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp(
            "The model for --text; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Option(help: "Only experts of this router group.")
    var group: Int?
    @OptionGroup var firing: FiringOptions
    @Option(help: "Sort by, largest first: mean, frequency, max, ratio (with --label), share (with --token).")
    var sort: ExpertQuery.Sort?
    @Option(help: "Maximum number of experts to show.")
    var limit = 20
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if [label, token, text].count(where: { $0 != nil }) > 1 {
            throw ValidationError("Give one of --label, --token and --text.")
        }
        if text != nil, sort != nil { throw ValidationError("--sort cannot be combined with --text.") }
        if !(1...1_000_000).contains(limit) {
            throw ValidationError("--limit is \(limit), expected 1 to 1000000")
        }
    }

    func run() throws {
        let index = try ExpertIndex(path: indexOptions.index)
        let found = try text.map { try find($0, in: index) } ?? index.find(query(index))
        if found.isEmpty, !common.quiet {
            StandardError.write("no expert that fires on \(firing.minCount) tokens or more matches\n")
        }
        let tokens = try index.topTokens(of: found.map(\.expert), count: 5)
        if json {
            try StandardOutput.write(
                .array(
                    zip(found, tokens).map { found, tokens in
                        guard case .object(let members) = found.json() else { return .null }
                        return .object(
                            members + [.init("top_tokens", .array(tokens.map { .string($0) }))])
                    }))
            return
        }
        let value = label != nil ? "ratio" : token != nil ? "share" : text != nil ? "in text" : ""
        let rows = zip(found, tokens).map { found, tokens in
            [
                found.expert.description,
                found.value.map {
                    label != nil
                        ? Self.ratio($0) : token != nil ? ExpertDossier.share($0) : ExpertDossier.score($0)
                } ?? "",
                ExpertDossier.score(found.mean), ExpertDossier.share(found.frequency),
                ExpertDossier.score(found.max),
                tokens.joined(separator: " "),
            ]
        }
        try StandardOutput.write(
            alignedTable(
                [["expert", value, "mean", "fires on", "largest", "top tokens"]] + rows, textColumns: [5]))
    }

    private static func ratio(_ value: Double) -> String { value >= 1e6 ? "only" : value.text(1) + " ×" }

    private func query(_ index: ExpertIndex) throws -> ExpertQuery {
        var query = ExpertQuery()
        query.label = try label.map { try index.label($0, set: set) }
        query.token = token
        query.group = group
        query.minimumCount = firing.minCount
        query.minimumFrequency = firing.minFrequency
        query.sort = sort
        query.limit = limit
        return query
    }

    private func find(_ text: String, in index: ExpertIndex) throws -> [FoundExpert] {
        let folder = try HubCache().resolve(model ?? index.modelPath)
        let model = try MonetLanguageModel.load(folder)
        try model.accept(index, common.logger)
        let tokenizer = try Tokenizer(folder: folder)
        let ids = try tokenizer.encode(text, addBegin: tokenizer.addsBegin)
        let scores = try MeanScores(of: ids, model: model, backend: try compute.backend())
        return try index.find(
            firedBy: scores.byUnit, group: group, minimumCount: firing.minCount,
            minimumFrequency: firing.minFrequency, limit: limit)
    }
}

extension ExpertQuery.Sort: ExpressibleByArgument {}
