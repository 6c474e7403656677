import Foundation
import Synchronization

/// Long work on a thread of its own, which looks now and then whether anybody still waits for it.
final class Cancellation: Sendable {
    private let requested = Mutex(false)

    /// Whether nobody waits any more.
    var isRequested: Bool { requested.withLock { $0 } }

    /// - Throws: `CancellationError` if nobody waits any more.
    func check() throws { if isRequested { throw CancellationError() } }

    /// Measurements run one at a time, and few may wait: each takes the whole machine.
    private static let places = Mutex((taken: 0, running: false))
    private static let mostWaiting = 8

    /// Runs `body` on a thread of its own once no other measurement runs.
    ///
    /// - Throws: `APIError` of status 429 if many wait already.
    static func measure<Value: Sendable>(_ body: @escaping @Sendable (Cancellation) throws -> Value)
        async throws
        -> Value
    {
        try places.withLock { places in
            guard places.taken <= mostWaiting else {
                throw APIError(
                    .tooManyRequests, "\(places.taken) measurements run or wait; try again",
                    code: "rate_limit_exceeded", retryAfter: 5)
            }
            places.taken += 1
        }
        defer { places.withLock { $0.taken -= 1 } }
        while !places.withLock({ places in
            guard !places.running else { return false }
            places.running = true
            return true
        }) {
            try await Task.sleep(for: .milliseconds(20))
        }
        defer { places.withLock { $0.running = false } }
        return try await onThread(body)
    }

    /// Runs `body` on a thread of its own: the tasks' threads are few, and must not wait for a model.
    private static func onThread<Value: Sendable>(_ body: @escaping @Sendable (Cancellation) throws -> Value)
        async throws
        -> Value
    {
        let cancellation = Cancellation()
        return try await withTaskCancellationHandler {
            try await withCheckedThrowingContinuation {
                (continuation: CheckedContinuation<Value, any Error>) in
                let thread = Thread { continuation.resume(with: Result { try body(cancellation) }) }
                thread.stackSize = 1 << 23
                thread.start()
            }
        } onCancel: {
            cancellation.requested.withLock { $0 = true }
        }
    }
}
