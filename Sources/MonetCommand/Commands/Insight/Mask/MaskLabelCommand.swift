import ArgumentParser
import MonetInsight

struct MaskLabelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label",
        abstract: "Choose the specialists of a label.",
        discussion: """
            An expert is a label's specialist if its mean score on the label's tokens is at least --ratio \
            times that on any other label's (section 5 of the paper, where the ratio is 2), and if it fires on \
            at least --min-count tokens: an expert that fired once is a specialist of whatever that token was.

            EXAMPLES
              monet mask label --index demo.sqlite --label scripture --out scripture.mask
            """)

    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "The label.")
    var label: String
    @Option(help: "The label set, if several sets contain the label.")
    var set: String?
    @OptionGroup var specialists: SpecialistOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        try output.overwriting.check(output.out)
        let index = try ExpertIndex(path: indexOptions.index)
        let criterion = specialists.criterion
        let experts = try index.specialists(of: index.label(label, set: set), criterion)
        try output.write(
            experts, of: index.units, model: index.modelFingerprint,
            recipe: [
                .init("kind", "label"), .init("label", .string(label)),
                .init("ratio", .number(criterion.ratio)),
                .init("minimum_count", .integer(criterion.minimumCount)),
                .init("minimum_frequency", .number(criterion.minimumFrequency)),
                .init("corpus", .string(index.corpus)),
            ], isQuiet: common.quiet)
    }
}
