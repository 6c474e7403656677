import MonetModel

/// One running sequence: draws the next token from logits, and decides when to stop.
struct SequenceProgress {
    private(set) var tokens: [GeneratedToken] = []
    /// Why it ended; nil while it continues.
    private(set) var finishReason: FinishReason?
    /// Whether the last token was an end token, which is not part of the text.
    private(set) var endedByToken = false
    /// Prompt and drawn tokens.
    private(set) var history: [Int32]
    private let settings: GenerationSettings
    private let endIDs: Set<Int>
    private let limit: Int
    private var sampler: Sampler

    /// - Parameter limit: maximum tokens of prompt and continuation together.
    init(history: [Int32], settings: GenerationSettings, endTokenIDs: [Int], limit: Int) throws {
        guard settings.maxNewTokens >= 0 else {
            throw GenerationError.invalidSetting(
                name: "max-new-tokens", found: "\(settings.maxNewTokens)", expected: "0 or more")
        }
        self.history = history
        self.settings = settings
        self.limit = limit
        endIDs = Set(settings.endTokenIDs ?? endTokenIDs)
        sampler = try Sampler(settings.sampling)
        if settings.maxNewTokens == 0 { finishReason = .length }
    }

    /// Draws a token from the logits after the last one.
    mutating func next(_ logits: [Float]) throws -> GeneratedToken {
        let id = try sampler.next(logits, history: history, drawn: tokens.lazy.map(\.id))
        let probabilities = LogProbabilities(logits)
        history.append(id)
        let token = GeneratedToken(
            id: id, logProbability: probabilities[id],
            alternatives: settings.topLogProbabilities > 0
                ? probabilities.top(settings.topLogProbabilities) : [])
        tokens.append(token)
        endedByToken = endIDs.contains(Int(id))
        if endedByToken {
            finishReason = .stop
        } else if tokens.count == settings.maxNewTokens || history.count >= limit {
            finishReason = .length
        }
        return token
    }

    /// Ends the sequence for an external reason, such as a stop string or cancellation.
    mutating func finish(_ reason: FinishReason) { finishReason = reason }
}
