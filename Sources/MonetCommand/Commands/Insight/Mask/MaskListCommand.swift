import ArgumentParser
import MonetInsight
import MonetModel

struct MaskListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Choose experts by name.",
        discussion: """
            EXAMPLES
              monet mask list 0/1777 1/698 --model checkpoints/demo --out two.mask
            """)

    @Argument(help: ArgumentHelp("Experts, such as 0/1777.", valueName: "group/index"))
    var experts: [String]
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        try output.overwriting.check(output.out)
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let ids = try experts.map { try UnitID(parsing: $0, in: model.units) }
        try output.write(
            ids, of: model.units, model: model.fingerprint, recipe: [.init("kind", "list")],
            isQuiet: common.quiet)
    }
}
