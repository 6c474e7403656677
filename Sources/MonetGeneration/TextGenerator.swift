import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// What to generate, and when to stop.
public struct GenerationSettings: Sendable, Equatable {
    /// Tokens at most.
    public var maxNewTokens = 256
    /// How tokens are drawn.
    public var sampling = SamplingSettings()
    /// Texts that end the generation; they are not part of the result.
    public var stopStrings: [String] = []
    /// Tokens that end the generation; nil takes the checkpoint's.
    public var endTokenIDs: [Int]?
    /// Alternatives to report with each token.
    public var topLogProbabilities = 0
    /// Whether keys and values are kept between tokens. Without, every token runs the whole text again.
    public var usesCache = true

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
    /// All text, without stop strings; empty without a tokenizer.
    public let text: String
    /// Why it ended.
    public let finishReason: FinishReason
    /// Seconds for the prompt and for the tokens after the first.
    public let promptSeconds: Double
    public let decodeSeconds: Double

    /// The ids that were drawn.
    public var ids: [Int32] { tokens.map(\.id) }
}

/// Continues texts with a model.
///
///     let generator = TextGenerator(model: model, tokenizer: tokenizer, backend: CPUBackend())
///     let result = try generator.generate(tokenizer.encode("The sea", addBegin: true)) { step in
///         print(step.text, terminator: "")
///         return true
///     }
public struct TextGenerator {
    /// The model.
    public let model: MonetLanguageModel
    /// Needed for text and stop strings; token ids do without.
    public let tokenizer: Tokenizer?
    private let backend: any Backend
    /// Experts to remove, weaken or amplify.
    public var mask: ExpertMask?
    /// Embeddings to use instead of the tokens' own, by position in the text, `[d]`.
    public var replacedEmbeddings: [Int: [Float]] = [:]
    /// Prompt tokens that run at a time, which bounds the memory for activations.
    private static let promptBlock = 512

    /// Joins a model and its tokenizer.
    public init(model: MonetLanguageModel, tokenizer: Tokenizer?, backend: any Backend) {
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
    }

    /// Continues `prompt`.
    ///
    /// - Parameters:
    ///   - cache: keys and values of an earlier part of the same text; `prompt` follows it.
    ///   - onStep: called with every token; false stops.
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt leaves no room.
    public func generate(
        _ prompt: [Int32], settings: GenerationSettings = GenerationSettings(), cache: KVCache? = nil,
        onStep: (GenerationStep) throws -> Bool = { _ in true }
    ) throws -> GenerationResult {
        guard !prompt.isEmpty else { throw GenerationError.emptyPrompt }
        let cache = cache ?? KVCache(configuration: model.configuration)
        guard cache.count + prompt.count <= cache.limit else {
            throw ModelError.contextExceeded(tokens: cache.count + prompt.count, context: cache.limit)
        }
        var progress = try SequenceProgress(
            history: cache.tokens + prompt, settings: settings, tokenizer: tokenizer,
            endTokenIDs: model.configuration.endTokenIDs, limit: cache.limit)

        let clock = ContinuousClock()
        let start = clock.now
        var logits = try lastLogits(of: prompt, cache)
        let promptEnd = clock.now
        while progress.finishReason == nil {
            let step = try progress.next(logits)
            if try !onStep(step) { progress.cancel() }
            if progress.finishReason != nil { break }
            if settings.usesCache {
                logits = try lastLogits(of: progress.history.suffix(1), cache)
            } else {
                cache.truncate(to: 0)
                logits = try lastLogits(of: progress.history, cache)
            }
        }
        if let rest = try progress.finish() { _ = try onStep(rest) }
        return GenerationResult(
            promptTokens: prompt.count, tokens: progress.tokens, text: progress.text,
            finishReason: progress.finishReason ?? .length,
            promptSeconds: (promptEnd - start).seconds, decodeSeconds: (clock.now - promptEnd).seconds)
    }

    /// Logits after the last of `ids`, `[vocabulary]`.
    private func lastLogits(of ids: some RandomAccessCollection<Int32>, _ cache: KVCache) throws -> [Float] {
        let context = ForwardContext(inferenceOn: backend)
        context.mask = mask
        context.replacedEmbeddings = replacedEmbeddings
        // Dynamic rotary scaling depends on the whole length: the prompt runs in one piece.
        let block = model.rotationsDependOnLength ? ids.count : Self.promptBlock
        var hidden: Tensor?
        for start in stride(from: 0, to: ids.count, by: block) {
            let part = Array(ids.dropFirst(start).prefix(block))
            hidden = try model.forward([part], caches: [cache], context).hidden.value
        }
        guard let hidden else { throw GenerationError.emptyPrompt }
        let last = hidden.slice((hidden.shape[0] - 1)..<hidden.shape[0])
        return try model.logits(last, on: backend).floats()
    }
}
