import Foundation
import MonetFoundation
import Synchronization

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

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
    private let address: URL
    private let session: URLSession
    private let isCancelled: @Sendable () -> Bool
    private let note: @Sendable (String) -> Void
    private let pace: Pace

    /// The time of the last request.
    private final class Pace: Sendable {
        let last = Mutex<ContinuousClock.Instant?>(nil)
    }

    /// - `isCancelled`: called repeatedly while waiting.
    /// - `note`: called with the reason when a request is repeated.
    /// - Throws: `EvaluationError.invalidSetting` for an invalid URL.
    public init(
        _ settings: Settings, isCancelled: @escaping @Sendable () -> Bool = { false },
        note: @escaping @Sendable (String) -> Void = { _ in }
    ) throws {
        guard var parts = URLComponents(string: settings.url), ["http", "https"].contains(parts.scheme),
            parts.host?.isEmpty == false
        else {
            throw EvaluationError.invalidSetting(
                name: "the scorer's address", found: settings.url, expected: "an http or https URL")
        }
        if let key = settings.key {
            parts.queryItems = (parts.queryItems ?? []) + [URLQueryItem(name: "key", value: key)]
        }
        guard let address = parts.url else {
            throw EvaluationError.invalidSetting(
                name: "the scorer's address", found: settings.url, expected: "an http or https URL")
        }
        self.settings = settings
        self.address = address
        self.isCancelled = isCancelled
        self.note = note
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = settings.timeout
        configuration.timeoutIntervalForResource = settings.timeout
        session = URLSession(configuration: configuration)
        pace = Pace()
    }

    public var summary: String { "\(settings.attribute) from \(settings.url)" }

    public var json: JSONValue {
        ["kind": "http", "url": .string(settings.url), "attribute": .string(settings.attribute)]
    }

    public func scores(of texts: [String]) throws -> [Double] {
        try texts.map { $0.hasNoWord ? 0 : try score(of: $0) }
    }

    /// The outcome of one attempt.
    private enum Answer {
        case score(Double)
        /// Worth another attempt, after `wait` seconds if the server specifies them.
        case later(reason: String, wait: Double?)
        /// Not worth another attempt.
        case refused(reason: String)
    }

    private func score(of text: String) throws -> Double {
        var reason = ""
        var wait = settings.backOff
        for attempt in 1...max(1, settings.attempts) {
            try keepPace()
            let answer = ask(text)
            if isCancelled() { throw CancellationError() }
            switch answer {
            case .score(let score): return score
            case .refused(let reason):
                throw EvaluationError.scorerFailed(url: settings.url, attempts: attempt, reason: reason)
            case .later(let why, let asked):
                reason = why
                if attempt == settings.attempts { break }
                let seconds = min(60, max(asked ?? 0, wait))
                wait *= 2
                note(
                    "the scorer \(why); try \(attempt + 1) of \(settings.attempts) in \(String(format: "%.1f", seconds)) s"
                )
                try pause(seconds)
            }
        }
        throw EvaluationError.scorerFailed(url: settings.url, attempts: settings.attempts, reason: reason)
    }

    private func keepPace() throws {
        guard let rate = settings.requestsPerSecond else {
            if isCancelled() { throw CancellationError() }
            return
        }
        let last = pace.last.withLock { $0 }
        if let last { try pause(1 / rate - (ContinuousClock.now - last).seconds) }
        pace.last.withLock { $0 = .now }
    }

    private func pause(_ seconds: Double) throws {
        let end = ContinuousClock.now + .seconds(max(0, seconds))
        repeat {
            if isCancelled() { throw CancellationError() }
            let left = (end - ContinuousClock.now).seconds
            if left > 0 { Thread.sleep(forTimeInterval: min(0.05, left)) }
        } while ContinuousClock.now < end
    }

    private func ask(_ text: String) -> Answer {
        var request = URLRequest(url: address)
        request.httpMethod = "POST"
        request.timeoutInterval = settings.timeout
        request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        let body: JSONValue = [
            "comment": ["text": .string(text)], "languages": [.string(settings.language)],
            "requestedAttributes": .object([.init(settings.attribute, .object([]))]), "doNotStore": true,
        ]
        request.httpBody = Data(body.serialized().utf8)
        switch send(request) {
        case .failure(let reason): return .later(reason: reason, wait: nil)
        case .success(let status, let data, let retryAfter):
            let message = Self.message(data)
            switch status {
            case 200:
                guard let score = score(in: data) else {
                    return .later(
                        reason:
                            "answered without attributeScores.\(settings.attribute).summaryScore.value from 0 to 1: \(Self.excerpt(data))",
                        wait: nil)
                }
                return .score(score)
            case 408, 429, 500...599:
                return .later(reason: "answered \(status)\(message)", wait: retryAfter)
            default: return .refused(reason: "answered \(status)\(message)")
            }
        }
    }

    private enum Reply: Sendable {
        case success(status: Int, data: Data, retryAfter: Double?)
        case failure(String)
    }

    /// Waits for the reply; Ctrl-C ends the wait.
    private func send(_ request: URLRequest) -> Reply {
        let reply = ReplyBox()
        let done = DispatchSemaphore(value: 0)
        let task = session.dataTask(with: request) { data, response, error in
            let result: Reply
            if let http = response as? HTTPURLResponse {
                let wait = http.value(forHTTPHeaderField: "Retry-After").flatMap { Double($0) }
                    .flatMap { $0.isFinite ? $0 : nil }
                result = .success(status: http.statusCode, data: data ?? Data(), retryAfter: wait)
            } else {
                result = .failure(Self.reason(error))
            }
            reply.value.withLock { $0 = result }
            done.signal()
        }
        task.resume()
        while done.wait(timeout: .now() + .milliseconds(100)) == .timedOut {
            if isCancelled() {
                task.cancel()
                return .failure("was interrupted")
            }
        }
        return reply.value.withLock { $0 } ?? .failure("gave no answer")
    }

    private final class ReplyBox: Sendable {
        let value = Mutex<Reply?>(nil)
    }

    private static func reason(_ error: (any Error)?) -> String {
        guard let error else { return "gave no answer" }
        if (error as? URLError)?.code == .timedOut { return "took longer than the time allowed" }
        return "could not be reached: \(error.localizedDescription)"
    }

    private func score(in data: Data) -> Double? {
        let json = data.withUnsafeBytes { try? JSONValue(parsing: $0, source: settings.url) }
        let value = json?["attributeScores"]?[settings.attribute]?["summaryScore"]?["value"]?.doubleValue
        return value.flatMap { (0...1).contains($0) ? $0 : nil }
    }

    /// The error message in Google's format, or the beginning of the response.
    private static func message(_ data: Data) -> String {
        let json = data.withUnsafeBytes { try? JSONValue(parsing: $0, source: "") }
        let text = json?["error"]?["message"]?.stringValue ?? excerpt(data)
        return text.isEmpty ? "" : ": " + text
    }

    private static func excerpt(_ data: Data) -> String {
        let text = String(decoding: data.prefix(200), as: UTF8.self)
        return text.split(whereSeparator: \.isNewline).joined(separator: " ")
    }
}
