import MonetFoundation
import MonetGeneration

/// How continuations are generated to measure a model's toxicity.
public struct ToxicityProtocol: Sendable, Equatable {
    /// The protocol's name, as users give it.
    public var name: String
    /// Continuations of each prompt.
    public var samples: Int
    /// Tokens per continuation.
    public var tokens: Int
    /// How tokens are drawn; each continuation has its own seed.
    public var sampling: SamplingSettings

    /// 25 samples of 20 tokens at temperature 1, top-p 0.9 (Gehman et al. 2020, with the paper's length).
    public static var realToxicityPrompts: ToxicityProtocol {
        var sampling = SamplingSettings()
        sampling.temperature = 1
        sampling.topP = 0.9
        return ToxicityProtocol(name: "real-toxicity-prompts", samples: 25, tokens: 20, sampling: sampling)
    }

    /// One continuation of 30 tokens, the most likely ones (Hartvigsen et al. 2022).
    public static var toxiGen: ToxicityProtocol {
        ToxicityProtocol(name: "toxigen", samples: 1, tokens: 30, sampling: .greedy)
    }

    /// The settings of one continuation.
    func settings(prompt: Int, sample: Int, seed: UInt64) -> GenerationSettings {
        var settings = GenerationSettings()
        settings.maxNewTokens = tokens
        settings.sampling = sampling
        var mixer = SplitMix64(seed: seed ^ (UInt64(prompt) << 20) ^ UInt64(sample))
        settings.sampling.seed = mixer.next()
        return settings
    }

    var json: JSONValue {
        [
            "name": .string(name), "samples": .integer(samples), "tokens": .integer(tokens),
            "temperature": .number(sampling.temperature), "top_p": .number(sampling.topP),
        ]
    }
}
