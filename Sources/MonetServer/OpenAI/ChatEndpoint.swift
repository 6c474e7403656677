import Foundation
import HTTPTypes
import Hummingbird
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

/// `POST /v1/chat/completions`: conversations continued.
struct ChatEndpoint: Sendable {
    static let message = Schema.object([
        .init(
            "role", .string(enumeration: ["system", "developer", "user", "assistant", "tool"]),
            "Who says it.", isRequired: true),
        .init(
            "content",
            .either([
                .string(),
                .array(
                    .object([
                        .init("type", .string(enumeration: ["text"]), "Texts only.", isRequired: true),
                        .init("text", .string(), "The text.", isRequired: true),
                    ]), counts: 1...1024),
            ]), "What is said: a text, or its parts.", isRequired: true),
        .init("name", .string(), "The speaker's name, for templates that use it."),
    ])

    static let schema = Schema.object(
        [
            .init(
                "messages", .array(message, counts: 1...4096), "The conversation so far.", isRequired: true),
            .init(
                "max_tokens", .integer(0...1_000_000),
                "Most tokens of an answer; what the context leaves by default."),
            .init("max_completion_tokens", .integer(0...1_000_000), "The same, by its newer name."),
            .init("logprobs", .boolean, "Report the log-probability of every token."),
            .init("top_logprobs", .integer(0...100), "With logprobs: this many of the most likely tokens."),
            .init(
                "response_format",
                .object([.init("type", .string(enumeration: ["text"]), "Text only.", isRequired: true)]),
                "The form of the answer."),
        ] + SamplingFields.fields)

    /// A checked request.
    struct Plan: TextPlan {
        var job: TextJob
        let logprobs: Int?
        let target: RequestTarget
    }

    /// Reads a checked body.
    static func plan(_ body: JSONValue, _ served: ServedModel) throws -> Plan {
        let target = try RequestTarget(body, served)
        let prompt = try PromptTemplate(served).prompt(body["messages"] ?? .null)
        guard prompt.tokens.count <= served.contextLength else {
            throw APIError.invalid(
                "messages",
                "the conversation has \(prompt.tokens.count) tokens, the model's context holds "
                    + "\(served.contextLength); nothing was cut", code: "context_length_exceeded")
        }
        let limits = ["max_tokens", "max_completion_tokens"].compactMap { body[$0]?.intValue }
        if limits.count == 2, limits[0] != limits[1] {
            throw APIError.invalid(
                "max_tokens", "max_tokens is \(limits[0]) and max_completion_tokens \(limits[1]); give one")
        }
        let asked = body["logprobs"]?.boolValue ?? false
        let alternatives = body["top_logprobs"]?.intValue
        if alternatives != nil, !asked {
            throw APIError.invalid("top_logprobs", "top_logprobs needs logprobs to be true")
        }
        var settings = try SamplingFields.settings(body, served)
        settings.maxNewTokens = limits.first ?? max(0, served.contextLength - prompt.tokens.count)
        settings.topLogProbabilities = alternatives ?? 0
        try target.monet.checkSize(
            tokens: prompt.tokens.count + settings.maxNewTokens, answers: body["n"]?.intValue ?? 1, served)
        var stops = try SamplingFields.stops(body, served) + prompt.stops
        prompt.end?.add(to: &settings, &stops, for: served.model.configuration)
        let requests = (0..<(body["n"]?.intValue ?? 1)).map { answer in
            var request = GenerationRequest(prompt.tokens, settings: settings, mask: target.mask)
            request.steering = target.monet.steering
            request.settings.sampling.seed &+= UInt64(answer)
            request.observed = Set(target.monet.hooks)
            var text = TextRequest(request, stopStrings: stops)
            text.units = target.monet.units
            return text
        }
        return Plan(
            job: TextJob(
                id: "chatcmpl-" + UUID().uuidString.lowercased(), created: Int(Date().timeIntervalSince1970),
                model: target.name, served: served, requests: requests, promptTokens: prompt.tokens.count,
                names: TokenNames(tokenizer: served.tokenizer), promptCount: 1),
            logprobs: asked ? alternatives ?? 0 : nil, target: target)
    }
}

/// Writes conversations as prompts: with the checkpoint's template, or plainly where it has none.
struct PromptTemplate {
    private let served: ServedModel

    init(_ served: ServedModel) { self.served = served }

    /// A conversation's text, its tokens, and what ends an answer besides the model's own tokens.
    struct Prompt {
        let text: String
        let tokens: [Int32]
        let stops: [String]
        let end: AnswerEnd?
    }

    /// - Throws: `APIError` if the template does not accept the messages.
    func prompt(_ messages: JSONValue, addsGenerationPrompt: Bool = true) throws -> Prompt {
        let list = (messages.arrayValue ?? []).map(Self.joined)
        guard let source = served.tokenizer.chatTemplate else {
            let text = Self.plain(list, addsGenerationPrompt)
            return Prompt(
                text: text, tokens: try CompletionEndpoint.prompt(text, served, "messages").tokens,
                stops: ["\nUser:", "\nSystem:"], end: nil)
        }
        do {
            let template = try ChatTemplate(source)
            let text = try template.render(
                messages: .array(list), addGenerationPrompt: addsGenerationPrompt,
                specialTokens: served.tokenizer.specialTokenTexts)
            let tokens = try served.tokenizer.encode(text, parsingSpecial: true)
            guard !tokens.isEmpty else {
                throw APIError.invalid("messages", "the chat template makes an empty prompt of the messages")
            }
            return Prompt(
                text: text, tokens: tokens, stops: [], end: AnswerEnd(template, served.tokenizer))
        } catch let error as TextError {
            throw APIError.invalid("messages", "\(error)")
        }
    }

    /// A message with its parts joined to one text, as templates expect it.
    private static func joined(_ message: JSONValue) -> JSONValue {
        .object(
            (message.members ?? []).compactMap { member in
                if member.value.isNull { return nil }
                guard member.key == "content", let parts = member.value.arrayValue else { return member }
                return .init("content", .string(parts.compactMap { $0["text"]?.stringValue }.joined()))
            })
    }

    /// Base models have no template: they continue a conversation that is written like one.
    private static func plain(_ messages: [JSONValue], _ addsGenerationPrompt: Bool) -> String {
        let turns = messages.map { message in
            let role = message["role"]?.stringValue ?? ""
            let name = ["developer": "System", "system": "System", "assistant": "Assistant", "tool": "Tool"][
                role]
            return "\(name ?? "User"): \(message["content"]?.stringValue ?? "")"
        }
        return (turns + (addsGenerationPrompt ? ["Assistant:"] : [])).joined(separator: "\n")
    }
}

extension ChatEndpoint.Plan {
    private func head(_ kind: String) -> [JSONValue.Member] {
        [
            .init("id", .string(job.id)), .init("object", .string(kind)),
            .init("created", .integer(job.created)),
            .init("model", .string(job.model)),
        ]
    }

    /// The whole answer.
    func answer() async throws -> JSONValue {
        let texts = try await job.finished()
        let logs = ChatLogProbabilities(names: job.names, alternatives: logprobs ?? 0)
        let choices = texts.enumerated().map { index, text -> JSONValue in
            var members: [JSONValue.Member] = [
                .init("index", .integer(index)),
                .init(
                    "message", ["role": "assistant", "content": .string(text.result.text), "refusal": .null]),
                .init(
                    "logprobs",
                    logprobs == nil
                        ? .null : ["content": .array(text.result.tokens.map(logs.json)), "refusal": .null]),
                .init("finish_reason", .string(text.result.finishReason.rawValue)),
            ]
            if !text.observed.isEmpty { members.append(.init("monet", text.observed.json)) }
            return .object(members)
        }
        var members = head("chat.completion")
        members.append(.init("choices", .array(choices)))
        members.append(.init("usage", job.usage(texts.map(\.result))))
        return .object(members)
    }

    /// The answer in chunks.
    func stream(_ events: inout EventStream, releasing places: Admission.Places) async throws {
        let logs = ChatLogProbabilities(names: job.names, alternatives: logprobs ?? 0)
        var results = [GenerationResult?](repeating: nil, count: job.requests.count)
        var observed = job.requests.map { _ in ObservedTokens() }
        func chunk(_ choices: [JSONValue], usage: JSONValue?) -> JSONValue {
            var members = head("chat.completion.chunk")
            members.append(.init("choices", .array(choices)))
            if target.includesUsage { members.append(.init("usage", usage ?? .null)) }
            return .object(members)
        }
        func choice(
            _ index: Int, _ delta: JSONValue, _ token: GeneratedToken? = nil, _ reason: JSONValue = .null
        )
            -> JSONValue
        {
            var members: [JSONValue.Member] = [
                .init("index", .integer(index)), .init("delta", delta),
                .init(
                    "logprobs",
                    logprobs == nil
                        ? .null : ["content": .array(token.map { [logs.json($0)] } ?? []), "refusal": .null]),
                .init("finish_reason", reason),
            ]
            if !observed[index].isEmpty { members.append(.init("monet", observed[index].take())) }
            return .object(members)
        }
        for index in job.requests.indices {
            try await events.send(chunk([choice(index, ["role": "assistant", "content": ""])], usage: nil))
        }
        try await job.forEachEvent(releasing: places) { index, event in
            switch event {
            case .scored: return
            case .ran(let positions, let units, let values): observed[index].add((positions, units, values))
            case .step(let step):
                try await events.send(
                    chunk([choice(index, ["content": .string(step.text)], step.token)], usage: nil))
            case .finished(let result):
                results[index] = result
                let reason = JSONValue.string(result.finishReason.rawValue)
                try await events.send(chunk([choice(index, [:], nil, reason)], usage: nil))
            }
        }
        if target.includesUsage {
            try await events.send(chunk([], usage: job.usage(results.compactMap { $0 })))
        }
    }
}
