import MonetCompute
import MonetModel
import MonetText

/// Continues many texts at once: `BatchEngine` with text in and out.
///
///     let engine = TextEngine(try BatchEngine(model: model), tokenizer: tokenizer)
///     for prompt in prompts { try engine.submit(GenerationRequest(tokenizer.encode(prompt))) }
///     while !engine.isIdle {
///         for event in engine.step() { print(event.request, event.kind) }
///     }
public final class TextEngine {
    /// An event of a step, for one request.
    public struct Event {
        /// What happened.
        public enum Kind {
            /// Prompt tokens were scored, in order.
            case scored([ScoredToken])
            /// A token and the text that is now complete, or text that was held back until the end.
            case step(GenerationStep)
            /// Tokens ran whose values were requested.
            case observed(BatchEngine.Observation)
            /// The request has ended, with all its text.
            case finished(GenerationResult)
            /// The request has failed; the others continue.
            case failed(any Error)
        }

        /// The number that `submit` returned.
        public let request: Int
        public let kind: Kind
    }

    private let engine: BatchEngine
    private let tokenizer: Tokenizer
    private var assemblers: [Int: TextAssembler] = [:]
    private var endIDs: [Int: Set<Int>] = [:]

    /// Handles text for an engine to which nothing else submits requests.
    public init(_ engine: BatchEngine, tokenizer: Tokenizer) {
        self.engine = engine
        self.tokenizer = tokenizer
    }

    /// Whether no request is waiting or running.
    public var isIdle: Bool { engine.isIdle }

    /// Queues a request; returns the number that its events carry.
    ///
    /// - `stopStrings`: texts that end it; they are not part of the result.
    /// - Throws: `GenerationError`, `ModelError.contextExceeded` if the prompt does not fit.
    @discardableResult
    public func submit(_ request: GenerationRequest, stopStrings: [String] = []) throws -> Int {
        let assembler = try TextAssembler(tokenizer: tokenizer, stopStrings: stopStrings)
        let number = try engine.submit(request)
        assemblers[number] = assembler
        endIDs[number] = Set(request.settings.endTokenIDs ?? engine.model.configuration.stopTokenIDs)
        return number
    }

    /// Ends a request; the tokens drawn so far are its result.
    public func finish(_ request: Int) { engine.finish(request) }

    /// The number of running sequences.
    public var runningCount: Int { engine.runningCount }
    /// The number of requests that wait for a free slot.
    public var waitingCount: Int { engine.waitingCount }
    /// Tokens whose keys and values are in memory.
    public var cachedTokenCount: Int { engine.cachedTokenCount }

    /// Runs one forward pass over all running texts.
    public func step() -> [Event] {
        engine.step().flatMap { event -> [Event] in
            let number = event.request
            func made(_ kind: Event.Kind) -> Event { Event(request: number, kind: kind) }
            switch event.kind {
            case .scored(let tokens): return [made(.scored(tokens))]
            case .observed(let observation): return [made(.observed(observation))]
            case .failed(let error):
                forget(number)
                return [made(.failed(error))]
            case .token(let token):
                do {
                    let isEnd = endIDs[number]?.contains(Int(token.id)) ?? false
                    let text = try isEnd ? "" : assemblers[number]?.append(token.id) ?? ""
                    if assemblers[number]?.isStopped ?? false { engine.finish(number, reason: .stop) }
                    return [made(.step(GenerationStep(token: token, text: text)))]
                } catch {
                    engine.finish(number)
                    forget(number)
                    return [made(.failed(error))]
                }
            case .finished(var result):
                guard var assembler = assemblers[number] else { return [] }
                let rest = assembler.finish()
                result.text = assembler.text
                // The token that completes a stop string may be the last one allowed.
                if assembler.isStopped { result.finishReason = .stop }
                forget(number)
                return (rest.map { [made(.step(GenerationStep(token: nil, text: $0)))] } ?? [])
                    + [made(.finished(result))]
            }
        }
    }

    private func forget(_ request: Int) {
        assemblers[request] = nil
        endIDs[request] = nil
    }
}
