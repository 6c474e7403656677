import Foundation
import MonetFoundation
import Synchronization

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// Sends JSON to a server and reads its answers, with pauses between attempts, a limit of requests per second, and an end
/// when the user asks for one.
package struct RemoteService: Sendable {
    /// How to send requests.
    package struct Settings: Sendable {
        /// Timeout of one request, in seconds.
        package var timeout = 30.0
        /// Attempts before giving up.
        package var attempts = 6
        /// Seconds before the second attempt, doubled before each further one, up to a minute.
        package var backOff = 1.0
        /// Maximum requests per second; nil for no limit.
        package var requestsPerSecond: Double?

        /// Six attempts of 30 seconds.
        package init() {}
    }

    /// What an answer is worth.
    package enum Reading<Value> {
        case value(Value)
        /// Not what was expected, for a reason that follows the server's name; worth another attempt.
        case unexpected(String)
    }

    /// The address as users gave it, for messages.
    private let name: String
    /// What the server is, for messages.
    private let role: String
    private let address: URL
    private let headers: [String: String]
    private let settings: Settings
    private let session: URLSession
    private let isCancelled: @Sendable () -> Bool
    private let note: @Sendable (String) -> Void
    private let pace: Pace

    /// The time of the last request.
    private final class Pace: Sendable {
        let last = Mutex<ContinuousClock.Instant?>(nil)
    }

    /// - `role`: what messages call the server: "scorer".
    /// - `query`: added to the address, and left out of messages.
    /// - `isCancelled`: called repeatedly while waiting.
    /// - `note`: called with the reason when a request is repeated.
    /// - Throws: `EvaluationError.invalidSetting` for an invalid URL.
    package init(
        url: String, role: String, query: [(name: String, value: String)] = [],
        headers: [String: String] = [:],
        settings: Settings, isCancelled: @escaping @Sendable () -> Bool,
        note: @escaping @Sendable (String) -> Void
    ) throws {
        let invalid = EvaluationError.invalidSetting(
            name: "the \(role)'s address", found: url, expected: "an http or https URL")
        guard var parts = URLComponents(string: url), ["http", "https"].contains(parts.scheme),
            parts.host?.isEmpty == false
        else { throw invalid }
        if !query.isEmpty {
            parts.queryItems =
                (parts.queryItems ?? []) + query.map { URLQueryItem(name: $0.name, value: $0.value) }
        }
        guard let address = parts.url else { throw invalid }
        (name, self.role, self.address, self.headers) = (url, role, address, headers)
        (self.settings, self.isCancelled, self.note) = (settings, isCancelled, note)
        let configuration = URLSessionConfiguration.ephemeral
        configuration.timeoutIntervalForRequest = settings.timeout
        configuration.timeoutIntervalForResource = settings.timeout
        session = URLSession(configuration: configuration)
        pace = Pace()
    }

    /// The outcome of one attempt.
    private enum Outcome<Value> {
        case value(Value)
        /// Worth another attempt, after `wait` seconds if the server specifies them.
        case later(reason: String, wait: Double?)
        /// Not worth another attempt.
        case refused(reason: String)
    }

    /// Sends JSON until the answer reads as a value.
    ///
    /// - `read`: reads an answer with status 200; nil stands for text that is no JSON.
    /// - Throws: `EvaluationError.serverFailed`, `CancellationError`.
    package func post<Value>(_ body: JSONValue, read: (JSONValue?) -> Reading<Value>) throws -> Value {
        var reason = ""
        var wait = settings.backOff
        for attempt in 1...max(1, settings.attempts) {
            try keepPace()
            let outcome = ask(body, read)
            if isCancelled() { throw CancellationError() }
            switch outcome {
            case .value(let value): return value
            case .refused(let reason):
                throw EvaluationError.serverFailed(url: name, role: role, attempts: attempt, reason: reason)
            case .later(let why, let asked):
                reason = why
                if attempt == settings.attempts { break }
                let seconds = min(60, max(asked ?? 0, wait))
                wait *= 2
                note(
                    "the \(role) \(why); try \(attempt + 1) of \(settings.attempts) in \(String(format: "%.1f", seconds)) s"
                )
                try pause(seconds)
            }
        }
        throw EvaluationError.serverFailed(url: name, role: role, attempts: settings.attempts, reason: reason)
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

    private func ask<Value>(_ body: JSONValue, _ read: (JSONValue?) -> Reading<Value>) -> Outcome<Value> {
        var request = URLRequest(url: address)
        request.httpMethod = "POST"
        request.timeoutInterval = settings.timeout
        request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        for (name, value) in headers { request.setValue(value, forHTTPHeaderField: name) }
        request.httpBody = Data(body.serialized().utf8)
        switch send(request) {
        case .failure(let reason): return .later(reason: reason, wait: nil)
        case .success(let status, let data, let retryAfter):
            switch status {
            case 200:
                let json = data.withUnsafeBytes { try? JSONValue(parsing: $0, source: name) }
                switch read(json) {
                case .value(let value): return .value(value)
                case .unexpected(let reason):
                    return .later(reason: "\(reason): \(Self.excerpt(data))", wait: nil)
                }
            case 408, 429, 500...599:
                return .later(reason: "answered \(status)\(Self.message(data))", wait: retryAfter)
            default: return .refused(reason: "answered \(status)\(Self.message(data))")
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

    /// The error's message, as Google's and OpenAI's servers give it, or the beginning of the response.
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
