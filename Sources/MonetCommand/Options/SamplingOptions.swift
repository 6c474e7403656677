import ArgumentParser
import Logging
import MonetGeneration
import MonetModel

/// How tokens are drawn and when generation stops.
struct SamplingOptions: ParsableArguments {
    @OptionGroup var cache: CacheOptions

    @Option(
        name: [.customShort("n"), .long],
        help: "Maximum number of tokens to generate. (default: the checkpoint's, or 256)")
    var maxNewTokens: Int?

    @Option(help: "Divides the logits; 0 is greedy. (default: the checkpoint's, or 0.8)")
    var temperature: Double?

    @Option(help: "Keep the k most likely tokens; 0 keeps all. (default: the checkpoint's, or 0)")
    var topK: Int?

    @Option(
        help: """
            Keep the most likely tokens whose probabilities add up to this share. (default: the checkpoint's, \
            or 0.95)
            """)
    var topP: Double?

    @Option(
        help: """
            Keep tokens with at least this share of the most likely token's probability. (default: the \
            checkpoint's, or 0)
            """)
    var minP: Double?

    @Option(
        help: """
            Penalty on tokens that have already occurred; 1 turns it off. (default: the checkpoint's, or 1)
            """)
    var repetitionPenalty: Double?

    @Flag(help: "Do not use the checkpoint's generation_config.json, except for the tokens that end a text.")
    var ignoreGenerationConfig = false

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
        if let maxNewTokens, maxNewTokens < 0 {
            throw ValidationError("--max-new-tokens is \(maxNewTokens), expected 0 or more")
        }
        if let context, context < 1 { throw ValidationError("--context is \(context), expected 1 or more") }
        do {
            try sampling(seed: 0, nil).validate()
        } catch {
            throw ValidationError("--\(error)")
        }
    }

    private func sampling(seed: UInt64, _ defaults: GenerationDefaults?) -> SamplingSettings {
        var settings = SamplingSettings()
        settings.temperature = temperature ?? defaults?.temperature ?? settings.temperature
        if greedy || (temperature == nil && defaults?.drawsTokens == false) { settings.temperature = 0 }
        settings.topK = topK ?? defaults?.topK ?? settings.topK
        settings.topP = topP ?? defaults?.topP ?? settings.topP
        settings.minP = minP ?? defaults?.minP ?? settings.minP
        settings.repetitionPenalty =
            repetitionPenalty ?? defaults?.repetitionPenalty ?? settings.repetitionPenalty
        settings.seed = seed
        return settings
    }

    /// The settings for a model, with the seed given or a new one: flags first, then the checkpoint's defaults.
    ///
    /// - Throws: `CommandError.malformedInput` if the checkpoint asks for something that is not supported.
    func settings(for model: MonetLanguageModel, _ logger: Logger) throws -> GenerationSettings {
        let defaults = ignoreGenerationConfig ? nil : model.configuration.generation
        if let key = defaults?.unsupported.first {
            throw CommandError.malformedInput(
                source: "generation_config.json",
                reason: "\"\(key.key)\" is \(key.value.serialized()), which is not supported; "
                    + "--ignore-generation-config generates without the file's settings")
        }
        var result = GenerationSettings()
        result.maxNewTokens = maxNewTokens ?? defaults?.maxNewTokens ?? result.maxNewTokens
        result.sampling = sampling(seed: seed ?? UInt64.random(in: 0...UInt64(UInt32.max)), defaults)
        if ignoreEos { result.endTokenIDs = [] }
        say(defaults, result, logger)
        return result
    }

    /// Says which settings come from the checkpoint.
    private func say(_ defaults: GenerationDefaults?, _ settings: GenerationSettings, _ logger: Logger) {
        guard let defaults else { return }
        let sampling = settings.sampling
        var used: [(String, String)] = []
        func add(_ name: String, _ given: Bool, _ isUsed: Bool, _ value: CustomStringConvertible) {
            if isUsed, !given { used.append((name, value.description)) }
        }
        add(
            "temperature", temperature != nil || greedy,
            defaults.temperature != nil || defaults.drawsTokens == false, sampling.temperature)
        add("top_k", topK != nil, defaults.topK != nil, sampling.topK)
        add("top_p", topP != nil, defaults.topP != nil, sampling.topP)
        add("min_p", minP != nil, defaults.minP != nil, sampling.minP)
        add(
            "repetition_penalty", repetitionPenalty != nil, defaults.repetitionPenalty != nil,
            sampling.repetitionPenalty)
        add("max_new_tokens", maxNewTokens != nil, defaults.maxNewTokens != nil, settings.maxNewTokens)
        add("max_length", context != nil, defaults.maxLength != nil, defaults.maxLength ?? 0)
        add("stop_strings", false, !defaults.stopStrings.isEmpty, defaults.stopStrings)
        guard !used.isEmpty else { return }
        logger.info(
            "settings of generation_config.json: \(used.map { "\($0.0) \($0.1)" }.joined(separator: ", "))")
    }

    /// Texts that end the generation.
    func stopStrings(for model: MonetLanguageModel) -> [String] {
        stop + (ignoreGenerationConfig ? [] : model.configuration.generation?.stopStrings ?? [])
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
        let longest = ignoreGenerationConfig ? nil : model.configuration.generation?.maxLength
        return KVCache(
            configuration: model.configuration, limit: context ?? longest.map { min(max(1, $0), limit) },
            dtype: cache.kvDtype.dtype)
    }
}
