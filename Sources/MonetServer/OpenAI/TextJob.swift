import HTTPTypes
import Hummingbird
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

/// All that happened to one text.
struct FinishedText: Sendable {
    var scored: [ScoredToken] = []
    var observed = ObservedTokens()
    var result: GenerationResult
}

/// What was observed while a text's tokens ran, in the form of answers.
struct ObservedTokens: Sendable {
    private var positions: [JSONValue] = []
    private var units: [JSONValue] = []
    private var values: [(name: String, shape: [Int], rows: [JSONValue])] = []

    var isEmpty: Bool { positions.isEmpty }

    mutating func add(
        _ event: (positions: Range<Int>, units: [[UnitScore]], values: [HookPoint: ObservedValues])
    ) {
        positions += event.positions.map { .integer($0) }
        units += event.units.map { scores in
            .array(
                scores.map {
                    [
                        "unit": .string("\($0.group)/\($0.index)"), "score": .number(Double($0.score)),
                    ]
                })
        }
        for (point, observed) in event.values.sorted(by: { $0.key.description < $1.key.description }) {
            let width = observed.shape.dropFirst().reduce(1, *)
            let rows = event.positions.indices.map { _ in }.indices.map { row -> JSONValue in
                .array(observed.values[(row * width)..<((row + 1) * width)].map { .number(Double($0)) })
            }
            if let place = values.firstIndex(where: { $0.name == point.description }) {
                values[place].rows += rows
            } else {
                values.append((point.description, Array(observed.shape.dropFirst()), rows))
            }
        }
    }

    /// `positions` of the tokens in prompt and answer, and what was observed at each.
    var json: JSONValue {
        var members: [JSONValue.Member] = [.init("positions", .array(positions))]
        if !units.isEmpty { members.append(.init("units", .array(units))) }
        if !values.isEmpty {
            members.append(
                .init(
                    "hidden_states",
                    .object(
                        values.map {
                            .init(
                                $0.name,
                                ["shape": .array($0.shape.map { .integer($0) }), "values": .array($0.rows)])
                        })))
        }
        return .object(members)
    }

    mutating func take() -> JSONValue {
        defer { self = ObservedTokens() }
        return json
    }
}

/// A request's texts, with what their answers need.
struct TextJob: Sendable {
    let id: String
    let created: Int
    let model: String
    let served: ServedModel
    /// One for each answer, in the order of their indices.
    let requests: [TextRequest]
    /// Tokens of all prompts, each counted once.
    let promptTokens: Int
    let names: TokenNames
    /// The number of prompts; every prompt has equally many answers.
    let promptCount: Int
    /// Called when the first token of a streamed answer has been drawn.
    var whenFirst: @Sendable () -> Void = {}

    /// Runs all texts to their end.
    func finished() async throws -> [FinishedText] {
        try await withThrowingTaskGroup(of: (Int, FinishedText).self) { group in
            for (index, request) in requests.enumerated() {
                let stream = served.generation.events(request)
                group.addTask { (index, try await Self.collect(stream)) }
            }
            var texts: [Int: FinishedText] = [:]
            for try await (index, text) in group { texts[index] = text }
            return requests.indices.compactMap { texts[$0] }
        }
    }

    private static func collect(_ stream: AsyncThrowingStream<TextEvent, any Error>) async throws
        -> FinishedText
    {
        var scored: [ScoredToken] = []
        var observed = ObservedTokens()
        for try await event in stream {
            switch event {
            case .scored(let tokens): scored += tokens
            case .ran(let positions, let units, let values): observed.add((positions, units, values))
            case .step: continue
            case .finished(let result):
                return FinishedText(scored: scored, observed: observed, result: result)
            }
        }
        throw CancellationError()
    }

    /// Calls `body` with every event of every text, in the order in which they happen.
    ///
    /// - `places`: given back when the texts have ended, however slowly `body` takes the events.
    func forEachEvent(
        releasing places: Admission.Places, _ body: (_ index: Int, _ event: TextEvent) async throws -> Void
    ) async throws {
        let (merged, continuation) = AsyncThrowingStream<(Int, TextEvent), any Error>.makeStream()
        let requests = requests
        let served = served
        let task = Task {
            defer { places.release() }
            do {
                try await withThrowingTaskGroup(of: Void.self) { group in
                    for (index, request) in requests.enumerated() {
                        let stream = served.generation.events(request)
                        group.addTask {
                            var isFinished = false
                            for try await event in stream {
                                if case .finished = event { isFinished = true }
                                continuation.yield((index, event))
                            }
                            if !isFinished { throw CancellationError() }
                        }
                    }
                    try await group.waitForAll()
                }
                continuation.finish()
            } catch {
                continuation.finish(throwing: error)
            }
        }
        try await withTaskCancellationHandler {
            defer { task.cancel() }
            var isFirst = true
            for try await (index, event) in merged {
                if case .step = event, isFirst {
                    isFirst = false
                    whenFirst()
                }
                try await body(index, event)
            }
            try Task.checkCancellation()
        } onCancel: {
            task.cancel()
        }
    }

    /// OpenAI's account of the tokens.
    func usage(_ results: [GenerationResult]) -> JSONValue {
        let drawn = results.reduce(0) { $0 + $1.tokens.count }
        let answers = max(1, results.count / max(1, promptCount))
        let cached = stride(from: 0, to: results.count, by: answers).reduce(0) {
            $0 + results[$1].cachedTokens
        }
        return [
            "prompt_tokens": .integer(promptTokens), "completion_tokens": .integer(drawn),
            "total_tokens": .integer(promptTokens + drawn),
            "prompt_tokens_details": ["cached_tokens": .integer(cached)],
        ]
    }
}

extension APIError {
    /// The answer to an error of the engine.
    init(engine error: any Error) {
        switch error {
        case let error as APIError: self = error
        case let error as ModelError:
            switch error {
            case .contextExceeded(let tokens, let context):
                self = .invalid(
                    "prompt",
                    "the prompt has \(tokens) tokens, the model's context holds \(context); nothing was cut",
                    code: "context_length_exceeded")
            case .invalidInput(let reason): self = .invalid("monet", reason)
            default: self = APIError(.internalServerError, "\(error)")
            }
        case let error as GenerationError:
            switch error {
            case .emptyPrompt: self = .invalid("prompt", "the prompt has no tokens")
            case .invalidToken(let id, let size):
                self = .invalid("prompt", "token \(id) is not in the model's vocabulary of \(size)")
            case .invalidSetting(let name, let found, let expected):
                self = .invalid(
                    name.replacing("-", with: "_"), "\(name) is \(found), expected \(expected)")
            case .stopped: self = Admission.stopping
            default: self = APIError(.internalServerError, "\(error)")
            }
        case let error as TextError: self = .invalid("prompt", "\(error)")
        default: self = APIError(.internalServerError, "\(error)")
        }
    }
}
