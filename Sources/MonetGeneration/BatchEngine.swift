import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// Continues many texts at once: every step runs one token of each text under way together with a
/// chunk of the prompts that wait, and reads each weight once for all of them.
///
///     let engine = try BatchEngine(model: model, tokenizer: tokenizer, backend: CPUBackend())
///     for prompt in prompts { try engine.submit(prompt) }
///     while !engine.isIdle {
///         for event in try engine.step() { print(event.request, event.step.text) }
///     }
///
/// A text joins as soon as a place is free and leaves when it ends (continuous batching). A prompt that
/// begins as another text did takes over the keys and values of what they share.
public final class BatchEngine {
    /// How much runs together.
    public struct Limits: Sendable, Equatable {
        /// Texts under way at a time.
        public var sequences = 8
        /// Prompt tokens in a step, so that texts under way do not stand still for long.
        public var promptTokensPerStep = 256
        /// Ended texts whose keys and values are kept for prompts that begin alike.
        public var keptPrefixes = 8
        /// Shared tokens that are worth taking over.
        public var shortestPrefix = 16

        /// 8 texts, 256 prompt tokens a step, 8 kept prefixes.
        public init() {}
    }

    /// What one step brought for a text.
    public struct Event: Sendable {
        /// The number that `submit` gave.
        public let request: Int
        /// The token and the text that is complete now.
        public let step: GenerationStep
    }

    /// The model.
    public let model: MonetLanguageModel
    /// Needed for text and stop strings; token ids do without.
    public let tokenizer: Tokenizer?
    private let backend: any Backend
    /// Experts to remove, weaken or amplify in all texts. To be set before the first text.
    public var mask: ExpertMask?
    private let limits: Limits
    private let cacheType: DType
    private let context: Int
    private var waiting: [Running] = []
    private var running: [Running] = []
    private var kept: [KVCache] = []
    private var results: [Int: GenerationResult] = [:]
    private var requests = 0

    /// - Parameters:
    ///   - contextLength: tokens that a text may reach; the model's context by default.
    ///   - cacheType: how keys and values are stored.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer?, backend: any Backend, limits: Limits = Limits(),
        contextLength: Int? = nil, cacheType: DType = .float32
    ) throws {
        for (name, value, least) in [
            ("sequences", limits.sequences, 1), ("prompt tokens per step", limits.promptTokensPerStep, 1),
            ("kept prefixes", limits.keptPrefixes, 0),
        ] where value < least {
            throw GenerationError.invalidSetting(name: name, found: "\(value)", expected: "\(least) or more")
        }
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.limits = limits
        self.cacheType = cacheType
        context = contextLength ?? model.configuration.contextLength
    }

    private struct Running {
        let request: Int
        let prompt: [Int32]
        var cache: KVCache
        var progress: SequenceProgress
        /// Tokens that no forward pass has seen yet.
        var pending: [Int32]
        let start: ContinuousClock.Instant
        var promptEnd: ContinuousClock.Instant?
    }

    /// Whether nothing waits and nothing runs.
    public var isIdle: Bool { waiting.isEmpty && running.isEmpty }
    /// Texts under way.
    public var runningCount: Int { running.count }
    /// Prompt tokens that were taken over from other texts so far.
    public private(set) var reusedTokens = 0

    /// Queues a text; returns the number that its events carry.
    ///
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt does not fit.
    @discardableResult
    public func submit(_ prompt: [Int32], settings: GenerationSettings = GenerationSettings()) throws -> Int {
        guard !prompt.isEmpty else { throw GenerationError.emptyPrompt }
        guard prompt.count <= context else {
            throw ModelError.contextExceeded(tokens: prompt.count, context: context)
        }
        let progress = try SequenceProgress(
            history: prompt, settings: settings, tokenizer: tokenizer,
            endTokenIDs: model.configuration.endTokenIDs, limit: context)
        requests += 1
        waiting.append(
            Running(
                request: requests, prompt: prompt,
                cache: KVCache(configuration: model.configuration, limit: context, dtype: cacheType),
                progress: progress, pending: prompt, start: .now))
        return requests
    }

    /// Ends a text at the caller's wish; its result has what was drawn so far.
    public func cancel(_ request: Int) {
        for index in running.indices where running[index].request == request {
            running[index].progress.cancel()
        }
        for index in waiting.indices where waiting[index].request == request {
            waiting[index].progress.cancel()
        }
    }

    /// The result of a text that has ended, once.
    public func takeResult(_ request: Int) -> GenerationResult? { results.removeValue(forKey: request) }

    /// Runs one forward pass over all texts under way.
    ///
    /// - Returns: the tokens drawn, in the order of the texts' numbers.
    public func step() throws -> [Event] {
        var events: [Event] = []
        try retire(&events)
        try admit()
        let batch = nextBatch()
        if batch.isEmpty { return events }
        let context = ForwardContext(inferenceOn: backend)
        context.mask = mask
        let hidden = try model.forward(
            batch.map(\.tokens), caches: batch.map { running[$0.index].cache }, context
        ).hidden.value
        // Only texts whose tokens have all been seen need logits, of their last row alone.
        var lastRows: [(index: Int, row: Int)] = []
        var row = 0
        for (index, tokens) in batch {
            row += tokens.count
            running[index].pending.removeFirst(tokens.count)
            if running[index].pending.isEmpty { lastRows.append((index, row - 1)) }
        }
        if !lastRows.isEmpty {
            let width = hidden.columnCount
            let last = Tensor(
                lastRows.flatMap { hidden.slice($0.row..<($0.row + 1)).floats() },
                shape: [lastRows.count, width])
            let logits = try model.logits(last, on: backend)
            for (place, (index, _)) in lastRows.enumerated() {
                if running[index].promptEnd == nil { running[index].promptEnd = .now }
                if running[index].progress.finishReason != nil { continue }
                let step = try running[index].progress.next(logits.slice(place..<(place + 1)).floats())
                if let id = step.token?.id { running[index].pending = [id] }
                events.append(Event(request: running[index].request, step: step))
            }
        }
        try retire(&events)
        return events
    }

    /// The tokens to run now: one of every text that is decoding, prompts as far as the budget goes.
    private func nextBatch() -> [(index: Int, tokens: [Int32])] {
        let isDecoding = { [running] (index: Int) in
            running[index].promptEnd != nil && running[index].pending.count == 1
        }
        // With rotations that depend on the length, texts beyond the trained length run alone and whole.
        let trained = model.configuration.maxPositionEmbeddings
        if model.rotationsDependOnLength,
            let alone = running.indices.first(where: {
                running[$0].cache.count + running[$0].pending.count > trained
            })
        {
            return [(alone, running[alone].pending)]
        }
        var batch: [(index: Int, tokens: [Int32])] = []
        var budget = limits.promptTokensPerStep
        for index in running.indices {
            if isDecoding(index) {
                batch.append((index, running[index].pending))
            } else if budget > 0 {
                let tokens = Array(running[index].pending.prefix(budget))
                budget -= tokens.count
                batch.append((index, tokens))
            }
        }
        return batch
    }

    /// Gives waiting texts the free places.
    private func admit() throws {
        while running.count < limits.sequences, !waiting.isEmpty {
            var next = waiting.removeFirst()
            try takePrefix(&next)
            running.append(next)
        }
    }

    /// Takes over the keys and values of the longest beginning shared with another text. The last token
    /// always runs, to have logits.
    private func takePrefix(_ next: inout Running) throws {
        let candidates = kept + running.map(\.cache)
        let trained = model.rotationsDependOnLength ? model.configuration.maxPositionEmbeddings : .max
        guard next.prompt.count <= trained else { return }
        let shared = candidates.map { cache in
            cache.count > trained
                ? 0 : zip(cache.tokens, next.prompt.dropLast()).prefix { $0 == $1 }.count
        }
        guard let best = shared.indices.max(by: { shared[$0] < shared[$1] }),
            shared[best] >= limits.shortestPrefix
        else { return }
        next.cache = try candidates[best].copy(first: shared[best], configuration: model.configuration)
        next.pending = Array(next.prompt.dropFirst(shared[best]))
        reusedTokens += shared[best]
    }

    /// Takes ended texts out and keeps their keys and values for others that begin alike.
    private func retire(_ events: inout [Event]) throws {
        for group in [\BatchEngine.running, \BatchEngine.waiting] {
            for index in self[keyPath: group].indices.reversed() {
                guard let reason = self[keyPath: group][index].progress.finishReason else { continue }
                // A text that asked for no tokens still runs its prompt, unless cancelled.
                var ended = self[keyPath: group][index]
                if reason == .length, ended.progress.tokens.isEmpty, ended.promptEnd == nil { continue }
                self[keyPath: group].remove(at: index)
                if let rest = try ended.progress.finish() {
                    events.append(Event(request: ended.request, step: rest))
                }
                let promptEnd = ended.promptEnd ?? .now
                results[ended.request] = GenerationResult(
                    promptTokens: ended.prompt.count, tokens: ended.progress.tokens,
                    text: ended.progress.text,
                    finishReason: reason, promptSeconds: (promptEnd - ended.start).seconds,
                    decodeSeconds: (.now - promptEnd).seconds)
                if limits.keptPrefixes > 0, ended.cache.count >= limits.shortestPrefix {
                    kept.append(ended.cache)
                    if kept.count > limits.keptPrefixes { kept.removeFirst() }
                }
            }
        }
    }
}
