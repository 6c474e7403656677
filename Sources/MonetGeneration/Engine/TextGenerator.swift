import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// Continues one text with a model.
///
///     let generator = TextGenerator(model: model, tokenizer: tokenizer)
///     let prompt = try tokenizer.encode("The sea", addBegin: true)
///     for try await step in generator.steps(prompt) { print(step.text, terminator: "") }
public struct TextGenerator: Sendable {
    /// The model.
    public let model: MonetLanguageModel
    /// Needed for text and stop strings, but not for token ids.
    public let tokenizer: Tokenizer?
    private let backend: any Backend
    /// Units to remove, weaken or amplify.
    public var mask: UnitMask?
    /// Units to force and directions to add in every pass.
    public var steering: Steering?
    /// Whether to use a KV cache. Without one, every token runs the whole text again.
    public var usesCache = true
    /// Prompt tokens that run at a time, which limits the memory for activations.
    private static let promptBlock = 512

    /// Joins a model and its tokenizer.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer?, backend: any Backend = CPUBackend()
    ) {
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
    }

    /// Continues token ids.
    ///
    /// - `stopStrings`: texts that end the generation; they are not part of the result.
    /// - `cache`: keys and values of an earlier part of the same text, which `prompt` follows. Afterwards it
    ///   holds those of all tokens that have run.
    /// - `onStep`: called with every token; false stops.
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt leaves no room.
    public func generate(
        _ prompt: [Int32], settings: GenerationSettings = GenerationSettings(), stopStrings: [String] = [],
        cache: inout KVCache, onStep: (GenerationStep) throws -> Bool = { _ in true }
    ) throws -> GenerationResult {
        try generate(
            segments: [.tokens(prompt)], settings: settings, stopStrings: stopStrings, cache: &cache,
            onStep: onStep)
    }

    /// Continues token ids without earlier text.
    public func generate(
        _ prompt: [Int32], settings: GenerationSettings = GenerationSettings(), stopStrings: [String] = [],
        onStep: (GenerationStep) throws -> Bool = { _ in true }
    ) throws -> GenerationResult {
        try generate(
            segments: [.tokens(prompt)], settings: settings, stopStrings: stopStrings, onStep: onStep)
    }

    /// Continues token ids, and embeddings in the place of tokens, without earlier text.
    public func generate(
        segments prompt: [ForwardSegment], settings: GenerationSettings = GenerationSettings(),
        stopStrings: [String] = [], onStep: (GenerationStep) throws -> Bool = { _ in true }
    ) throws -> GenerationResult {
        var cache = KVCache(configuration: model.configuration)
        return try generate(
            segments: prompt, settings: settings, stopStrings: stopStrings, cache: &cache, onStep: onStep)
    }

    /// The steps of a generation as they arrive; it runs on its own thread and ends if the stream is dropped.
    public func steps(
        _ prompt: [Int32], settings: GenerationSettings = GenerationSettings(), stopStrings: [String] = []
    ) -> AsyncThrowingStream<GenerationStep, any Error> {
        AsyncThrowingStream { continuation in
            // A thread of its own: the tasks' threads are few and must not wait for a model.
            let thread = Thread {
                do {
                    _ = try generate(prompt, settings: settings, stopStrings: stopStrings) { step in
                        if case .terminated = continuation.yield(step) { return false }
                        return true
                    }
                    continuation.finish()
                } catch {
                    continuation.finish(throwing: error)
                }
            }
            thread.stackSize = 1 << 23
            thread.start()
        }
    }

    private func generate(
        segments prompt: [ForwardSegment], settings: GenerationSettings, stopStrings: [String],
        cache: inout KVCache, onStep: (GenerationStep) throws -> Bool
    ) throws -> GenerationResult {
        let sequence = ForwardSequence(segments: prompt)
        guard sequence.count > 0 else { throw GenerationError.emptyPrompt }
        guard cache.count + sequence.count <= cache.limit else {
            throw ModelError.contextExceeded(tokens: cache.count + sequence.count, context: cache.limit)
        }
        var progress = try SequenceProgress(
            history: cache.tokens + sequence.ids, settings: settings,
            endTokenIDs: model.configuration.stopTokenIDs, limit: cache.limit)
        var assembler = try TextAssembler(tokenizer: tokenizer, stopStrings: stopStrings)

        let earlier = cache.tokens
        guard usesCache || !earlier.contains(where: { $0 < 0 }) else {
            throw ModelError.invalidInput(
                reason: "earlier embeddings cannot run again: only a KV cache continues them")
        }
        let clock = ContinuousClock()
        let start = clock.now
        var logits = try lastLogits(of: prompt, &cache)
        let promptEnd = clock.now
        while progress.finishReason == nil {
            let token = try progress.next(logits)
            let step = GenerationStep(
                token: token, text: try progress.endedByToken ? "" : assembler.append(token.id))
            if assembler.isStopped { progress.finish(.stop) }
            if try !onStep(step) { progress.finish(.cancelled) }
            if progress.finishReason != nil { break }
            if usesCache {
                logits = try lastLogits(of: [.tokens([token.id])], &cache)
            } else {
                cache.truncate(to: 0)
                logits = try lastLogits(
                    of: [.tokens(earlier)] + prompt + [.tokens(progress.tokens.map(\.id))], &cache)
            }
        }
        if let rest = assembler.finish() { _ = try onStep(GenerationStep(token: nil, text: rest)) }
        return GenerationResult(
            promptTokens: sequence.count, tokens: progress.tokens, text: assembler.text,
            finishReason: progress.finishReason ?? .length,
            promptSeconds: (promptEnd - start).seconds, decodeSeconds: (clock.now - promptEnd).seconds)
    }

    /// Logits after the last of a sequence's new tokens, `[vocabulary]`.
    private func lastLogits(of segments: [ForwardSegment], _ cache: inout KVCache) throws -> [Float] {
        // Dynamic rotary scaling depends on the total length, so the prompt runs in one piece.
        let block = model.rotationsDependOnLength ? Int.max : Self.promptBlock
        var hidden: Tensor?
        for part in Self.parts(segments, of: block) {
            var sequence = ForwardSequence(segments: part, cache: cache, mask: mask)
            sequence.steering = steering
            let output = try model.forward(ForwardInput([sequence]), on: backend)
            cache = output.caches[0]
            hidden = output.hidden.value
        }
        guard let hidden else { throw GenerationError.emptyPrompt }
        let last = hidden.slice((hidden.shape[0] - 1)..<hidden.shape[0])
        return try model.logits(last, on: backend).floats()
    }

    /// Segments in parts of at most `block` tokens; with embeddings among them, in one piece.
    private static func parts(_ segments: [ForwardSegment], of block: Int) -> [[ForwardSegment]] {
        var ids: [Int32] = []
        for segment in segments {
            guard case .tokens(let new) = segment else { return [segments] }
            ids += new
        }
        return stride(from: 0, to: ids.count, by: block).map {
            [.tokens(Array(ids[$0..<($0 + min(block, ids.count - $0))]))]
        }
    }
}
