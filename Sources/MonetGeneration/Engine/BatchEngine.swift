import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// What to continue, and how.
public struct GenerationRequest: Sendable {
    /// The tokens to continue.
    public var tokens: [Int32]
    /// How tokens are drawn, and when to stop.
    public var settings = GenerationSettings()
    /// Units to remove, weaken or amplify for this request alone, on top of the model's own mask.
    public var mask: UnitMask?
    /// Places of the forward pass whose values the events carry.
    public var observed: Set<HookPoint> = []
    /// Whether the events carry the units of every token.
    public var observesUnits = false

    /// A request for a continuation.
    public init(
        _ tokens: [Int32], settings: GenerationSettings = GenerationSettings(), mask: UnitMask? = nil
    ) {
        self.tokens = tokens
        self.settings = settings
        self.mask = mask
    }
}

/// Continues many sequences of tokens at once: every step runs one token of each sequence that decodes together
/// with a chunk of the waiting prompts, and reads each weight once for all of them.
///
///     let engine = try BatchEngine(model: model)
///     for prompt in prompts { try engine.submit(GenerationRequest(prompt)) }
///     while !engine.isIdle {
///         for event in engine.step() { print(event.request, event.kind) }
///     }
///
/// A sequence joins as soon as a place is free and leaves when it ends (continuous batching). A prompt that begins
/// as another one with an equal mask did takes over the keys and values of what they share. An error is an event
/// of the request that it belongs to; the others go on. Text is a layer above: `TextEngine`.
public final class BatchEngine {
    /// How much runs together.
    public struct Limits: Sendable, Equatable {
        /// Sequences under way at a time.
        public var sequences = 8
        /// Prompt tokens in a step, so that sequences that decode do not stand still for long.
        public var promptTokensPerStep = 256
        /// Ended sequences whose keys and values are kept for prompts that begin alike.
        public var keptPrefixes = 8
        /// Shared tokens that are worth taking over.
        public var shortestPrefix = 16

        /// 8 sequences, 256 prompt tokens a step, 8 kept prefixes.
        public init() {}
    }

    /// What a step brought for one request.
    public struct Event {
        /// What happened.
        public enum Kind {
            /// A token was drawn.
            case token(GeneratedToken)
            /// Tokens ran whose values were asked for.
            case observed(Observation)
            /// It has ended.
            case finished(GenerationResult)
            /// It has failed; the others go on.
            case failed(any Error)
        }

        /// The number that `submit` gave.
        public let request: Int
        public let kind: Kind
    }

    /// Values of some tokens of a request.
    public struct Observation {
        /// Positions of the tokens in the sequence.
        public let positions: Range<Int>
        /// Rows of these tokens at each observed place.
        public let values: [HookPoint: Tensor]
        /// What each group of units left, if asked for, and the rows of these tokens in it.
        public let groups: [any UnitActivations]
        public let rows: Range<Int>
    }

    /// The model.
    public let model: MonetLanguageModel
    private let backend: any Backend
    private let limits: Limits
    private let cacheType: DType
    private let context: Int
    private var waiting: [Running] = []
    private var running: [Running] = []
    private var kept: [(cache: KVCache, mask: UnitMask?)] = []
    private var requests = 0

    /// - Parameters:
    ///   - contextLength: tokens that a sequence may reach; the model's context by default.
    ///   - cacheType: how keys and values are stored.
    /// - Throws: `GenerationError.invalidSetting`.
    public init(
        model: MonetLanguageModel, backend: any Backend = CPUBackend(), limits: Limits = Limits(),
        contextLength: Int? = nil, cacheType: DType = .float32
    ) throws {
        for (name, value, least) in [
            ("sequences", limits.sequences, 1), ("prompt tokens per step", limits.promptTokensPerStep, 1),
            ("kept prefixes", limits.keptPrefixes, 0),
        ] where value < least {
            throw GenerationError.invalidSetting(name: name, found: "\(value)", expected: "\(least) or more")
        }
        self.model = model
        self.backend = backend
        self.limits = limits
        self.cacheType = cacheType
        context = contextLength ?? model.configuration.contextLength
    }

    private struct Running {
        let number: Int
        let request: GenerationRequest
        var cache: KVCache
        var progress: SequenceProgress
        /// Tokens that no forward pass has seen yet.
        var pending: [Int32]
        let start: ContinuousClock.Instant
        var promptEnd: ContinuousClock.Instant?
        var error: (any Error)?

        /// Whether it has left its prompt behind.
        var isDecoding: Bool { promptEnd != nil && pending.count == 1 }
        /// A sequence that asked for no tokens still runs its prompt, unless cancelled.
        var isOver: Bool {
            error != nil
                || (progress.finishReason.map {
                    $0 != .length || promptEnd != nil || !progress.tokens.isEmpty
                }
                    ?? false)
        }
    }

    /// Whether nothing waits and nothing runs.
    public var isIdle: Bool { waiting.isEmpty && running.isEmpty }
    /// Sequences under way.
    public var runningCount: Int { running.count }
    /// Prompt tokens that were taken over from other sequences so far.
    public private(set) var reusedTokens = 0

    /// Queues a request; returns the number that its events carry.
    ///
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt does not fit.
    @discardableResult
    public func submit(_ request: GenerationRequest) throws -> Int {
        let tokens = request.tokens
        guard !tokens.isEmpty else { throw GenerationError.emptyPrompt }
        guard tokens.count <= context else {
            throw ModelError.contextExceeded(tokens: tokens.count, context: context)
        }
        let vocabulary = model.configuration.vocabularySize
        if let bad = tokens.first(where: { $0 < 0 || Int($0) >= vocabulary }) {
            throw GenerationError.invalidToken(id: Int(bad), vocabularySize: vocabulary)
        }
        if let mask = request.mask, mask.unitsPerGroup != model.units.unitsPerGroup {
            throw GenerationError.invalidSetting(
                name: "mask", found: "one for groups of \(mask.unitsPerGroup) units",
                expected: "\(model.units.unitsPerGroup)")
        }
        let progress = try SequenceProgress(
            history: tokens, settings: request.settings, endTokenIDs: model.configuration.endTokenIDs,
            limit: context)
        requests += 1
        waiting.append(
            Running(
                number: requests, request: request,
                cache: KVCache(configuration: model.configuration, limit: context, dtype: cacheType),
                progress: progress, pending: tokens, start: .now))
        return requests
    }

    /// Ends a request; what was drawn so far is its result.
    public func finish(_ request: Int, reason: FinishReason = .cancelled) {
        for index in running.indices where running[index].number == request {
            running[index].progress.finish(reason)
        }
        for index in waiting.indices where waiting[index].number == request {
            waiting[index].progress.finish(reason)
        }
    }

    /// Runs one forward pass over all sequences under way.
    ///
    /// - Returns: what happened, in the order of the requests.
    public func step() -> [Event] {
        var events: [Event] = []
        retire(&events)
        admit()
        let batch = nextBatch()
        guard !batch.isEmpty else { return events }
        do {
            try run(batch, &events)
        } catch {
            // Something is wrong with one of them: each alone, so that only that one fails.
            for part in batch {
                do {
                    if batch.count == 1 { throw error }
                    try run([part], &events)
                } catch {
                    running[part.index].error = error
                }
            }
        }
        retire(&events)
        return events
    }

    private func run(_ batch: [(index: Int, tokens: [Int32])], _ events: inout [Event]) throws {
        var input = ForwardInput(
            batch.map {
                ForwardSequence(
                    $0.tokens, cache: running[$0.index].cache, mask: running[$0.index].request.mask)
            })
        for part in batch {
            input.hooks.observed.formUnion(running[part.index].request.observed)
            input.keepsUnits = input.keepsUnits || running[part.index].request.observesUnits
        }
        let output = try model.forward(input, on: backend)
        // Only sequences whose tokens have all been seen need logits, of their last row alone.
        var rows: [Int32] = []
        var seen = 0
        for (index, tokens) in batch {
            seen += tokens.count
            if running[index].pending.count == tokens.count { rows.append(Int32(seen - 1)) }
        }
        let logits =
            try rows.isEmpty
            ? nil : model.logits(backend.embed(rows, table: output.hidden.value), on: backend)
        var (first, place) = (0, 0)
        for (number, (index, tokens)) in batch.enumerated() {
            let range = first..<(first + tokens.count)
            first = range.upperBound
            observe(index, output, range, &events)
            running[index].cache = output.caches[number]
            running[index].pending.removeFirst(tokens.count)
            guard running[index].pending.isEmpty, let logits else { continue }
            let own = logits.slice(place..<(place + 1))
            place += 1
            if running[index].promptEnd == nil { running[index].promptEnd = .now }
            if running[index].progress.finishReason != nil { continue }
            do {
                let token = try running[index].progress.next(own.floats())
                running[index].pending = [token.id]
                events.append(Event(request: running[index].number, kind: .token(token)))
            } catch {
                running[index].error = error
            }
        }
    }

    private func observe(_ index: Int, _ output: ForwardOutput, _ rows: Range<Int>, _ events: inout [Event]) {
        let request = running[index].request
        guard !request.observed.isEmpty || request.observesUnits else { return }
        let start = running[index].cache.count
        let values = output.observations.filter { request.observed.contains($0.key) }
            .mapValues { $0.value.slice(rows) }
        events.append(
            Event(
                request: running[index].number,
                kind: .observed(
                    Observation(
                        positions: start..<(start + rows.count), values: values,
                        groups: request.observesUnits ? output.groups : [], rows: rows))))
    }

    /// The tokens to run now: one of every sequence that decodes, prompts as far as the budget goes.
    private func nextBatch() -> [(index: Int, tokens: [Int32])] {
        // With rotations that depend on the length, sequences beyond the trained length run alone and whole.
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
            if running[index].isDecoding {
                batch.append((index, running[index].pending))
            } else if budget > 0 {
                let tokens = Array(running[index].pending.prefix(budget))
                budget -= tokens.count
                if !tokens.isEmpty { batch.append((index, tokens)) }
            }
        }
        return batch
    }

    /// Gives waiting requests the free places.
    private func admit() {
        while running.count < limits.sequences, !waiting.isEmpty {
            var next = waiting.removeFirst()
            takePrefix(&next)
            running.append(next)
        }
    }

    /// Takes over the keys and values of the longest beginning shared with another sequence of equal mask. The last
    /// token always runs, to have logits; so does every token of a request that observes something.
    private func takePrefix(_ next: inout Running) {
        let request = next.request
        let trained = model.rotationsDependOnLength ? model.configuration.maxPositionEmbeddings : .max
        guard request.tokens.count <= trained, request.observed.isEmpty, !request.observesUnits else {
            return
        }
        let candidates = (kept + running.map { ($0.cache, $0.request.mask) }).filter {
            $0.cache.count <= trained && $0.mask == request.mask
        }
        let shared = candidates.map { candidate in
            zip(candidate.cache.tokens, request.tokens.dropLast()).prefix { $0 == $1 }.count
        }
        guard let best = shared.indices.max(by: { shared[$0] < shared[$1] }),
            shared[best] >= limits.shortestPrefix
        else { return }
        next.cache = candidates[best].cache.prefix(shared[best])
        next.pending = Array(request.tokens.dropFirst(shared[best]))
        reusedTokens += shared[best]
    }

    /// Takes ended sequences out and keeps their keys and values for others that begin alike.
    private func retire(_ events: inout [Event]) {
        for ended in running.filter(\.isOver) + waiting.filter(\.isOver) {
            if let error = ended.error {
                events.append(Event(request: ended.number, kind: .failed(error)))
                continue
            }
            let promptEnd = ended.promptEnd ?? .now
            events.append(
                Event(
                    request: ended.number,
                    kind: .finished(
                        GenerationResult(
                            promptTokens: ended.request.tokens.count, tokens: ended.progress.tokens, text: "",
                            finishReason: ended.progress.finishReason ?? .length,
                            promptSeconds: (promptEnd - ended.start).seconds,
                            decodeSeconds: (.now - promptEnd).seconds))))
            if limits.keptPrefixes > 0, ended.cache.count >= limits.shortestPrefix {
                kept.append((ended.cache, ended.request.mask))
                if kept.count > limits.keptPrefixes { kept.removeFirst() }
            }
        }
        running.removeAll(where: \.isOver)
        waiting.removeAll(where: \.isOver)
    }
}
