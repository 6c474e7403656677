import ArgumentParser
import MonetFoundation
import MonetInsight
import MonetModel

struct MaskRandomCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "random",
        abstract: "Choose as many random experts of each group as another mask contains, as its baseline.",
        discussion: """
            EXAMPLES
              monet mask random --like law.mask --index demo.sqlite --model checkpoints/demo --out random.mask

            With --index, they also fire about as often as the mask's: a fairer baseline, because most experts \
            fire rarely.
            """)

    @Option(help: ArgumentHelp("The mask whose size to match.", valueName: "path"))
    var like: String
    @Option(help: "Seed of the choice.")
    var seed: UInt64 = 0
    @Option(
        name: [.customShort("i"), .long],
        help: ArgumentHelp("The expert index from which to match the firing frequency.", valueName: "path"))
    var index: String?
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        try output.overwriting.check(output.out)
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let mask = try MaskOptions.read(like, for: model, common.logger).mask
        let counts = try index.map { path in
            let index = try ExpertIndex(path: path)
            try model.accept(index, common.logger)
            return try index.firingCounts()
        }
        let random = counts?.matchedMask(mask, seed: seed) ?? mask.randomOfEqualSize(seed: seed)
        var recipe: [JSONValue.Member] = [
            .init("kind", "random"), .init("like", .string(like)),
            .init("seed", .integer(Int(truncatingIfNeeded: seed))),
        ]
        if let counts {
            recipe += [
                .init("mean_frequency", .number(counts.meanFrequency(of: random))),
                .init("mean_frequency_of_like", .number(counts.meanFrequency(of: mask))),
            ]
        }
        try MaskFile(
            mask: random.applied(strength: output.strength), model: model.fingerprint, recipe: .object(recipe)
        ).write(to: output.out, units: model.units, isQuiet: common.quiet)
    }
}
