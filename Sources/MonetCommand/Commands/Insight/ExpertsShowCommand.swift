import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel

struct ExpertsShowCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "show",
        abstract: "Show what experts fire on.",
        discussion: """
            EXAMPLES
              monet experts show 0/1777 --index demo.sqlite
              monet experts show 0/1777 --index demo.sqlite --effects --html expert.html
              monet experts show 0/1777 0/1776 1/698 --index demo.sqlite --html experts/

            Experts are written group/index. A routing score is the sum over routing heads of the product of \
            both halves' probabilities; it exceeds 1 where several heads agree. With --effects, the model runs \
            with and without the expert at its top tokens, and the next tokens that the expert makes more and \
            less likely are shown. With --html, it also runs over the contexts, to colour every token by its \
            score; several experts get a folder of pages that link to each other.
            """)

    @Argument(help: ArgumentHelp("Experts, such as 0/1777.", valueName: "group/index"))
    var experts: [String]
    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "Number of top activating tokens to show.")
    var top = 20
    @Option(help: "Tokens of context on each side.")
    var context = 12
    @Flag(help: "Measure which tokens the expert promotes and suppresses; loads the model.")
    var effects = false
    @Flag(help: "Do not run the model over the contexts of a page; only their strongest token is coloured.")
    var noScores = false
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Flag(help: "JSON instead of text; a list for several experts.")
    var json = false
    @Option(
        help: ArgumentHelp(
            "Write an HTML page with contexts, histogram and labels; for several experts, a folder of pages.",
            valueName: "path"))
    var html: String?
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    /// What a folder of pages holds.
    private static let pages = FolderKind(name: "folder of pages", mark: "index.html") {
        $0.hasSuffix(".html")
    }

    func validate() throws {
        if !(0...1000).contains(context) {
            throw ValidationError("--context is \(context), expected 0 to 1000")
        }
        if !(0...1000).contains(top) { throw ValidationError("--top is \(top), expected 0 to 1000") }
    }

    func run() throws {
        try overwriting.check(html)
        let index = try ExpertIndex(path: indexOptions.index)
        var ids: [UnitID] = []
        for name in experts {
            let id = try UnitID(parsing: name, in: index.units)
            if !ids.contains(id) { ids.append(id) }
        }
        let loaded = try loadedModel(index)
        let backend = try compute.backend()
        var line = ProgressLine(isQuiet: common.quiet)
        Interruption.install()
        let dossiers = try ids.map { id in
            var dossier = try index.dossier(of: id, context: context, activations: top)
            if let loaded, effects {
                dossier.logitEffects = try index.logitEffects(of: id, model: loaded, backend: backend)
            }
            if let loaded, html != nil, !noScores {
                try index.measureContexts(of: &dossier, model: loaded, backend: backend) { done, count in
                    line.show("\(id): \(done) of \(count) contexts")
                    return !Interruption.isRequested
                }
            }
            if Interruption.isRequested { throw Interruption.exitCode }
            return dossier
        }
        line.clear()
        if let html { try write(dossiers, of: index, to: html) }
        if json {
            let values = dossiers.map { $0.json() }
            try StandardOutput.write(values.count == 1 ? values[0] : .array(values))
        } else if html == nil {
            let usesColor = common.usesColor(onTerminal: StandardOutput.isTerminal)
            try StandardOutput.write(
                dossiers.map { $0.text(usesColor: usesColor) }.joined(separator: "\n"))
        }
    }

    /// The model, if something has to run. Pages do without where it is not at hand.
    private func loadedModel(_ index: ExpertIndex) throws -> MonetLanguageModel? {
        guard effects || (html != nil && !noScores) else { return nil }
        do {
            let loaded = try MonetLanguageModel.load(HubCache().resolve(model ?? index.modelPath))
            try loaded.accept(index, common.logger)
            return loaded
        } catch let error where !effects && model == nil {
            if !common.quiet {
                StandardError.write(
                    "contexts are not coloured by score, because the model cannot be run: \("\(error)".withoutControls)\n"
                )
            }
            return nil
        }
    }

    private func write(_ dossiers: [ExpertDossier], of index: ExpertIndex, to path: String) throws {
        let origin = PageOrigin.ofThisCommand(model: index.modelPath.lastPathName, corpus: index.corpus)
        if dossiers.count == 1 {
            try AtomicFile.write(dossiers[0].html(origin: origin), to: path)
        } else {
            let files = dossiers.map { "\($0.expert.group)-\($0.expert.index).html" }
            let links = Dictionary(uniqueKeysWithValues: zip(dossiers.map(\.expert), files))
            try AtomicFile.writeFolder(path, replacing: overwriting.overwrite ? Self.pages : nil) { folder in
                for (dossier, file) in zip(dossiers, files) {
                    try AtomicFile.write(dossier.html(origin: origin, links: links), to: folder + "/" + file)
                }
                try AtomicFile.write(
                    ExpertDossier.list(Array(zip(dossiers, files)), origin: origin),
                    to: folder + "/index.html")
            }
        }
        if !common.quiet { StandardError.write("wrote \(path)\n") }
    }
}
