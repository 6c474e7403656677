import ArgumentParser
import MonetGeneration
import MonetModel

/// How tokens are drawn and when generation stops.
struct SamplingOptions: ParsableArguments {
    @OptionGroup var cache: CacheOptions

    @Option(name: [.customShort("n"), .long], help: "Maximum number of tokens to generate.")
    var maxNewTokens = 256

    @Option(help: "Divides the logits; 0 is greedy.")
    var temperature = 0.8

    @Option(help: "Keep the k most likely tokens; 0 keeps all.")
    var topK = 0

    @Option(help: "Keep the most likely tokens whose probabilities add up to this share.")
    var topP = 0.95

    @Option(help: "Keep tokens with at least this share of the most likely token's probability.")
    var minP = 0.0

    @Option(help: "Penalty on tokens that have already occurred; 1 turns it off.")
    var repetitionPenalty = 1.0

    @Option(help: "Random seed: equal seeds give equal text; by default a new one each time.")
    var seed: UInt64?

    @Flag(help: "Always take the most likely token.")
    var greedy = false

    @Option(help: ArgumentHelp("Text that ends the generation; may be repeated.", valueName: "text"))
    var stop: [String] = []

    @Flag(help: "Continue after an end token.")
    var ignoreEos = false

    @Option(help: "Maximum tokens of prompt and answer together; by default the model's context.")
    var context: Int?

    func validate() throws {
        if maxNewTokens < 0 {
            throw ValidationError("--max-new-tokens is \(maxNewTokens), expected 0 or more")
        }
        if let context, context < 1 { throw ValidationError("--context is \(context), expected 1 or more") }
        do {
            try sampling(seed: 0).validate()
        } catch {
            throw ValidationError("--\(error)")
        }
    }

    private func sampling(seed: UInt64) -> SamplingSettings {
        var settings = SamplingSettings()
        settings.temperature = greedy ? 0 : temperature
        settings.topK = topK
        settings.topP = topP
        settings.minP = minP
        settings.repetitionPenalty = repetitionPenalty
        settings.seed = seed
        return settings
    }

    /// The settings, with the seed given or a new one.
    func settings() -> GenerationSettings {
        var result = GenerationSettings()
        result.maxNewTokens = maxNewTokens
        result.sampling = sampling(seed: seed ?? UInt64.random(in: 0...UInt64(UInt32.max)))
        if ignoreEos { result.endTokenIDs = [] }
        return result
    }

    /// An empty cache for the requested context length.
    ///
    /// - Throws: `GenerationError.invalidSetting` if it is longer than the model's.
    func cache(for model: MonetLanguageModel) throws -> KVCache {
        let limit = model.configuration.contextLength
        if let context, context > limit {
            throw GenerationError.invalidSetting(
                name: "context", found: "\(context)", expected: "at most the model's \(limit)")
        }
        return KVCache(configuration: model.configuration, limit: context, dtype: cache.kvDtype.dtype)
    }
}
