import MonetModel

/// How tokens are drawn, and when to stop.
public struct GenerationSettings: Sendable, Equatable {
    /// Tokens at most.
    public var maxNewTokens = 256
    /// How tokens are drawn.
    public var sampling = SamplingSettings()
    /// Tokens that end the generation; nil takes the checkpoint's.
    public var endTokenIDs: [Int]?
    /// Alternatives to report with each token.
    public var topLogProbabilities = 0

    /// 256 tokens at most.
    public init() {}
}

/// One generated token.
public struct GeneratedToken: Sendable, Equatable {
    /// The token.
    public let id: Int32
    /// log p of the token under the model, before any sampling setting.
    public let logProbability: Double
    /// The most likely tokens at this place, if asked for.
    public let alternatives: [TokenProbability]
}

/// Progress of a generation.
public struct GenerationStep: Sendable, Equatable {
    /// The token drawn; nil for text that was held back until the end.
    public let token: GeneratedToken?
    /// Text that is complete now; empty while a character or a stop string is under way.
    public let text: String
}

/// Why a generation ended.
public enum FinishReason: String, Sendable, Codable {
    /// An end token or a stop string.
    case stop
    /// The number of tokens asked for, or a full context.
    case length
    /// The caller's wish.
    case cancelled
}

/// A finished generation.
public struct GenerationResult: Sendable {
    /// Prompt tokens.
    public let promptTokens: Int
    /// What was drawn; an end token is the last.
    public let tokens: [GeneratedToken]
    /// All text, without stop strings; empty where no tokenizer took part.
    public internal(set) var text: String
    /// Why it ended.
    public let finishReason: FinishReason
    /// Seconds for the prompt and for the tokens after the first.
    public let promptSeconds: Double
    public let decodeSeconds: Double

    /// The ids that were drawn.
    public var ids: [Int32] { tokens.map(\.id) }
}
