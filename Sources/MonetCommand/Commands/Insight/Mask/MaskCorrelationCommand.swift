import ArgumentParser
import MonetInsight
import MonetModel

struct MaskCorrelationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "correlation",
        abstract: "Choose experts whose routing score correlates with a number in the data.",
        discussion: """
            EXAMPLES
              monet mask correlation --model checkpoints/demo --corpus comments.jsonl --number toxicity \\
                  --threshold 0.1 --out toxic.mask

            The column holds one number for the document, or a list with one number per token.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "JSONL column with the number.")
    var number: String
    @Option(help: "What counts as an observation: token or document.")
    var level: ScoreCorrelation.Level = .token
    @Option(help: "Pearson correlation above which an expert is chosen.")
    var threshold = 0.1
    @OptionGroup var output: MaskOutput
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(-1...1).contains(threshold) {
            throw ValidationError("--threshold is \(threshold), expected a correlation from -1 to 1")
        }
    }

    func run() throws {
        try output.overwriting.check(output.out)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: .train, numberKey: number)
        var progress = TokenProgress(total: documents.tokenCount, isQuiet: common.quiet)
        let correlation = try ScoreCorrelation(
            of: documents, level: level, model: model, backend: try compute.backend()
        ) { progress.show($0) }
        try progress.finish()
        try output.write(
            correlation.units(above: threshold), of: model.units, model: model.fingerprint,
            recipe: [
                .init("kind", "correlation"), .init("number", .string(number)),
                .init("level", .string(level.rawValue)), .init("threshold", .number(threshold)),
                .init("observations", .integer(correlation.count)),
                .init("corpus", .string(documents.origin)),
            ], isQuiet: common.quiet)
    }
}

extension ScoreCorrelation.Level: ExpressibleByArgument {}
