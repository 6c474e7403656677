import ArgumentParser
import MonetFoundation
import MonetModel

struct MaskReservedCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "reserved",
        abstract: "Choose the experts that training reserved for a label.",
        discussion: """
            A model that was trained with experts_of, such as {scripture: 0.1}, learned documents of that label \
            with these experts alone. An expert is a pair of halves, and its halves also serve other experts: \
            --with-halves chooses those, too, so that no weight of experts that the label's documents changed is \
            used any more.

            EXAMPLES
              monet train run.yaml --set 'experts_of={"scripture": 0.1}' --out runs/reserved
              monet mask reserved --model runs/reserved/latest --label scripture --out scripture.mask
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: "The label.")
    var label: String
    @Flag(help: "Also choose the experts that share a half with them.")
    var withHalves = false
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        try output.overwriting.check(output.out)
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let folder = try modelOptions.folder()
        guard let reserved = try ReservedExperts(folder: folder) else {
            throw ModelError.missingFile(folder: folder, name: ReservedExperts.fileName)
        }
        let mask = try reserved.mask(label: label, withHalves: withHalves, of: model.units)
        try MaskFile(
            mask: mask.applied(strength: output.strength), model: model.fingerprint,
            recipe: .object([
                .init("kind", "reserved"), .init("label", .string(label)),
                .init("with_halves", .bool(withHalves)),
            ])
        ).write(to: output.out, units: model.units, isQuiet: common.quiet)
    }
}
