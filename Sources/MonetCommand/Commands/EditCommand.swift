import ArgumentParser
import Foundation
import MonetFoundation
import MonetModel

struct EditCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "edit",
        abstract: "Write a checkpoint with masked experts made permanent.",
        discussion: """
            EXAMPLES
              monet edit --model checkpoints/demo --mask law.mask --out checkpoints/lawless

            Horizontal experts of which whole right halves are removed are baked into the weights, which any \
            code for Monet then runs as they are. Otherwise the folder carries the mask and a PyTorch model \
            of its own (trust_remote_code in Hugging Face transformers), under the model type monet_masked, \
            which other readers refuse.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var masking: MaskOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "Bytes of a file at most, as 500MB or 2GB.")
    var shardSize = ByteCount(5_000_000_000)
    @Flag(help: "Replace a folder that exists.")
    var overwrite = false
    @Flag(help: "What happened as JSON.")
    var json = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if masking.mask.isEmpty { throw ValidationError("Give a mask, or several.") }
    }

    func run() throws {
        let folder = try modelOptions.folder()
        let model = try modelOptions.load(common.logger, for: .conversion).model
        guard let mask = try masking.load(for: model, common.logger) else { return }
        let dtype = model.parameters.trainable.first?.tensor.dtype ?? .float32
        var result = Checkpoint.EditResult.carried
        try AtomicFile.writeFolder(out, replacing: overwrite) { temporary in
            try Checkpoint.copyCompanions(from: folder, to: temporary)
            result = try Checkpoint.writeEdited(
                model, mask: mask, dtype: dtype, shardBytes: shardSize.value, to: temporary)
        }
        let what =
            switch result {
            case .bakedIn(let halves):
                "baked into the weights: V and b of \(halves.grouped) right halves are zero; any reader runs it"
            case .carried:
                "carried in a file: this package, and transformers with trust_remote_code, apply it; other readers refuse the folder"
            }
        if json {
            StandardOutput.write([
                "out": .string(out), "experts": .integer(mask.count),
                "baked_in": .bool(result != .carried),
            ])
        } else if !common.quiet {
            StandardError.write("wrote \(out): \(mask.count.grouped) experts, \(what)\n")
        }
    }
}
