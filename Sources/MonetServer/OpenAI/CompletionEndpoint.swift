import Foundation
import HTTPTypes
import Hummingbird
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

/// `POST /v1/completions`: prompts continued, scored, or both.
struct CompletionEndpoint: Sendable {
    static let schema = Schema.object(
        [
            .init(
                "prompt",
                .either([
                    .string(), .array(.integer(0...Int(Int32.max)), counts: 1...1_000_000),
                    .array(.string(), counts: 1...2048),
                    .array(.array(.integer(0...Int(Int32.max)), counts: 1...1_000_000), counts: 1...2048),
                ]),
                "A text, a list of texts, the ids of a text's tokens, or a list of such lists.",
                isRequired: true),
            .init("max_tokens", .integer(0...1_000_000), "Most tokens of an answer; 16 by default."),
            .init(
                "echo", .boolean,
                "Repeat the prompt before the answer; with logprobs, the prompt's tokens are scored."),
            .init(
                "logprobs", .integer(0...100),
                "Report the log-probability of every token, with this many of the most likely ones."),
            .init(
                "best_of", .integer(1...128),
                "Draw this many answers and send the n with the highest mean log-probability of a token."),
        ] + SamplingFields.fields)

    /// A checked request.
    struct Plan: TextPlan {
        var job: TextJob
        let echo: Bool
        /// Alternatives to report; nil for no log-probabilities.
        let logprobs: Int?
        let target: RequestTarget
        let answers: Int
        let candidates: Int
        let prompts: [Prompt]
    }

    /// A prompt's tokens.
    struct Prompt: Sendable {
        let tokens: [Int32]
        /// The text that echo repeats.
        let text: String
        /// Whether the first token is the begin token that the server added: context, no part of the text.
        let hidesFirst: Bool
    }

    /// Reads a checked body.
    static func plan(_ body: JSONValue, _ served: ServedModel) throws -> Plan {
        let target = try RequestTarget(body, served)
        let prompts = try Self.prompts(body["prompt"] ?? .null, served)
        let answers = body["n"]?.intValue ?? 1
        let candidates = body["best_of"]?.intValue ?? answers
        guard candidates >= answers else {
            throw APIError.invalid("best_of", "best_of is \(candidates), expected n = \(answers) or more")
        }
        guard candidates == answers || !target.isStreamed else {
            throw APIError.invalid("best_of", "best_of is larger than n, which cannot be streamed")
        }
        var settings = try SamplingFields.settings(body, served)
        settings.maxNewTokens = body["max_tokens"]?.intValue ?? 16
        let logprobs = body["logprobs"].flatMap(\.intValue)
        settings.topLogProbabilities = logprobs ?? 0
        let echo = body["echo"]?.boolValue ?? false
        let stops = try SamplingFields.stops(body, served)
        var requests: [TextRequest] = []
        for (index, prompt) in prompts.enumerated() {
            guard prompt.tokens.count <= served.contextLength else {
                throw APIError.invalid(
                    prompts.count > 1 ? "prompt[\(index)]" : "prompt",
                    "the prompt has \(prompt.tokens.count) tokens, the model's context holds "
                        + "\(served.contextLength); nothing was cut", code: "context_length_exceeded")
            }
            try target.monet.checkSize(
                tokens: prompt.tokens.count + settings.maxNewTokens, answers: candidates * prompts.count,
                served)
            for answer in 0..<candidates {
                var request = GenerationRequest(prompt.tokens, settings: settings, mask: target.mask)
                request.steering = target.monet.steering
                request.settings.sampling.seed &+= UInt64(answer)
                request.observed = Set(target.monet.hooks)
                if echo, let logprobs { request.scoredAlternatives = logprobs }
                var text = TextRequest(request, stopStrings: stops)
                text.units = target.monet.units
                requests.append(text)
            }
        }
        return Plan(
            job: TextJob(
                id: "cmpl-" + UUID().uuidString.lowercased(), created: Int(Date().timeIntervalSince1970),
                model: target.name, served: served, requests: requests,
                promptTokens: prompts.reduce(0) { $0 + $1.tokens.count },
                names: TokenNames(tokenizer: served.tokenizer), promptCount: prompts.count),
            echo: echo, logprobs: logprobs, target: target, answers: answers,
            candidates: candidates, prompts: prompts)
    }

    private static func prompts(_ value: JSONValue, _ served: ServedModel) throws -> [Prompt] {
        func ids(_ list: [JSONValue], _ place: String) throws -> Prompt {
            let vocabulary = served.model.configuration.vocabularySize
            let tokens = try list.enumerated().map { index, item in
                guard let id = item.intValue, (0..<vocabulary).contains(id) else {
                    throw APIError.invalid(
                        "\(place)[\(index)]",
                        "\(place)[\(index)] is \(item.serialized()), expected a token id below \(vocabulary)")
                }
                return Int32(id)
            }
            // A prompt that does not fit is refused below, and its text not needed.
            let fits = tokens.count <= served.contextLength
            return Prompt(
                tokens: tokens, text: fits ? try served.tokenizer.decode(tokens) : "", hidesFirst: false)
        }
        if let text = value.stringValue { return [try prompt(text, served, "prompt")] }
        let list = value.arrayValue ?? []
        if list.first?.intValue != nil { return [try ids(list, "prompt")] }
        return try list.enumerated().map { index, item in
            if let text = item.stringValue { return try prompt(text, served, "prompt[\(index)]") }
            return try ids(item.arrayValue ?? [], "prompt[\(index)]")
        }
    }

    /// The tokens of a text, after a begin token if the model's texts have one and this one does not begin with it.
    ///
    /// Clients that decode ids to a text before they send it write a space after the begin token, which some versions of
    /// transformers read back as no token and some as one: here it is none, so that such texts keep their ids.
    static func prompt(_ text: String, _ served: ServedModel, _ place: String) throws -> Prompt {
        // A text that is far too long is not encoded first, which takes seconds for megabytes. (Tokenizers may drop
        // spaces, so that the number of bytes alone is no proof.)
        guard text.utf8.count <= 8 * served.tokenizer.longestPiece * served.contextLength else {
            throw APIError.invalid(
                place,
                "\(place) has \(text.utf8.count) bytes, far more than the model's context of "
                    + "\(served.contextLength) tokens holds; nothing was cut", code: "context_length_exceeded"
            )
        }
        let begin = served.tokenizer.specialTokenTexts["bos_token"] ?? ""
        let isDecoded = !begin.isEmpty && text.hasPrefix(begin + " ")
        var tokens = try served.tokenizer.encode(
            isDecoded ? begin + text.dropFirst(begin.count + 1) : text, parsingSpecial: true)
        let addsBegin = served.tokenizer.addsBegin && tokens.first != served.tokenizer.beginID
        if addsBegin, let begin = served.tokenizer.beginID { tokens.insert(begin, at: 0) }
        guard !tokens.isEmpty else { throw APIError.invalid(place, "\(place) has no tokens") }
        return Prompt(tokens: tokens, text: text, hidesFirst: addsBegin)
    }
}

extension CompletionEndpoint.Plan {
    /// The whole answer.
    func answer() async throws -> JSONValue {
        let texts = try await job.finished()
        var choices: [JSONValue] = []
        var sent: [GenerationResult] = []
        for (place, prompt) in prompts.enumerated() {
            var own = Array(texts[(place * candidates)..<((place + 1) * candidates)])
            if candidates > answers {
                own = Array(own.sorted { $0.meanLogProbability > $1.meanLogProbability }.prefix(answers))
            }
            for text in own {
                choices.append(choice(text, prompt, index: choices.count))
                sent.append(text.result)
            }
        }
        var members = head("text_completion")
        members.append(.init("choices", .array(choices)))
        members.append(.init("usage", job.usage(texts.map(\.result))))
        return .object(members)
    }

    private func head(_ kind: String) -> [JSONValue.Member] {
        [
            .init("id", .string(job.id)), .init("object", .string(kind)),
            .init("created", .integer(job.created)),
            .init("model", .string(job.model)),
        ]
    }

    private func choice(_ text: FinishedText, _ prompt: CompletionEndpoint.Prompt, index: Int) -> JSONValue {
        var logs = CompletionLogProbabilities(job.names, alternatives: logprobs ?? 0)
        var offset = 0
        if echo, logprobs != nil { add(text.scored, prompt, to: &logs) }
        if echo { offset = prompt.text.unicodeScalars.count }
        var decoder = StreamingDecoder(tokenizer: job.served.tokenizer, continuing: true)
        for token in text.result.tokens {
            logs.add(token.id, token.logProbability, token.alternatives, offset: offset)
            offset += ((try? decoder.append(token.id)) ?? "").unicodeScalars.count
        }
        var members: [JSONValue.Member] = [
            .init("index", .integer(index)),
            .init("text", .string((echo ? prompt.text : "") + text.result.text)),
            .init("logprobs", logprobs == nil ? .null : logs.json),
            .init("finish_reason", .string(text.result.finishReason.rawValue)),
        ]
        if !text.observed.isEmpty { members.append(.init("monet", text.observed.json)) }
        return .object(members)
    }

    /// The prompt's tokens, each at its place in the prompt's text.
    private func add(
        _ scored: [ScoredToken], _ prompt: CompletionEndpoint.Prompt,
        to logs: inout CompletionLogProbabilities
    ) {
        var decoder = StreamingDecoder(tokenizer: job.served.tokenizer)
        var offset = 0
        for (place, token) in scored.enumerated() where place > 0 || !prompt.hidesFirst {
            logs.add(token.id, token.logProbability, token.alternatives, offset: offset)
            offset += ((try? decoder.append(token.id)) ?? "").unicodeScalars.count
        }
    }

    /// The answer in chunks.
    func stream(_ events: inout EventStream, releasing places: Admission.Places) async throws {
        var texts = job.requests.indices.map { StreamedText(self, prompts[$0 / candidates]) }
        var results = [GenerationResult?](repeating: nil, count: job.requests.count)
        func chunk(_ choices: [JSONValue], usage: JSONValue?) -> JSONValue {
            var members = head("text_completion")
            members.append(.init("choices", .array(choices)))
            if target.includesUsage { members.append(.init("usage", usage ?? .null)) }
            return .object(members)
        }
        try await job.forEachEvent(releasing: places) { index, event in
            if let choice = texts[index].choice(event, index: index) {
                try await events.send(chunk([choice], usage: nil))
            }
            if case .finished(let result) = event { results[index] = result }
        }
        if target.includesUsage {
            try await events.send(chunk([], usage: job.usage(results.compactMap { $0 })))
        }
    }

    /// What has been sent of a text.
    private struct StreamedText {
        private let plan: CompletionEndpoint.Plan
        private let prompt: CompletionEndpoint.Prompt
        private var logs: CompletionLogProbabilities
        private var scored: [ScoredToken] = []
        private var observed = ObservedTokens()
        private var offset = 0
        private var hasBegun = false
        private var decoder: StreamingDecoder

        init(_ plan: CompletionEndpoint.Plan, _ prompt: CompletionEndpoint.Prompt) {
            (self.plan, self.prompt) = (plan, prompt)
            logs = CompletionLogProbabilities(plan.job.names, alternatives: plan.logprobs ?? 0)
            decoder = StreamingDecoder(tokenizer: plan.job.served.tokenizer, continuing: true)
        }

        /// The choice to send for an event, if any.
        mutating func choice(_ event: TextEvent, index: Int) -> JSONValue? {
            var text = ""
            var reason: JSONValue = .null
            switch event {
            case .scored(let tokens):
                scored += tokens
                return nil
            case .ran(let positions, let units, let values):
                observed.add((positions, units, values))
                return nil
            case .step(let step):
                begin(&text)
                if let token = step.token {
                    logs.add(token.id, token.logProbability, token.alternatives, offset: offset)
                    offset += ((try? decoder.append(token.id)) ?? "").unicodeScalars.count
                }
                text += step.text
            case .finished(let result):
                begin(&text)
                reason = .string(result.finishReason.rawValue)
            }
            var members: [JSONValue.Member] = [
                .init("index", .integer(index)), .init("text", .string(text)),
                .init("logprobs", plan.logprobs == nil ? .null : logs.take()), .init("finish_reason", reason),
            ]
            if !observed.isEmpty { members.append(.init("monet", observed.take())) }
            return .object(members)
        }

        /// The prompt comes first, once.
        private mutating func begin(_ text: inout String) {
            guard !hasBegun else { return }
            hasBegun = true
            guard plan.echo else { return }
            text = prompt.text
            offset = prompt.text.unicodeScalars.count
            plan.add(scored, prompt, to: &logs)
            scored = []
        }
    }
}

extension FinishedText {
    /// Mean log-probability of the drawn tokens.
    fileprivate var meanLogProbability: Double {
        result.tokens.isEmpty
            ? -.infinity : result.tokens.reduce(0) { $0 + $1.logProbability } / Double(result.tokens.count)
    }
}
