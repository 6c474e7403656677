import MonetFoundation
import MonetGeneration
import Synchronization

/// Counts requests, and writes all counts in Prometheus's text format.
final class ServerMetrics: Sendable {
    private struct Key: Hashable {
        let path: String
        let status: Int
    }

    private struct Histogram {
        static let bounds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
        var counts = [Int](repeating: 0, count: bounds.count + 1)
        var sum = 0.0

        mutating func add(_ value: Double) {
            counts[Self.bounds.firstIndex { value <= $0 } ?? Self.bounds.count] += 1
            sum += value
        }
    }

    private struct State {
        var requests: [Key: Int] = [:]
        var seconds = Histogram()
        var firstToken = Histogram()
    }

    private let state = Mutex(State())

    /// Counts an answered request; a streamed answer counts when it begins.
    func count(_ path: String, _ status: Int, seconds: Double) {
        state.withLock { state in
            state.requests[Key(path: path, status: status), default: 0] += 1
            state.seconds.add(seconds)
        }
    }

    /// Counts the time from a request to its first token.
    func firstToken(after seconds: Double) { state.withLock { $0.firstToken.add(seconds) } }

    /// The counts in Prometheus's text format.
    func text(_ status: GenerationService.Status?, _ admission: Admission) -> String {
        var out = ""
        func metric(
            _ name: String, _ kind: String, _ help: String, _ values: [(labels: String, value: String)]
        ) {
            out += "# HELP monet_\(name) \(help)\n# TYPE monet_\(name) \(kind)\n"
            for value in values { out += "monet_\(name)\(value.labels) \(value.value)\n" }
        }
        func histogram(_ name: String, _ help: String, _ values: Histogram) {
            var total = 0
            var lines: [(labels: String, value: String)] = []
            for (bound, count) in zip(Histogram.bounds + [.infinity], values.counts) {
                total += count
                lines.append(("_bucket{le=\"\(bound.isFinite ? "\(bound)" : "+Inf")\"}", "\(total)"))
            }
            metric(name, "histogram", help, lines + [("_sum", "\(values.sum)"), ("_count", "\(total)")])
        }
        let state = state.withLock { $0 }
        metric(
            "http_requests_total", "counter", "Requests answered, by path and status.",
            state.requests.sorted { ($0.key.path, $0.key.status) < ($1.key.path, $1.key.status) }.map {
                ("{path=\"\($0.key.path)\",status=\"\($0.key.status)\"}", "\($0.value)")
            })
        histogram(
            "http_request_seconds", "Time to an answer, or to its beginning if it is streamed.", state.seconds
        )
        histogram("first_token_seconds", "Time from a request to its first token.", state.firstToken)
        let counts = admission.counts
        metric(
            "requests_in_progress", "gauge", "Requests that wait for tokens.", [("", "\(counts.requests)")])
        metric(
            "requests_refused_total", "counter", "Requests for which there was no room.",
            [("", "\(counts.refused)")])
        guard let status else { return out }
        metric("texts_running", "gauge", "Texts that run.", [("", "\(status.running)")])
        metric("texts_waiting", "gauge", "Texts that wait for a place.", [("", "\(status.waiting)")])
        metric(
            "cached_tokens", "gauge", "Tokens whose keys and values are in memory.",
            [("", "\(status.cachedTokens)")])
        metric(
            "prompt_tokens_total", "counter", "Tokens of finished prompts.", [("", "\(status.promptTokens)")])
        metric(
            "prompt_tokens_reused_total", "counter", "Prompt tokens taken from other texts.",
            [("", "\(status.reusedTokens)")])
        metric("generated_tokens_total", "counter", "Tokens drawn.", [("", "\(status.drawnTokens)")])
        metric("forward_passes_total", "counter", "Forward passes.", [("", "\(status.steps)")])
        metric(
            "forward_seconds_total", "counter", "Seconds in forward passes.", [("", "\(status.stepSeconds)")])
        metric(
            "texts_ended_total", "counter", "Texts that have ended, by reason.",
            status.ended.sorted { $0.key < $1.key }.map { ("{reason=\"\($0.key)\"}", "\($0.value)") })
        return out
    }
}
