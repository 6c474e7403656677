import ArgumentParser
import MonetGeneration
import MonetModel

/// How tokens are drawn and when generation stops.
struct SamplingOptions: ParsableArguments {
    @OptionGroup var cache: CacheOptions

    @Option(name: [.customShort("n"), .long], help: "Tokens to generate at most.")
    var maxNewTokens = 256

    @Option(help: "Divides the logits; 0 is greedy.")
    var temperature = 0.8

    @Option(help: "Keep the k most likely tokens; 0 keeps all.")
    var topK = 0

    @Option(help: "Keep the most likely tokens up to this share of the probability.")
    var topP = 0.95

    @Option(help: "Keep tokens of at least this share of the most likely one's probability.")
    var minP = 0.0

    @Option(help: "Penalty on tokens seen before; 1 is off.")
    var repetitionPenalty = 1.0

    @Option(help: "Equal seeds give equal text; by default a new one each time.")
    var seed: UInt64?

    @Flag(help: "Take the most likely token each time.")
    var greedy = false

    @Option(help: ArgumentHelp("Text that ends the generation; may be repeated.", valueName: "text"))
    var stop: [String] = []

    @Flag(help: "Go on after an end token.")
    var ignoreEos = false

    @Option(help: "Tokens of prompt and answer together; by default the model's context.")
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

    /// An empty cache of the context asked for.
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
