import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel

struct ExportCommand: ParsableCommand {
    enum Format: String, ExpressibleByArgument, CaseIterable {
        case neuronpedia, saedashboard, delphi
    }

    static let configuration = CommandConfiguration(
        commandName: "export",
        abstract: "Write an index in the formats of Neuronpedia, SAEDashboard and Delphi.",
        discussion: """
            EXAMPLES
              monet export neuronpedia --index experts.sqlite --out neuronpedia
              monet export saedashboard --index experts.sqlite --group 0 --effects --out dashboard
              monet export delphi --index experts.sqlite --tokens 200000 --out cache

            The model reads the documents of the index again, for the scores of all tokens around each firing one \
            (neuronpedia, saedashboard) or of all tokens (delphi, which holds 16 bytes for every expert that fires on a token in \
            memory).
            """)

    @Argument(help: "neuronpedia, saedashboard or delphi.")
    var format: Format
    @OptionGroup var indexOptions: IndexOptions
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "The model's name in the export; by default its folder's.")
    var name: String?
    @Option(help: "The name of the set of experts.")
    var set = "monet-experts"
    @Option(help: "Only experts of this router group; may be repeated.")
    var group: [Int] = []
    @Option(help: "Tokens of the index on which an expert must fire (neuronpedia, saedashboard).")
    var minCount = 10
    @Option(help: "Tokens before and after each firing one; with delphi, tokens of a sequence.")
    var context: Int?
    @Flag(help: "Measure the tokens that each expert promotes and suppresses.")
    var effects = false
    @Option(help: "With delphi: the most tokens that are read.")
    var tokens = 100_000
    @Option(help: "With delphi: files of each group.")
    var splits = 5
    @Option(help: ArgumentHelp("With neuronpedia: the user who owns the rows.", valueName: "id"))
    var creator = "clkht01d40000jv08hvalcvly"
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if minCount < 1 { throw ValidationError("--min-count is \(minCount), expected 1 or more") }
        if !(1...1_000_000_000).contains(tokens) {
            throw ValidationError("--tokens is \(tokens), expected 1 to 1000000000")
        }
        if splits < 1 { throw ValidationError("--splits is \(splits), expected 1 or more") }
        if format == .delphi, effects {
            throw ValidationError("--effects is for neuronpedia and saedashboard.")
        }
        if let context, !(0...4096).contains(context) {
            throw ValidationError("--context is \(context), expected 0 to 4096")
        }
    }

    func run() throws {
        guard !out.isEmpty, !FileManager.default.fileExists(atPath: out) else {
            throw CommandError.malformedInput(
                source: "--out",
                reason: "'\(out)' exists already or is no name, expected that of a new folder")
        }
        let index = try ExpertIndex(path: indexOptions.index)
        let folder = try HubCache().resolve(model ?? index.modelPath)
        let model = try MonetLanguageModel.load(folder)
        try model.accept(index, common.logger)
        let backend = try compute.backend()
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        func seconds() -> Double { max((ContinuousClock.now - start).seconds, 1e-9) }
        let groups = group.isEmpty ? nil : group
        do {
            if format == .delphi {
                var settings = DelphiExport.Settings(model: name ?? folder)
                (settings.tokens, settings.splits, settings.groups) = (tokens, splits, groups)
                settings.context = context ?? min(256, model.configuration.contextLength / 32 * 32)
                try DelphiExport(index, model: model, settings: settings, backend: backend).write(to: out) {
                    done, count in
                    let rate = Double(done) / seconds()
                    line.show(
                        "\(done.grouped) of \(count.grouped) tokens  \(rate.text(0)) tokens/s  "
                            + "\((Double(count - done) / rate).durationText) left")
                    return !Interruption.isRequested
                }
            } else {
                var settings = DossierExport.Settings(model: name ?? folder.lastPathName)
                (settings.set, settings.groups, settings.minimumCount) = (set, groups, minCount)
                (settings.measuresEffects, settings.creator) = (effects, creator)
                if let context { settings.context = context }
                let export = try DossierExport(index, model: model, settings: settings, backend: backend)
                let counts = Dictionary(
                    grouping: try index.experts(minimumCount: minCount), by: \.group
                ).mapValues(\.count)
                guard (groups ?? Array(0..<index.units.groups)).contains(where: { (counts[$0] ?? 0) > 0 })
                else {
                    throw CommandError.malformedInput(
                        source: indexOptions.index,
                        reason: "no expert of these groups fires on \(minCount.grouped) tokens (--min-count)")
                }
                let write = format == .neuronpedia ? export.writeNeuronpedia : export.writeSAEDashboard
                try write(out) { group, done in
                    line.show(
                        "group \(group): \(done.grouped) of \((counts[group] ?? 0).grouped) experts  \(seconds().durationText)"
                    )
                    return !Interruption.isRequested
                }
            }
        } catch is CancellationError {
            line.clear()
            throw Interruption.exitCode
        }
        line.clear()
        if !common.quiet { StandardError.write("wrote \(out)\n") }
    }
}
