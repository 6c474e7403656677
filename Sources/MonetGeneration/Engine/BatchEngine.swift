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
    /// Units to remove, weaken or amplify for this request alone, in addition to the model's own mask.
    public var mask: UnitMask?
    /// Units to force and directions to add for this request alone.
    public var steering: Steering?
    /// Hook points of the forward pass whose values the events carry.
    public var observed: Set<HookPoint> = []
    /// Whether the events carry the units of every token.
    public var observesUnits = false
    /// Whether the events carry the log-probability of every prompt token, with this many alternatives.
    public var scoredAlternatives: Int?

    /// A request for a continuation.
    public init(
        _ tokens: [Int32], settings: GenerationSettings = GenerationSettings(), mask: UnitMask? = nil
    ) {
        self.tokens = tokens
        self.settings = settings
        self.mask = mask
    }
}

/// What changes a sequence's keys and values beside its tokens: only sequences of equal edits share them.
private struct Edit: Equatable {
    let mask: UnitMask?
    let steering: Steering?
}

extension GenerationRequest {
    fileprivate var edit: Edit { Edit(mask: mask, steering: steering) }
}

/// Continues many sequences of tokens at once. Every step runs one token of each decoding sequence together
/// with a chunk of the waiting prompts, and reads each weight once for all of them.
///
///     let engine = try BatchEngine(model: model)
///     for prompt in prompts { try engine.submit(GenerationRequest(prompt)) }
///     while !engine.isIdle {
///         for event in engine.step() { print(event.request, event.kind) }
///     }
///
/// A sequence joins as soon as a slot is free and leaves when it ends (continuous batching). A prompt that
/// shares a prefix with another one of equal mask reuses its keys and values. An error is an event of the
/// request that it belongs to; the others continue. Text is handled one layer above, by `TextEngine`.
public final class BatchEngine {
    /// Limits on what runs together.
    public struct Limits: Sendable, Equatable {
        /// Maximum number of sequences that run at a time.
        public var sequences = 8
        /// Maximum number of prompt tokens per step, so that decoding sequences do not wait for long.
        public var promptTokensPerStep = 256
        /// Finished sequences whose keys and values are kept for prompts with the same prefix.
        public var keptPrefixes = 8
        /// Minimum length of a shared prefix that is worth reusing.
        public var shortestPrefix = 16

        /// 8 sequences, 256 prompt tokens per step, 8 kept prefixes.
        public init() {}
    }

    /// An event of a step, for one request.
    public struct Event {
        /// What happened.
        public enum Kind {
            /// Prompt tokens were scored, in order.
            case scored([ScoredToken])
            /// A token was drawn.
            case token(GeneratedToken)
            /// Tokens ran whose values were requested.
            case observed(Observation)
            /// The request has ended.
            case finished(GenerationResult)
            /// The request has failed; the others continue.
            case failed(any Error)
        }

        /// The number that `submit` returned.
        public let request: Int
        public let kind: Kind
    }

    /// Values of some tokens of a request.
    public struct Observation {
        /// Positions of the tokens in the sequence.
        public let positions: Range<Int>
        /// Rows of these tokens at each observed hook point.
        public let values: [HookPoint: Tensor]
        /// The activations of each group of units, if requested, and the rows of these tokens in them.
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
    private var kept: [(cache: KVCache, edit: Edit)] = []
    private var requests = 0
    private var turn = 0

    /// - `contextLength`: maximum tokens of a sequence; the model's context by default.
    /// - `cacheType`: the type in which keys and values are stored.
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
        /// Prompt tokens taken from another sequence.
        var cached = 0
        /// Prompt tokens that have been scored.
        var scored = 0

        /// Whether its prompt has been processed.
        var isDecoding: Bool { promptEnd != nil && pending.count == 1 }
        /// A sequence that requests no new tokens still runs its prompt, unless cancelled.
        var isOver: Bool {
            error != nil
                || (progress.finishReason.map {
                    $0 != .length || promptEnd != nil || !progress.tokens.isEmpty
                }
                    ?? false)
        }
    }

    /// Whether no request is waiting or running.
    public var isIdle: Bool { waiting.isEmpty && running.isEmpty }
    /// The number of running sequences.
    public var runningCount: Int { running.count }
    /// The number of requests that wait for a free slot.
    public var waitingCount: Int { waiting.count }
    /// Tokens whose keys and values are in memory, of running and of kept sequences.
    public var cachedTokenCount: Int {
        running.reduce(0) { $0 + $1.cache.count } + kept.reduce(0) { $0 + $1.cache.count }
    }
    /// Prompt tokens so far whose keys and values were reused from other sequences.
    public private(set) var reusedTokens = 0

    /// Queues a request; returns the number that its events carry.
    ///
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt does not fit,
    ///   `ModelError.invalidInput` for a mask or a hook point that is not of this model.
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
        if let mask = request.mask { try model.check(mask) }
        if let steering = request.steering { try model.check(steering) }
        try model.check(request.observed)
        let progress = try SequenceProgress(
            history: tokens, settings: request.settings, endTokenIDs: model.configuration.stopTokenIDs,
            limit: context)
        requests += 1
        waiting.append(
            Running(
                number: requests, request: request,
                cache: KVCache(configuration: model.configuration, limit: context, dtype: cacheType),
                progress: progress, pending: tokens, start: .now))
        return requests
    }

    /// Ends a request; the tokens drawn so far are its result.
    public func finish(_ request: Int, reason: FinishReason = .cancelled) {
        for index in running.indices where running[index].number == request {
            running[index].progress.finish(reason)
        }
        for index in waiting.indices where waiting[index].number == request {
            waiting[index].progress.finish(reason)
        }
    }

    /// Runs one forward pass over all running sequences.
    ///
    /// - Returns: what happened, in the order of the requests.
    public func step() -> [Event] {
        var events: [Event] = []
        retire(&events)
        admit()
        let batch = nextBatch()
        guard !batch.isEmpty else { return events }
        // Attention patterns have as many keys as the longest text of a pass: those observed run alone.
        let together = batch.filter { !observesPatterns(running[$0.index].request) }
        let alone = batch.filter { observesPatterns(running[$0.index].request) }
        for pass in [together] + alone.map({ [$0] }) where !pass.isEmpty { attempt(pass, &events) }
        retire(&events)
        return events
    }

    private func observesPatterns(_ request: GenerationRequest) -> Bool {
        request.observed.contains { $0.kind == .pattern }
    }

    /// Runs a batch; if that fails, each part alone, so that only those that caused it fail.
    private func attempt(_ batch: [(index: Int, tokens: [Int32])], _ events: inout [Event]) {
        do {
            try run(batch, &events)
        } catch {
            for part in batch {
                do {
                    if batch.count == 1 { throw error }
                    try run([part], &events)
                } catch {
                    running[part.index].error = error
                }
            }
        }
    }

    private func run(_ batch: [(index: Int, tokens: [Int32])], _ events: inout [Event]) throws {
        var input = ForwardInput(
            batch.map {
                var sequence = ForwardSequence(
                    $0.tokens, cache: running[$0.index].cache, mask: running[$0.index].request.mask)
                sequence.steering = running[$0.index].request.steering
                return sequence
            })
        for part in batch {
            input.hooks.observed.formUnion(running[part.index].request.observed)
            input.keepsUnits = input.keepsUnits || running[part.index].request.observesUnits
        }
        let output = try model.forward(input, on: backend)
        // Only sequences without pending tokens need logits, and only those of their last row; scored prompts have
        // theirs computed apart, because they need those of every row.
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
            do {
                try score(index, output, range, &events)
            } catch {
                running[index].error = error
            }
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

    /// Rows whose logits are in memory at a time.
    private static let scoredRows = 32

    /// Scores the prompt tokens that follow each row; the first token of a text has nothing before it.
    private func score(_ index: Int, _ output: ForwardOutput, _ rows: Range<Int>, _ events: inout [Event])
        throws
    {
        let request = running[index].request
        guard let alternatives = request.scoredAlternatives else { return }
        let tokens = request.tokens
        var scores: [ScoredToken] = []
        if running[index].scored == 0 {
            scores.append(ScoredToken(id: tokens[0], logProbability: nil, alternatives: []))
        }
        // Row r of the sequence predicts token r + 1.
        let first = running[index].cache.count
        let predicting = min(rows.count, tokens.count - 1 - first)
        for start in stride(from: 0, to: max(0, predicting), by: Self.scoredRows) {
            let count = min(Self.scoredRows, predicting - start)
            let part = (rows.lowerBound + start)..<(rows.lowerBound + start + count)
            let logits = try model.logits(output.hidden.value.slice(part), on: backend)
            let (values, width) = (logits.floats(), logits.columnCount)
            for row in 0..<count {
                let id = tokens[first + start + row + 1]
                let probabilities = LogProbabilities(Array(values[(row * width)..<((row + 1) * width)]))
                scores.append(
                    ScoredToken(
                        id: id, logProbability: probabilities[id],
                        alternatives: alternatives > 0 ? probabilities.top(alternatives) : []))
            }
        }
        guard !scores.isEmpty else { return }
        running[index].scored += scores.count
        events.append(Event(request: running[index].number, kind: .scored(scores)))
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

    /// The tokens to run now: one of every decoding sequence, and prompt tokens up to the limit per step.
    private func nextBatch() -> [(index: Int, tokens: [Int32])] {
        // With rotations that depend on the length, longer sequences than trained run alone and in one piece.
        let trained = model.configuration.maxPositionEmbeddings
        let long = running.indices.filter {
            model.rotationsDependOnLength && running[$0].cache.count + running[$0].pending.count > trained
        }
        // They take turns with each other and with the rest.
        if !long.isEmpty {
            turn += 1
            if long.count == running.count || turn % 2 == 0 {
                let alone = long[turn / 2 % long.count]
                return [(alone, running[alone].pending)]
            }
        }
        var batch: [(index: Int, tokens: [Int32])] = []
        var budget = limits.promptTokensPerStep
        for index in running.indices where !long.contains(index) {
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

    /// Assigns free slots to waiting requests, in order, except for those whose prompt is being processed as the
    /// prompt of another: they wait to share it.
    private func admit() {
        var place = 0
        while running.count < limits.sequences, place < waiting.count {
            if isBeingProcessed(waiting[place].request) {
                place += 1
                continue
            }
            var next = waiting.remove(at: place)
            takePrefix(&next)
            running.append(next)
        }
    }

    /// Whether a running prompt will soon have more of a request's keys and values than any other sequence has now.
    private func isBeingProcessed(_ request: GenerationRequest) -> Bool {
        guard canShare(request) else { return false }
        var promised = 0
        for other in running where other.promptEnd == nil && !other.isOver && canShare(other.request) {
            let shared = sharedPrefix(other.request.tokens, request)
            if shared >= limits.shortestPrefix, shared > other.cache.count, shared > promised,
                other.request.edit == request.edit
            {
                promised = shared
            }
        }
        guard promised > 0 else { return false }
        let known =
            (kept.map { ($0.cache, $0.edit) } + running.map { ($0.cache, $0.request.edit) })
            .map { min($0.0.count, sharedPrefix($0.0.tokens, request)) }.max() ?? 0
        return promised > known
    }

    /// The number of first tokens that a sequence has in common with a prompt, whose last token always runs.
    private func sharedPrefix(_ tokens: [Int32], _ request: GenerationRequest) -> Int {
        let most = min(tokens.count, request.tokens.count - 1)
        var place = 0
        while place < most, tokens[place] == request.tokens[place] { place += 1 }
        return place
    }

    /// Whether keys and values of other sequences can stand for a request's: not if every token has to run.
    private func canShare(_ request: GenerationRequest) -> Bool {
        let trained = model.rotationsDependOnLength ? model.configuration.maxPositionEmbeddings : .max
        return request.tokens.count <= trained && request.observed.isEmpty && !request.observesUnits
            && request.scoredAlternatives == nil
    }

    /// Reuses the keys and values of the longest prefix shared with another sequence of equal mask. The last
    /// token always runs, to have logits; so does every token of a request that observes something.
    private func takePrefix(_ next: inout Running) {
        let request = next.request
        let trained = model.rotationsDependOnLength ? model.configuration.maxPositionEmbeddings : .max
        guard canShare(request) else { return }
        let candidates = (kept + running.map { ($0.cache, $0.request.edit) }).filter {
            $0.cache.count <= trained && $0.edit == request.edit
        }
        let shared = candidates.map { sharedPrefix($0.cache.tokens, request) }
        guard let best = shared.indices.max(by: { shared[$0] < shared[$1] }),
            shared[best] >= limits.shortestPrefix
        else { return }
        next.cache = candidates[best].cache.prefix(shared[best])
        next.pending = Array(request.tokens.dropFirst(shared[best]))
        next.cached = shared[best]
        reusedTokens += shared[best]
    }

    /// Removes finished sequences and keeps their keys and values for prompts with the same prefix.
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
                            promptTokens: ended.request.tokens.count, cachedTokens: ended.cached,
                            tokens: ended.progress.tokens, text: "",
                            finishReason: ended.progress.finishReason ?? .length,
                            promptSeconds: (promptEnd - ended.start).seconds,
                            decodeSeconds: (.now - promptEnd).seconds))))
            if limits.keptPrefixes > 0, ended.cache.count >= limits.shortestPrefix {
                kept.append((ended.cache, ended.request.edit))
                if kept.count > limits.keptPrefixes { kept.removeFirst() }
            }
        }
        running.removeAll(where: \.isOver)
        waiting.removeAll(where: \.isOver)
    }
}
