import ArgumentParser
import MonetFoundation
import MonetModel

struct MaskInfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show a mask's origin and size.")

    @Argument(help: ArgumentHelp("The mask file.", valueName: "path"))
    var mask: String
    @Flag(help: "JSON instead of lines.")
    var json = false
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var common: CommonOptions

    func run() throws {
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let file = try MaskFile(contentsOfFile: mask, configuration: model.configuration)
        let fits = file.model.map { model.descends(from: $0) } ?? true
        if json {
            return try StandardOutput.write([
                "mask": .string(mask), "model": file.model.map { .string($0) } ?? .null,
                "fits_this_model": .bool(fits), "experts": .integer(file.mask.count),
                "by_group": .object(
                    file.mask.groups.map { .init("\($0)", .integer(file.mask.count(group: $0))) }),
                "recipe": file.recipe,
            ])
        }
        let groups = file.mask.groups.map { "group \($0): \(file.mask.count(group: $0).grouped)" }
        let origin =
            file.model.map {
                $0
                    + (!fits
                        ? ", another model"
                        : $0 == model.fingerprint ? ", this model" : ", which this model was tuned from")
            } ?? "not said"
        try StandardOutput.write(
            "experts  \(file.mask.count.grouped) (\(groups.joined(separator: ", ")))\nmade for \(origin)\n"
                + "recipe   \(file.recipe.serialized())\n")
    }
}
