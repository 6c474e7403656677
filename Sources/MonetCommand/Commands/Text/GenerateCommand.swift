import ArgumentParser
import Foundation
import MonetFoundation
import MonetGeneration

struct GenerateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "generate",
        abstract: "Continue a text.",
        discussion: """
            EXAMPLES
              monet generate --model checkpoints/demo --prompt "The sea"
              monet generate --model checkpoints/demo -f prompt.txt -n 64 --greedy
              echo "def main" | monet generate --model checkpoints/demo --temperature 0.7 --seed 1
              monet generate --model checkpoints/demo --token-ids "5 17 99" --greedy --json
              monet generate --model checkpoints/demo --prompts prompts.jsonl --out results.jsonl
              monet generate --model checkpoints/demo -p "And God said" --compare runs/scripture.mask

            The text streams to standard output. With --json, the output is one object: generated_ids \
            (prompt and continuation, as Hugging Face's generate returns them), new_ids, text, \
            finish_reason, and the log_probabilities of the new tokens.

            --prompts reads a JSON object per line: prompt, token_ids or messages, and any of id, max_new_tokens, \
            temperature, top_k, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty, seed, stop, \
            masks (paths), strengths, steer (experts to force, with scores) and directions. Line i draws with --seed plus i (0 by default). A batch that was stopped \
            continues with the same command.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(
        name: [.customShort("p"), .long],
        help: "The prompt; it can also be an argument or come from --file or standard input.")
    var prompt: String?
    @OptionGroup var input: InputOptions
    @OptionGroup var samplingOptions: SamplingOptions
    @OptionGroup var masking: MaskOptions
    @OptionGroup var steering: SteeringOptions
    @OptionGroup var compute: ComputeOptions
    @Flag(help: "One JSON object instead of streamed text.")
    var json = false
    @Option(help: ArgumentHelp("With --json: alternatives to report per token.", valueName: "count"))
    var logProbs = 0
    @Flag(help: "Recompute the whole text for every token, without a KV cache: slow, for checking.")
    var noCache = false
    @Flag(help: "Do not repeat the prompt before the continuation.")
    var noEcho = false
    @Option(
        help: ArgumentHelp("Continue the prompts of a file of JSON lines, many at a time.", valueName: "path")
    )
    var prompts: String?
    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("With --prompts: the file of results.", valueName: "path"))
    var out: String?
    @Option(help: "With --prompts: prompts that run at a time.")
    var parallel = 16
    @Option(
        help: ArgumentHelp(
            "Also continue the prompt with this mask, and show all side by side; may be repeated.",
            valueName: "path[:strength]"))
    var compare: [String] = []
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if (prompts == nil) != (out == nil) { throw ValidationError("--prompts and --out belong together.") }
        if prompts != nil, prompt != nil || input.text != nil || input.file != nil || input.tokenIds != nil {
            throw ValidationError("Give one of --prompts and a single prompt.")
        }
        if prompts != nil, !compare.isEmpty { throw ValidationError("--compare shows a single prompt.") }
        if !(1...1024).contains(parallel) {
            throw ValidationError("--parallel is \(parallel), expected 1 to 1024")
        }
        for argument in compare { _ = try MaskOptions.parse(argument) }
        if prompt != nil, input.text != nil || input.file != nil || input.tokenIds != nil {
            throw ValidationError("Give one of --prompt, a text, --file and --token-ids.")
        }
        if !(0...1000).contains(logProbs) {
            throw ValidationError("--log-probs is \(logProbs), expected 0 to 1000")
        }
    }

    func run() throws {
        let logger = common.logger
        let (model, tokenizer) = try modelOptions.load(logger)
        let backend = try compute.backend()
        if let prompts, let out {
            return try PromptBatchRun(command: self, model: model, tokenizer: tokenizer, backend: backend)
                .run(prompts, out)
        }
        var input = input
        if let prompt { input.text = prompt }
        let ids = try input.ids(
            tokenizer, folder: modelOptions.model, vocabularySize: model.configuration.vocabularySize)
        var settings = try samplingOptions.settings(for: model, common.logger)
        settings.topLogProbabilities = logProbs
        if !compare.isEmpty {
            return try SideBySide(command: self, model: model, tokenizer: tokenizer, backend: backend)
                .run(ids, settings)
        }
        var cache = try samplingOptions.cache(for: model)
        var generator = TextGenerator(model: model, tokenizer: tokenizer, backend: backend)
        generator.mask = try masking.load(for: model, common.logger)
        generator.steering = try steering.load(for: model, tokenizer, on: backend)
        generator.usesCache = !noCache
        Interruption.install()
        let streams = !json && tokenizer != nil
        if streams, !noEcho, let tokenizer { try StandardOutput.write(foreign: try tokenizer.decode(ids)) }
        let result = try generator.generate(
            ids, settings: settings, stopStrings: samplingOptions.stopStrings(for: model), cache: &cache
        ) { step in
            if streams { try StandardOutput.write(foreign: step.text) }
            return !Interruption.isRequested
        }
        if json {
            try StandardOutput.write(Self.json(ids, result))
        } else if streams {
            try StandardOutput.write("\n")
        } else {
            try StandardOutput.write(result.ids.map(String.init).joined(separator: " ") + "\n")
        }
        if Interruption.isRequested { throw Interruption.exitCode }
        let decoded = max(0, result.tokens.count - 1)
        logger.info(
            "generated",
            metadata: [
                "tokens": "\(result.tokens.count)", "finish": "\(result.finishReason.rawValue)",
                "prompt_tokens_per_second": "\((Double(ids.count) / result.promptSeconds).text(1))",
                "tokens_per_second": "\((Double(decoded) / max(1e-9, result.decodeSeconds)).text(1))",
                "seed": "\(settings.sampling.seed)",
            ])
    }

    private static func json(_ prompt: [Int32], _ result: GenerationResult) -> JSONValue {
        func list(_ ids: [Int32]) -> JSONValue { .array(ids.map { .integer(Int($0)) }) }
        return [
            "prompt_ids": list(prompt), "generated_ids": list(prompt + result.ids),
            "new_ids": list(result.ids),
            "text": .string(result.text), "finish_reason": .string(result.finishReason.rawValue),
            "log_probabilities": .array(result.tokens.map { .number($0.logProbability) }),
            "top_log_probabilities": .array(
                result.tokens.map { token in
                    .array(
                        token.alternatives.map {
                            ["id": .integer(Int($0.id)), "log_probability": .number($0.logProbability)]
                        })
                }),
            "prompt_seconds": .number(result.promptSeconds), "decode_seconds": .number(result.decodeSeconds),
        ]
    }
}
