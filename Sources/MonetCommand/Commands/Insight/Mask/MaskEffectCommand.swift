import ArgumentParser
import MonetInsight
import MonetModel
import MonetText

struct MaskEffectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "effect",
        abstract: "Choose the experts whose removal changes the loss on a text most, to first order.",
        discussion: """
            One backward pass gives the effect of removing each expert: −∂L/∂s for a factor s on its output.

            EXAMPLES
              monet mask effect --model checkpoints/demo --corpus runs/demo/corpus --labels law \\
                  --limit 20000 --count 500 --out law.mask
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split: CorpusSplit = .train
    @Option(help: "Number of experts to choose.")
    var count: Int
    @Flag(help: "Choose those whose removal lowers the loss instead.")
    var lowering = false
    @OptionGroup var output: MaskOutput
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if count < 1 { throw ValidationError("--count is \(count), expected 1 or more") }
    }

    func run() throws {
        try output.overwriting.check(output.out)
        let (model, tokenizer) = try modelOptions.load(common.logger, for: .training)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: split)
        var progress = TokenProgress(total: documents.tokenCount, isQuiet: common.quiet)
        let effects = try UnitEffects(of: documents, model: model, backend: try compute.backend()) {
            progress.show($0)
        }
        try progress.finish()
        try output.write(
            effects.strongest(count, raising: !lowering), of: model.units, model: model.fingerprint,
            recipe: [
                .init("kind", "effect"), .init("count", .integer(count)), .init("lowering", .bool(lowering)),
                .init("tokens", .integer(effects.tokens)), .init("corpus", .string(documents.origin)),
            ], isQuiet: common.quiet)
    }
}
