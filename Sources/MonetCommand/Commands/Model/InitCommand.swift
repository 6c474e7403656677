import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

struct InitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "init",
        abstract: "Write a checkpoint with random weights.",
        discussion: """
            EXAMPLES
              monet init --preset nano-vd --out checkpoints/nano
              monet init --preset 1.4B-vd --dtype bf16 --out checkpoints/big
              monet init --preset 1.4B-vd --dtype bf16 --calibrate --out checkpoints/speed
              monet init --preset tiny-vd --set moe_experts=128 --set moe_heads=2 --out checkpoints/wide
              monet init --preset tiny-hd --tokenizer tokenizer.model --out checkpoints/tiny

            Equal seeds give equal weights on every machine. Presets: \
            \(MonetConfiguration.presetNames.joined(separator: ", ")).
            """)

    @Option(help: "Size and kind, such as 1.4B-vd.")
    var preset: PresetName
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "Type of the weights: float32, bfloat16 or float16.")
    var dtype: DType = .float32
    @Option(help: "Seed of the weights.")
    var seed: UInt64 = 0
    @Option(
        help: ArgumentHelp(
            "SentencePiece model or tokenizer folder to include; sets the vocabulary.", valueName: "path"))
    var tokenizer: String?
    @Option(help: "Vocabulary size, instead of the preset's.")
    var vocabSize: Int?
    @Option(
        help: ArgumentHelp(
            "A value for a key of config.json, such as moe_experts=128 (repeatable).", valueName: "key=value"
        ))
    var set: [String] = []
    @Option(help: "Maximum size of a file, such as 500MB or 2GB.")
    var shardSize = ByteCount(5_000_000_000)
    @Flag(
        help: ArgumentHelp(
            "Set the routers' running statistics from random tokens, so that about as many experts are selected as in a trained model."
        ))
    var calibrate = false
    @Flag(help: "Replace an existing folder.")
    var overwrite = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if let vocabSize, !(3...1 << 24).contains(vocabSize) {
            throw ValidationError("--vocab-size is \(vocabSize), expected 3 to \(1 << 24)")
        }
    }

    func run() throws {
        var configuration = preset.configuration
        if let tokenizer {
            let opened = try TokenizerOptions.open(tokenizer)
            configuration.vocabularySize = opened.vocabularySize
            configuration.beginTokenID = opened.beginID.map(Int.init)
            configuration.endTokenIDs = opened.endID.map { [Int($0)] } ?? []
        }
        if let vocabSize { configuration.vocabularySize = vocabSize }
        if !set.isEmpty { configuration = try changed(configuration) }
        try AtomicFile.writeFolder(out, replacing: overwrite ? Checkpoint.folder : nil) { temporary in
            let model = try MonetLanguageModel.random(configuration, seed: seed, dtype: dtype)
            if calibrate {
                try model.calibrateRouters(
                    tokens: min(256, configuration.contextLength), seed: seed, on: CPUBackend())
            }
            try Checkpoint.write(model, dtype: dtype, shardBytes: shardSize.value, to: temporary)
            if let tokenizer {
                try TokenizerFiles.install(
                    from: tokenizer, into: temporary, contextLength: configuration.contextLength)
            }
        }
        if !common.quiet {
            StandardError.write(
                "wrote \(configuration.parameterCount.grouped) parameters as \(dtype.torchName) to \(out)\n")
        }
    }
}

extension InitCommand {
    /// The configuration with the keys of --set replaced, read as any config.json is.
    private func changed(_ configuration: MonetConfiguration) throws -> MonetConfiguration {
        var members = configuration.json().members ?? []
        for assignment in set {
            let parts = assignment.split(separator: "=", maxSplits: 1).map(String.init)
            guard parts.count == 2, let index = members.firstIndex(where: { $0.key == parts[0] }) else {
                throw ValidationError("--set \(assignment): expected KEY=VALUE with a key of config.json")
            }
            let value =
                try? parts[1].utf8.withContiguousStorageIfAvailable {
                    try JSONValue(parsing: UnsafeRawBufferPointer($0), source: "--set \(assignment)")
                }
            members[index] = .init(parts[0], value ?? .string(parts[1]))
        }
        return try MonetConfiguration(json: .object(members), file: "--set")
    }
}

/// The name of a preset; any other name is a usage error.
struct PresetName: ExpressibleByArgument {
    let name: String
    let configuration: MonetConfiguration

    init?(argument: String) {
        guard let configuration = try? MonetConfiguration.preset(argument) else { return nil }
        name = argument
        self.configuration = configuration
    }

    static var allValueStrings: [String] { MonetConfiguration.presetNames }
}
