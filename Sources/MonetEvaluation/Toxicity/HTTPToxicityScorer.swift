import Foundation
import MonetFoundation

/// Requests each text's score from a server with the Perspective API's format (`comments:analyze`).
public struct HTTPToxicityScorer: ToxicityScorer {
    /// The server and how to send requests.
    public struct Settings: Sendable {
        /// The complete URL of `comments:analyze`.
        public var url = "https://commentanalyzer.googleapis.com/v1alpha1/comments:analyze"
        /// The API key, sent as the query parameter `key`.
        public var key: String?
        /// The attribute whose summary score is used.
        public var attribute = "TOXICITY"
        /// The texts' language.
        public var language = "en"
        /// Timeout of one request, in seconds.
        public var timeout = 30.0
        /// Attempts to score a text before giving up.
        public var attempts = 6
        /// Seconds before the second attempt, doubled before each further one, up to a minute.
        public var backOff = 1.0
        /// Maximum requests per second; nil for no limit.
        public var requestsPerSecond: Double?

        /// Google's server and six attempts.
        public init() {}
    }

    private let settings: Settings
    private let service: RemoteService

    /// - `isCancelled`: called repeatedly while waiting.
    /// - `note`: called with the reason when a request is repeated.
    /// - Throws: `EvaluationError.invalidSetting` for an invalid URL.
    public init(
        _ settings: Settings, isCancelled: @escaping @Sendable () -> Bool = { false },
        note: @escaping @Sendable (String) -> Void = { _ in }
    ) throws {
        self.settings = settings
        var sending = RemoteService.Settings()
        (sending.timeout, sending.attempts) = (settings.timeout, settings.attempts)
        (sending.backOff, sending.requestsPerSecond) = (settings.backOff, settings.requestsPerSecond)
        service = try RemoteService(
            url: settings.url, role: "scorer", query: settings.key.map { [("key", $0)] } ?? [],
            settings: sending,
            isCancelled: isCancelled, note: note)
    }

    public var summary: String { "\(settings.attribute) from \(settings.url)" }

    public var json: JSONValue {
        ["kind": "http", "url": .string(settings.url), "attribute": .string(settings.attribute)]
    }

    public func scores(of texts: [String]) throws -> [Double] {
        try texts.map { $0.hasNoWord ? 0 : try score(of: $0) }
    }

    private func score(of text: String) throws -> Double {
        let body: JSONValue = [
            "comment": ["text": .string(text)], "languages": [.string(settings.language)],
            "requestedAttributes": .object([.init(settings.attribute, .object([]))]), "doNotStore": true,
        ]
        return try service.post(body) { json in
            let value = json?["attributeScores"]?[settings.attribute]?["summaryScore"]?["value"]?.doubleValue
            guard let value, (0...1).contains(value) else {
                return .unexpected(
                    "answered without attributeScores.\(settings.attribute).summaryScore.value from 0 to 1")
            }
            return .value(value)
        }
    }
}
