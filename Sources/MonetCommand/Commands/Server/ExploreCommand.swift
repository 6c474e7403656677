import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetServer

struct ExploreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explore",
        abstract: "Write the explorer of an index as pages that open from a disk.",
        discussion: """
            EXAMPLES
              monet explore --index runs/demo.sqlite --out experts
              monet explore --index runs/demo.sqlite --model checkpoints/demo --out experts

            The folder holds the most frequent experts and the specialists of each label with their dossiers; open \
            its index.html. With --model, every token of a context is coloured by the expert's score. monet serve \
            shows the whole index, and can write, edit and compare.
            """)

    @OptionGroup var indexOptions: IndexOptions
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model that the index was built from.", valueName: "dir"))
    var model: String?
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "Experts of each list.")
    var experts = 200
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(1...100_000).contains(experts) {
            throw ValidationError("--experts is \(experts), expected 1 to 100000")
        }
    }

    func run() throws {
        try OverwriteOption.check([out], overwrite: overwriting.overwrite, isFolder: true)
        let index = try ExpertIndex(path: indexOptions.index)
        let loaded = try model.map { path in
            let model = try MonetLanguageModel.load(HubCache().resolve(path))
            try model.accept(index, common.logger)
            return model
        }
        var explorer = try StaticExplorer(index: index, model: loaded, backend: try compute.backend())
        explorer.expertsPerList = experts
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        do {
            try explorer.write(to: out, replacing: overwriting.overwrite) { done, total in
                line.show("\(done) of \(total) experts")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            line.clear()
            throw Interruption.exitCode
        }
        line.clear()
        if !common.quiet { StandardError.write("wrote \(out)/index.html\n") }
    }
}
