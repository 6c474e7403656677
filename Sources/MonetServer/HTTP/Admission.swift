import HTTPTypes
import Synchronization

/// Counts the texts that clients wait for: refuses more than there is room for, and all while the server stops.
final class Admission: Sendable {
    private struct State {
        var texts = 0
        var requests = 0
        var isDraining = false
        var refused = 0
    }

    private let state = Mutex(State())
    private let limit: Int

    /// - `limit`: texts that may run or wait.
    init(limit: Int) { self.limit = limit }

    /// Requests in progress, and requests refused so far.
    var counts: (requests: Int, texts: Int, refused: Int) {
        state.withLock { ($0.requests, $0.texts, $0.refused) }
    }

    /// Whether new requests are refused because the server stops.
    var isDraining: Bool { state.withLock { $0.isDraining } }

    /// Refuses new requests from now on.
    func drain() { state.withLock { $0.isDraining = true } }

    /// Places for texts, which are given back when nothing holds this any more.
    final class Places: Sendable {
        private let admission: Admission
        private let count: Int
        private let isHeld = Mutex(true)

        fileprivate init(_ admission: Admission, _ count: Int) {
            (self.admission, self.count) = (admission, count)
        }

        deinit { release() }

        /// Gives the places back: the texts have ended, whether or not their client has read them.
        func release() {
            let held = isHeld.withLock { held in
                defer { held = false }
                return held
            }
            if held { admission.give(count) }
        }
    }

    /// Takes places for some texts if there are any.
    ///
    /// - Throws: `APIError` of status 429 or 503.
    func take(_ count: Int) throws -> Places {
        try state.withLock { state in
            if state.isDraining { throw Self.stopping }
            guard count <= limit else {
                throw APIError.invalid(
                    "n", "the request asks for \(count) texts, at most \(limit) run at once")
            }
            guard state.texts + count <= limit else {
                state.refused += 1
                throw APIError(
                    .tooManyRequests,
                    "the server has \(state.texts) texts to continue, at most \(limit); try again",
                    code: "rate_limit_exceeded", retryAfter: 1)
            }
            state.texts += count
            state.requests += 1
        }
        return Places(self, count)
    }

    private func give(_ count: Int) {
        state.withLock { state in
            state.texts -= count
            state.requests -= 1
        }
    }

    static var stopping: APIError {
        APIError(.serviceUnavailable, "the server is stopping", code: "stopping", retryAfter: 10)
    }
}
