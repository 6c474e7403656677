import ArgumentParser
import MonetModel

struct MaskCombineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "combine",
        abstract: "Combine masks: union, intersection or difference.",
        discussion: """
            EXAMPLES
              monet mask combine law.mask music.mask --model checkpoints/demo --out both.mask
              monet mask combine law.mask music.mask --operation difference --model checkpoints/demo --out only.mask

            A union multiplies an expert's strengths; the other operations keep the first mask's strengths.
            """)

    enum Operation: String, ExpressibleByArgument, CaseIterable {
        case union, intersection, difference
    }

    @Argument(help: ArgumentHelp("Mask files, two or more.", valueName: "path"))
    var masks: [String]
    @Option(help: "union, intersection or difference (experts of the first mask that are in no other).")
    var operation: Operation = .union
    @OptionGroup var modelOptions: ModelOptions
    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The mask file to write.", valueName: "path"))
    var out: String
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if masks.count < 2 { throw ValidationError("Give at least two masks.") }
    }

    func run() throws {
        try overwriting.check(out)
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let files = try masks.map { try MaskOptions.read($0, for: model, common.logger) }
        var result = files[0].mask
        for file in files.dropFirst() {
            switch operation {
            case .union: result = result.union(file.mask)
            case .intersection: result = result.intersection(file.mask)
            case .difference: result = result.subtracting(file.mask)
            }
        }
        try MaskFile(
            mask: result, model: model.fingerprint,
            recipe: [
                "kind": .string(operation.rawValue),
                "of": .array(zip(masks, files).map { ["mask": .string($0), "recipe": $1.recipe] }),
            ]
        ).write(to: out, units: model.units, isQuiet: common.quiet)
    }
}
