import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

struct ConvertCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract: "Convert a checkpoint to another type, quantization or shard size.",
        discussion: """
            EXAMPLES
              monet convert --model checkpoints/demo --dtype bfloat16 --out checkpoints/demo-bf16
              monet convert --model checkpoints/demo --quantize int8 --out checkpoints/demo-int8
              monet convert --model checkpoints/demo --shard-size 500MB --out checkpoints/sharded

            The result is in the Hugging Face layout. --quantize stores the matrices of attention and \
            experts in 8 or 4 bits, and the embedding and output head in 8; routers, norms and biases keep \
            the floating-point type. The routers' running statistics stay float32. The tokenizer and other \
            files are copied.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "Type of the weights: float32, bfloat16 or float16; by default unchanged.")
    var dtype: DType?
    @Option(help: "Quantize matrices: int8 (or q8_0) or int4 (or q4_1).")
    var quantize: QuantizationName?
    @Option(help: "Maximum size of a file, such as 500MB or 2GB.")
    var shardSize = ByteCount(5_000_000_000)
    @Flag(help: "Replace an existing folder.")
    var overwrite = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let folder = try modelOptions.folder()
        let (model, _) = try modelOptions.load(common.logger, for: .conversion)
        let weights = model.parameters.trainable
        let target = dtype ?? weights.first?.tensor.dtype ?? .float32
        try AtomicFile.writeFolder(out, replacing: overwrite ? Checkpoint.folder : nil) { temporary in
            try Checkpoint.copyCompanions(from: folder, to: temporary)
            try Checkpoint.write(
                model, dtype: target, quantization: quantize?.quantization, shardBytes: shardSize.value,
                to: temporary)
        }
        if !common.quiet {
            StandardError.write(
                "wrote \(model.configuration.parameterCount.grouped) parameters as \(quantize?.name ?? target.torchName) to \(out)\n"
            )
        }
    }
}

/// A quantized format as users name it.
struct QuantizationName: ExpressibleByArgument {
    let name: String
    let quantization: MonetConfiguration.Quantization

    init?(argument: String) {
        switch argument.lowercased() {
        case "int8", "q8", "q8_0", "8": (name, quantization) = ("int8", .int8)
        case "int4", "q4", "q4_0", "q4_1", "4": (name, quantization) = ("int4", .int4)
        default: return nil
        }
    }

    static var allValueStrings: [String] { ["int8", "int4"] }
}

/// A number of bytes as users write it: `500MB`, `2GB`, `1GiB`.
struct ByteCount: ExpressibleByArgument, CustomStringConvertible {
    let value: Int

    init(_ value: Int) { self.value = value }

    init?(argument: String) {
        let units: [(String, Double)] = [
            ("kib", 1024), ("mib", 1_048_576), ("gib", 1_073_741_824), ("kb", 1e3), ("mb", 1e6), ("gb", 1e9),
            ("b", 1),
        ]
        let text = argument.lowercased()
        let unit = units.first { text.hasSuffix($0.0) }
        let number = Double(text.dropLast(unit?.0.count ?? 0)).map { $0 * (unit?.1 ?? 1) }
        guard let number, number >= 1, number <= 1e15 else { return nil }
        value = Int(number)
    }

    var description: String {
        for (unit, size) in [("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1000)] where value % size == 0 {
            return "\(value / size)\(unit)"
        }
        return "\(value)"
    }
    var defaultValueDescription: String { description }
}
