import Foundation
import MonetCompute
import MonetModel
import MonetText
import Synchronization

/// A text to continue by `GenerationService`, and what to report of it.
public struct TextRequest: Sendable {
    /// The tokens, and how they are continued.
    public var generation: GenerationRequest
    /// Texts that end the continuation.
    public var stopStrings: [String]
    /// Which scores of units the events carry.
    public var units: UnitSelection?

    /// Which scores of units are reported for every token that runs.
    public enum UnitSelection: Sendable, Equatable {
        /// The highest scores of every group.
        case highest(Int)
        /// The scores of some units, by group and index, 0 where they do not fire.
        case of([(group: Int, index: Int)])

        public static func == (left: Self, right: Self) -> Bool {
            switch (left, right) {
            case (.highest(let a), .highest(let b)): a == b
            case (.of(let a), .of(let b)): a.map { [$0.group, $0.index] } == b.map { [$0.group, $0.index] }
            default: false
            }
        }
    }

    /// A request without observations.
    public init(_ generation: GenerationRequest, stopStrings: [String] = []) {
        self.generation = generation
        self.stopStrings = stopStrings
    }
}

/// A unit's score on a token.
public struct UnitScore: Sendable, Equatable {
    /// The unit's group and its index there.
    public let group: Int
    public let index: Int
    /// The routing score of an expert, Σ_h ĝ1 ĝ2 times its strength, or the activation of a neuron.
    public let score: Float

    /// A score of a unit.
    public init(group: Int, index: Int, score: Float) {
        self.group = group
        self.index = index
        self.score = score
    }
}

/// What happens to one text of a `GenerationService`.
public enum TextEvent: Sendable {
    /// Prompt tokens were scored, in order.
    case scored([ScoredToken])
    /// Tokens ran: the scores of units on each, and values at hook points, `[tokens, …]`.
    case ran(positions: Range<Int>, units: [[UnitScore]], values: [HookPoint: ObservedValues])
    /// A token and the text that is now complete, or text that was held back until the end.
    case step(GenerationStep)
    /// The text has ended.
    case finished(GenerationResult)
}

/// Values at a hook point, in host memory.
public struct ObservedValues: Sendable, Equatable {
    /// The shape; the first extent counts tokens.
    public let shape: [Int]
    /// The values in row-major order.
    public let values: [Float]
}

/// Continues many texts at once on a thread of its own, each as an asynchronous stream of events.
///
///     let service = try GenerationService(model: model, tokenizer: tokenizer)
///     for try await event in service.events(TextRequest(GenerationRequest(ids))) {
///         if case .step(let step) = event { print(step.text, terminator: "") }
///     }
///
/// A text ends within one step when its stream is dropped or its task is cancelled. Events wait in the stream of a
/// slow reader, at most one for every token of its text, and hold back nobody else.
public final class GenerationService: Sendable {
    /// What the service is doing.
    public struct Status: Sendable {
        /// Texts that run, and texts that wait.
        public var running = 0
        public var waiting = 0
        /// Tokens whose keys and values are in memory.
        public var cachedTokens = 0
        /// Tokens of prompts so far, those of them that were not computed again, and tokens drawn.
        public var promptTokens = 0
        public var reusedTokens = 0
        public var drawnTokens = 0
        /// Forward passes so far, and the seconds that they took.
        public var steps = 0
        public var stepSeconds = 0.0
        /// Texts that have ended, by their reason; failed ones under "error".
        public var ended: [String: Int] = [:]
        /// When the current pass began; nil while there is nothing to do.
        public var stepBegan: ContinuousClock.Instant?
        /// Whether the service has stopped.
        public var hasStopped = false

        /// Seconds since the current pass began; 0 while there is nothing to do.
        public var secondsInStep: Double { stepBegan.map { (.now - $0).seconds } ?? 0 }
    }

    private struct Inbox {
        var submitted: [(ticket: Int, request: TextRequest)] = []
        var cancelled: [Int] = []
        var isStopping = false
    }

    private struct Shared {
        var inbox = Inbox()
        var status = Status()
        var tickets = 0
        var streams: [Int: AsyncThrowingStream<TextEvent, any Error>.Continuation] = [:]
    }

    /// The model.
    public let model: MonetLanguageModel
    private let shared = Mutex(Shared())
    private let signal = NSCondition()

    /// Starts the thread.
    ///
    /// - Parameters: as those of `BatchEngine`.
    /// - Throws: `GenerationError.invalidSetting`.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer, backend: any Backend = CPUBackend(),
        limits: BatchEngine.Limits = BatchEngine.Limits(), contextLength: Int? = nil,
        cacheType: DType = .float32
    ) throws {
        self.model = model
        let engine = try BatchEngine(
            model: model, backend: backend, limits: limits, contextLength: contextLength,
            cacheType: cacheType)
        // The engine is handed over to the thread, and nothing else keeps it.
        nonisolated(unsafe) let texts = TextEngine(engine, tokenizer: tokenizer)
        let thread = Thread { [weak self] in Self.run(texts, { self }) }
        thread.name = "monet-generation"
        thread.stackSize = 1 << 23
        thread.start()
    }

    deinit {
        stop()
        end()
    }

    /// What the service is doing now.
    public var status: Status { shared.withLock { $0.status } }

    /// Ends all texts and the thread.
    public func stop() {
        shared.withLock { $0.inbox.isStopping = true }
        wake()
    }

    /// Continues a text. Its events begin with the prompt's and end with `finished`; an error ends the stream.
    public func events(_ request: TextRequest) -> AsyncThrowingStream<TextEvent, any Error> {
        let (stream, continuation) = AsyncThrowingStream<TextEvent, any Error>.makeStream()
        let ticket: Int? = shared.withLock { shared in
            guard !shared.inbox.isStopping, !shared.status.hasStopped else { return nil }
            shared.tickets += 1
            shared.streams[shared.tickets] = continuation
            shared.inbox.submitted.append((shared.tickets, request))
            shared.status.waiting += 1
            return shared.tickets
        }
        guard let ticket else {
            continuation.finish(throwing: GenerationError.stopped)
            return stream
        }
        // The stream keeps the service, so that it may be all that is left of it.
        continuation.onTermination = { [self] reason in
            guard case .cancelled = reason else { return }
            shared.withLock { $0.inbox.cancelled.append(ticket) }
            wake()
        }
        wake()
        return stream
    }

    private func wake() {
        signal.lock()
        signal.signal()
        signal.unlock()
    }

    // MARK: The thread

    /// What the thread knows of the texts that it runs.
    private struct Texts {
        var tickets: [Int: Int] = [:]
        var numbers: [Int: Int] = [:]
        var selections: [Int: TextRequest.UnitSelection] = [:]

        mutating func add(_ number: Int, ticket: Int, _ selection: TextRequest.UnitSelection?) {
            (tickets[number], numbers[ticket], selections[number]) = (ticket, number, selection)
        }

        mutating func remove(_ number: Int) {
            if let ticket = tickets.removeValue(forKey: number) { numbers[ticket] = nil }
            selections[number] = nil
        }
    }

    private static func run(_ engine: TextEngine, _ service: () -> GenerationService?) {
        var texts = Texts()
        while true {
            // The service is not kept while the thread waits, so that dropping it ends the thread.
            guard let current = service(), current.takeWork(engine, &texts) else { break }
            if engine.isIdle {
                current.shared.withLock { $0.status.stepBegan = nil }
                current.waitForWork()
                continue
            }
            let began = ContinuousClock.now
            current.shared.withLock { $0.status.stepBegan = began }
            let events = engine.step()
            current.deliver(events, engine, &texts, seconds: (.now - began).seconds)
        }
        service()?.end()
    }

    private func waitForWork() {
        signal.lock()
        defer { signal.unlock() }
        let isEmpty = shared.withLock {
            $0.inbox.submitted.isEmpty && $0.inbox.cancelled.isEmpty && !$0.inbox.isStopping
        }
        // Waits are short, so that a service that nothing holds any more is noticed.
        if isEmpty { _ = signal.wait(until: Date(timeIntervalSinceNow: 0.5)) }
    }

    /// Submits and cancels what was asked for since the last step; false when the service stops.
    private func takeWork(_ engine: TextEngine, _ texts: inout Texts) -> Bool {
        let inbox = shared.withLock { shared in
            defer {
                shared.inbox.submitted = []
                shared.inbox.cancelled = []
            }
            return shared.inbox
        }
        if inbox.isStopping { return false }
        var cancelled = Set(inbox.cancelled)
        for (ticket, request) in inbox.submitted {
            if cancelled.remove(ticket) != nil {
                forget(ticket)
                continue
            }
            do {
                var generation = request.generation
                generation.observesUnits = request.units != nil
                let number = try engine.submit(generation, stopStrings: request.stopStrings)
                texts.add(number, ticket: ticket, request.units)
            } catch {
                finish(ticket, error)
            }
        }
        for number in cancelled.compactMap({ texts.numbers[$0] }) { engine.finish(number) }
        shared.withLock { $0.status.waiting = engine.waitingCount + $0.inbox.submitted.count }
        return true
    }

    private func deliver(
        _ events: [TextEngine.Event], _ engine: TextEngine, _ texts: inout Texts, seconds: Double
    ) {
        var drawn = 0
        for event in events {
            guard let ticket = texts.tickets[event.request] else { continue }
            switch event.kind {
            case .scored(let tokens): send(.scored(tokens), to: ticket)
            case .step(let step):
                if step.token != nil { drawn += 1 }
                send(.step(step), to: ticket)
            case .observed(let observation):
                send(Self.snapshot(observation, texts.selections[event.request]), to: ticket)
            case .finished(let result):
                texts.remove(event.request)
                send(.finished(result), to: ticket)
                shared.withLock {
                    $0.status.promptTokens += result.promptTokens
                    $0.status.reusedTokens += result.cachedTokens
                }
                finish(ticket, nil, reason: result.finishReason.rawValue)
            case .failed(let error):
                texts.remove(event.request)
                finish(ticket, error)
            }
        }
        shared.withLock {
            $0.status.running = engine.runningCount
            $0.status.waiting = engine.waitingCount + $0.inbox.submitted.count
            $0.status.cachedTokens = engine.cachedTokenCount
            $0.status.drawnTokens += drawn
            $0.status.steps += 1
            $0.status.stepSeconds += seconds
        }
    }

    private func send(_ event: TextEvent, to ticket: Int) {
        _ = shared.withLock { $0.streams[ticket] }?.yield(event)
    }

    private func finish(_ ticket: Int, _ error: (any Error)?, reason: String = "error") {
        let stream = forget(ticket)
        shared.withLock { $0.status.ended[reason, default: 0] += 1 }
        if let error { stream?.finish(throwing: error) } else { stream?.finish() }
    }

    @discardableResult
    private func forget(_ ticket: Int) -> AsyncThrowingStream<TextEvent, any Error>.Continuation? {
        shared.withLock { $0.streams.removeValue(forKey: ticket) }
    }

    /// Ends what is left when the thread ends.
    private func end() {
        let streams = shared.withLock { shared in
            shared.status.hasStopped = true
            defer { shared.streams = [:] }
            return shared.streams.values.map { $0 }
        }
        for stream in streams { stream.finish(throwing: GenerationError.stopped) }
    }

    /// An observation cut to what was asked for, in host memory.
    private static func snapshot(
        _ observation: BatchEngine.Observation, _ selection: TextRequest.UnitSelection?
    ) -> TextEvent {
        var units = Array(repeating: [UnitScore](), count: selection == nil ? 0 : observation.rows.count)
        for activations in observation.groups {
            guard let selection else { break }
            var reader = activations.reader()
            for (place, row) in observation.rows.enumerated() {
                switch selection {
                case .highest(let count):
                    var scores: [UnitScore] = []
                    reader.visit(row) { unit, score in
                        scores.append(UnitScore(group: activations.group, index: unit, score: score))
                    }
                    scores.sort { ($1.score, $0.index) < ($0.score, $1.index) }
                    units[place] += scores.prefix(count)
                case .of(let wanted):
                    let own = wanted.filter { $0.group == activations.group }.map(\.index)
                    guard !own.isEmpty else { continue }
                    var found = Dictionary(
                        own.map { ($0, Float(0)) }, uniquingKeysWith: { first, _ in first })
                    reader.visit(row) { unit, score in if found[unit] != nil { found[unit] = score } }
                    units[place] += own.map {
                        UnitScore(group: activations.group, index: $0, score: found[$0] ?? 0)
                    }
                }
            }
        }
        return .ran(
            positions: observation.positions, units: units,
            values: observation.values.mapValues { ObservedValues(shape: $0.shape, values: $0.floats()) })
    }
}
