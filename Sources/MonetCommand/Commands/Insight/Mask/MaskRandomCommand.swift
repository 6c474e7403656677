import ArgumentParser
import MonetModel

struct MaskRandomCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "random",
        abstract: "Choose as many random experts of each group as another mask contains, as its baseline."
    )

    @Option(help: ArgumentHelp("The mask whose size to match.", valueName: "path"))
    var like: String
    @Option(help: "Seed of the choice.")
    var seed: UInt64 = 0
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        try output.overwriting.check(output.out)
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let mask = try MaskOptions.read(like, for: model, common.logger).mask
        try MaskFile(
            mask: mask.randomOfEqualSize(seed: seed).applied(strength: output.strength),
            model: model.fingerprint,
            recipe: [
                "kind": "random", "like": .string(like), "seed": .integer(Int(truncatingIfNeeded: seed)),
            ]
        ).write(to: output.out, units: model.units, isQuiet: common.quiet)
    }
}
