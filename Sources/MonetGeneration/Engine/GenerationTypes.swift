import MonetModel

/// How tokens are drawn, and when to stop.
public struct GenerationSettings: Sendable, Equatable {
    /// Maximum number of new tokens.
    public var maxNewTokens = 256
    /// How tokens are drawn.
    public var sampling = SamplingSettings()
    /// Tokens that end the generation; nil means the checkpoint's.
    public var endTokenIDs: [Int]?
    /// Alternatives to report with each token.
    public var topLogProbabilities = 0

    /// At most 256 tokens.
    public init() {}
}

/// One generated token.
public struct GeneratedToken: Sendable, Equatable {
    /// The token.
    public let id: Int32
    /// log p of the token under the model, before any sampling setting.
    public let logProbability: Double
    /// The most likely tokens at this position, if requested.
    public let alternatives: [TokenProbability]
}

/// A token of a prompt, scored.
public struct ScoredToken: Sendable, Equatable {
    /// The token.
    public let id: Int32
    /// log p of the token given those before it; nil for the first token of a text.
    public let logProbability: Double?
    /// The most likely tokens at this position, if requested.
    public let alternatives: [TokenProbability]
}

/// Progress of a generation.
public struct GenerationStep: Sendable, Equatable {
    /// The token drawn; nil for text that was held back until the end.
    public let token: GeneratedToken?
    /// Text that is now complete; empty while a character or a possible stop string is incomplete.
    public let text: String
}

/// Why a generation ended.
public enum FinishReason: String, Sendable, Codable {
    /// An end token or a stop string.
    case stop
    /// The requested number of tokens, or a full context.
    case length
    /// The caller cancelled it.
    case cancelled
}

/// A finished generation.
public struct GenerationResult: Sendable {
    /// The number of prompt tokens.
    public let promptTokens: Int
    /// Prompt tokens whose keys and values were those of an earlier text.
    public var cachedTokens = 0
    /// The tokens drawn; if there is an end token, it is the last.
    public let tokens: [GeneratedToken]
    /// All text, without stop strings; empty without a tokenizer.
    public internal(set) var text: String
    /// Why it ended.
    public internal(set) var finishReason: FinishReason
    /// Seconds for the prompt and for the tokens after the first.
    public let promptSeconds: Double
    public let decodeSeconds: Double

    /// The ids that were drawn.
    public var ids: [Int32] { tokens.map(\.id) }
}
