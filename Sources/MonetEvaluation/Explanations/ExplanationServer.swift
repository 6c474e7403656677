import Foundation
import MonetFoundation
import MonetInsight

/// A language model behind an OpenAI-compatible server that reads contexts, explains experts, and judges contexts by an
/// explanation.
public struct ExplanationServer: Sendable {
    /// The server and how to send requests.
    public struct Settings: Sendable {
        /// The address up to and with `/v1`.
        public var url = "https://api.openai.com/v1"
        /// The model's name at the server.
        public var model = "gpt-4o-mini"
        /// The key, sent as a bearer token.
        public var key: String?
        /// Timeout of one request, in seconds.
        public var timeout = 120.0
        /// Attempts of one request.
        public var attempts = 4
        /// Seconds before the second attempt, doubled before each further one.
        public var backOff = 1.0
        /// Tokens that an answer may have.
        public var maxTokens = 1024
        /// Maximum requests per second; nil for no limit.
        public var requestsPerSecond: Double?

        /// OpenAI's server.
        public init() {}
    }

    /// The model's name.
    public let model: String
    private let service: RemoteService
    private let maxTokens: Int

    /// - `isCancelled`: called repeatedly while waiting.
    /// - `note`: called with the reason when a request is repeated.
    /// - Throws: `EvaluationError.invalidSetting` for an invalid URL.
    public init(
        _ settings: Settings, isCancelled: @escaping @Sendable () -> Bool = { false },
        note: @escaping @Sendable (String) -> Void = { _ in }
    ) throws {
        // Checked before the path is added, which would otherwise become the host of an address without one.
        guard URLComponents(string: settings.url)?.host?.isEmpty == false else {
            throw EvaluationError.invalidSetting(
                name: "the explainer's address", found: settings.url, expected: "an http or https URL")
        }
        var sending = RemoteService.Settings()
        (sending.timeout, sending.attempts) = (settings.timeout, settings.attempts)
        (sending.backOff, sending.requestsPerSecond) = (settings.backOff, settings.requestsPerSecond)
        let path = "/chat/completions"
        let base = settings.url.hasSuffix("/") ? String(settings.url.dropLast()) : settings.url
        service = try RemoteService(
            url: base.hasSuffix(path) ? base : base + path, role: "explainer",
            headers: settings.key.map { ["Authorization": "Bearer \($0)"] } ?? [:], settings: sending,
            isCancelled: isCancelled, note: note)
        (model, maxTokens) = (settings.model, settings.maxTokens)
    }

    /// The most bytes of an explanation that are kept.
    private static let longestExplanation = 2000

    /// An explanation of what marked contexts have in common, on one line.
    ///
    /// - Throws: `EvaluationError.serverFailed`, `CancellationError`.
    public func explanation(of contexts: [ScoredContext]) throws -> String {
        try service.post(body(Self.explanationPrompt(contexts))) { json in
            let words = Self.content(json)?.split(whereSeparator: \.isWhitespace) ?? []
            let text = words.joined(separator: " ").withoutControls
            guard !text.isEmpty else {
                return .unexpected("answered without choices[0].message.content")
            }
            // Models like to repeat the question's label.
            let plain = text.hasPrefix("EXPLANATION:") ? String(text.dropFirst(12)) : text
            return .value(String(plain.trimmingCharacters(in: .whitespaces).prefix(Self.longestExplanation)))
        }
    }

    /// Whether each of some texts fits an explanation.
    ///
    /// - `marked`: whether it is the token between `«` and `»` that must fit.
    /// - Throws: `EvaluationError.serverFailed`, `CancellationError`.
    public func judgements(of texts: [String], by explanation: String, marked: Bool) throws -> [Bool] {
        let prompt = Self.judgementPrompt(texts, explanation: explanation, marked: marked)
        return try service.post(body(prompt)) { json in
            guard let text = Self.content(json) else {
                return .unexpected("answered without choices[0].message.content")
            }
            guard let list = Self.judgements(in: text), list.count == texts.count else {
                let isCut = json?["choices"]?.arrayValue?.first?["finish_reason"] == "length"
                return .unexpected(
                    "answered without a list of \(texts.count) zeros and ones"
                        + (isCut ? ", cut off after \(maxTokens) tokens" : ""))
            }
            return .value(list)
        }
    }

    /// The last list of zeros and ones in a text: models think aloud before it.
    static func judgements(in text: String) -> [Bool]? {
        let lists = text.split(separator: "[", omittingEmptySubsequences: false).dropFirst().compactMap {
            part -> [Bool]? in
            guard let end = part.firstIndex(of: "]") else { return nil }
            let values = part[..<end].split(separator: ",").map {
                Int($0.trimmingCharacters(in: .whitespacesAndNewlines))
            }
            guard !values.isEmpty, values.allSatisfy({ $0 == 0 || $0 == 1 }) else { return nil }
            return values.map { $0 == 1 }
        }
        return lists.last
    }

    private static func content(_ json: JSONValue?) -> String? {
        json?["choices"]?.arrayValue?.first?["message"]?["content"]?.stringValue
    }

    private func body(_ prompt: String) -> JSONValue {
        [
            "model": .string(model), "temperature": 0, "max_tokens": .integer(maxTokens),
            "messages": [["role": "user", "content": .string(prompt)]],
        ]
    }

    static func explanationPrompt(_ contexts: [ScoredContext]) -> String {
        let lines = contexts.enumerated().map { number, context -> String in
            "\(number + 1). " + context.text { context.scores[$0] > 0 }.trimmingCharacters(in: .whitespaces)
        }
        return """
            A part of a language model is active on the tokens between « and » in the texts below, the strongest texts first. \
            It reads only what stands before and at a token. Say in one short sentence what these tokens, or their contexts, \
            have in common: a meaning, a topic, a form, or a place in the text. Do not mention the marks or the model, and \
            answer with the sentence alone.

            \(lines.joined(separator: "\n"))
            """
    }

    static func judgementPrompt(_ texts: [String], explanation: String, marked: Bool) -> String {
        let what = marked ? "the token between « and » of each text" : "some token of each text"
        let lines = texts.enumerated().map { "\($0 + 1). \($1)" }
        return """
            A part of a language model is active on tokens of which this description was written:
            \(explanation)

            Decide whether it is active on \(what) below. Answer with a list of \(texts.count) numbers in brackets, 1 for yes and 0 \
            for no, as [0, 1, …], and nothing else.

            \(lines.joined(separator: "\n"))
            """
    }
}
