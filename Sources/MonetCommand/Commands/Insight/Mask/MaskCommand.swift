import ArgumentParser
import MonetFoundation
import MonetInsight
import MonetModel

struct MaskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mask",
        abstract: "Choose experts to remove, weaken or amplify.",
        discussion: """
            A mask file is a safetensors file with int64 lists removed.{g} of the removed experts i·E + j of \
            router group g, and with int64 lists scaled.{g}.index and float32 lists scaled.{g}.strength for \
            scaled experts. Its metadata names the model and how the mask was made. Pass it to --mask of \
            generate, chat, trace, forward, perplexity and bench.
            """,
        subcommands: [
            MaskLabelCommand.self, MaskCorrelationCommand.self, MaskEffectCommand.self, MaskListCommand.self,
            MaskRandomCommand.self, MaskReservedCommand.self, MaskCombineCommand.self, MaskInfoCommand.self,
        ])
}

/// Where a mask is written, and its strength.
struct MaskOutput: ParsableArguments {
    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The mask file to write.", valueName: "path"))
    var out: String
    @Option(help: "Strength of the chosen experts: 0 removes them, above 1 amplifies.")
    var strength: Float = 0
    @OptionGroup var overwriting: OverwriteOption

    func validate() throws {
        if !strength.isFinite || strength < 0 || strength == 1 {
            throw ValidationError("--strength is \(strength), expected 0 or more, and not 1")
        }
    }

    /// Writes a mask of some experts and says how many they are.
    func write(
        _ chosen: [UnitID], of units: UnitLayout, model: String, recipe: [JSONValue.Member], isQuiet: Bool
    ) throws {
        var mask = UnitMask(units)
        for (group, chosen) in Dictionary(grouping: chosen, by: \.group) {
            mask.set(chosen.map { (index: $0.index, strength: strength) }, group: group)
        }
        try MaskFile(mask: mask, model: model, recipe: .object(recipe))
            .write(to: out, units: units, isQuiet: isQuiet)
    }
}

extension MaskFile {
    /// Writes the mask and says how many experts it names.
    func write(to path: String, units: UnitLayout, isQuiet: Bool) throws {
        try write(to: path)
        if isQuiet { return }
        let total = units.count
        let counts = (0..<units.groups).map { "\(mask.count(group: $0).grouped)" }.joined(separator: " ")
        StandardError.write(
            "wrote \(path): \(mask.count.grouped) of \(total.grouped) \(units.kind.rawValue), "
                + "\((100 * Double(mask.count) / Double(total)).text(2))%; by group \(counts)\n")
        if mask.count == 0 { StandardError.write("warning: the mask is empty\n") }
    }
}
