import ArgumentParser
import MonetInsight

struct MaskLabelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label",
        abstract: "Choose the specialists of a label.",
        discussion: """
            An expert is a label's specialist if its mean score on the label's tokens is at least --ratio \
            times that on any other label's (section 5 of the paper, where the ratio is 2).

            EXAMPLES
              monet mask label --index demo.sqlite --label scripture --out scripture.mask
            """)

    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "The label.")
    var label: String
    @Option(help: "The label set, if several sets contain the label.")
    var set: String?
    @Option(help: "Minimum ratio of the mean score on the label to that on the next label.")
    var ratio = 2.0
    @Option(help: "Minimum share of tokens that an expert fires on.")
    var minFrequency = 0.0
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func validate() throws {
        try SpecialistOptions.check(ratio: ratio, minFrequency: minFrequency)
    }

    func run() throws {
        try output.overwriting.check(output.out)
        let index = try ExpertIndex(path: indexOptions.index)
        let experts = try index.specialists(
            of: index.label(label, set: set), ratio: ratio, minimumFrequency: minFrequency)
        try output.write(
            experts, of: index.units, model: index.modelFingerprint,
            recipe: [
                .init("kind", "label"), .init("label", .string(label)), .init("ratio", .number(ratio)),
                .init("minimum_frequency", .number(minFrequency)), .init("corpus", .string(index.corpus)),
            ], isQuiet: common.quiet)
    }
}
