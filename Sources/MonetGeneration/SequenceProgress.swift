import MonetModel
import MonetText

/// One text under way: draws the next token from logits, and knows when to stop.
struct SequenceProgress {
    private(set) var tokens: [GeneratedToken] = []
    /// All text so far, without stop strings.
    private(set) var text = ""
    /// Why it ended; nil while it goes on.
    private(set) var finishReason: FinishReason?
    /// Prompt and drawn tokens.
    private(set) var history: [Int32]
    private let settings: GenerationSettings
    private let endIDs: Set<Int>
    private let limit: Int
    private var sampler: Sampler
    private var decoder: StreamingDecoder?
    private var filter: StopFilter

    /// - Parameter limit: tokens that prompt and continuation may reach together.
    init(
        history: [Int32], settings: GenerationSettings, tokenizer: Tokenizer?, endTokenIDs: [Int], limit: Int
    ) throws {
        guard settings.maxNewTokens >= 0 else {
            throw GenerationError.invalidSetting(
                name: "max-new-tokens", found: "\(settings.maxNewTokens)", expected: "0 or more")
        }
        if !settings.stopStrings.isEmpty, tokenizer == nil {
            throw GenerationError.missingTokenizer(purpose: "a stop string")
        }
        self.history = history
        self.settings = settings
        self.limit = limit
        endIDs = Set(settings.endTokenIDs ?? endTokenIDs)
        sampler = try Sampler(settings.sampling)
        decoder = tokenizer.map { StreamingDecoder(tokenizer: $0, continuing: true) }
        filter = StopFilter(settings.stopStrings)
        if settings.maxNewTokens == 0 { finishReason = .length }
    }

    /// Draws a token from the logits after the last one.
    mutating func next(_ logits: [Float]) throws -> GenerationStep {
        let id = try sampler.next(logits, history: history)
        let ends = endIDs.contains(Int(id))
        let probabilities = LogProbabilities(logits)
        let shown = ends ? "" : filter.append(try decoder?.append(id) ?? "")
        text += shown
        history.append(id)
        let token = GeneratedToken(
            id: id, logProbability: probabilities[id],
            alternatives: settings.topLogProbabilities > 0
                ? probabilities.top(settings.topLogProbabilities) : [])
        tokens.append(token)
        if ends || filter.found != nil {
            finishReason = .stop
        } else if tokens.count == settings.maxNewTokens || history.count >= limit {
            finishReason = .length
        }
        return GenerationStep(token: token, text: shown)
    }

    /// Ends at the caller's wish.
    mutating func cancel() { finishReason = .cancelled }

    /// The text that was held back, once it has ended; nil if there is none.
    mutating func finish() throws -> GenerationStep? {
        let rest = filter.append(decoder?.finish() ?? "") + filter.finish()
        guard !rest.isEmpty else { return nil }
        text += rest
        return GenerationStep(token: nil, text: rest)
    }
}
