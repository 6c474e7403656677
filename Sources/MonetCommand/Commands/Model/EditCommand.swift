import ArgumentParser
import Foundation
import MonetFoundation
import MonetModel

struct EditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edit",
        abstract: "Write a checkpoint that makes a mask permanent.",
        discussion: """
            EXAMPLES
              monet edit --model checkpoints/demo --mask law.mask --out checkpoints/lawless

            Masks of a dense model, and masks that remove whole right halves of horizontal experts, are \
            baked into the weights, which any code for such models can then run. With any other mask, the \
            folder contains the mask and a PyTorch model that applies it (trust_remote_code in Hugging Face \
            transformers), under the model type monet_masked, which other readers refuse.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var masking: MaskOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "Maximum size of a file, such as 500MB or 2GB.")
    var shardSize = ByteCount(5_000_000_000)
    @Flag(help: "Replace an existing folder.")
    var overwrite = false
    @Flag(help: "Print the result as JSON.")
    var json = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if masking.mask.isEmpty { throw ValidationError("Give at least one --mask.") }
    }

    func run() throws {
        let folder = try modelOptions.folder()
        let model = try modelOptions.load(common.logger, for: .conversion).model
        guard let mask = try masking.load(for: model, common.logger) else { return }
        let dtype = model.parameters.trainable.first?.tensor.dtype ?? .float32
        var result = Checkpoint.EditResult.carried
        try AtomicFile.writeFolder(out, replacing: overwrite ? Checkpoint.folder : nil) { temporary in
            try Checkpoint.copyCompanions(from: folder, to: temporary)
            result = try Checkpoint.writeEdited(
                model, mask: mask, dtype: dtype, shardBytes: shardSize.value, to: temporary)
        }
        let what =
            switch result {
            case .bakedIn(let parts, let description):
                "baked into the weights: \(parts.grouped) \(description); any reader runs it"
            case .carried:
                "carried in a file: this package, and transformers with trust_remote_code, apply it; other readers refuse the folder"
            }
        let units = model.units.kind.rawValue
        if json {
            try StandardOutput.write([
                "out": .string(out), "\(units)": .integer(mask.count),
                "baked_in": .bool(result != .carried),
            ])
        } else if !common.quiet {
            StandardError.write("wrote \(out): \(mask.count.grouped) \(units), \(what)\n")
        }
    }
}
