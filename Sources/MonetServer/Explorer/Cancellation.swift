import Foundation
import Synchronization

/// Long work on a thread of its own, which looks now and then whether anybody still waits for it.
final class Cancellation: Sendable {
    private let requested = Mutex(false)

    /// Whether nobody waits any more.
    var isRequested: Bool { requested.withLock { $0 } }

    /// - Throws: `CancellationError` if nobody waits any more.
    func check() throws { if isRequested { throw CancellationError() } }

    /// Runs `body` on a thread of its own: the tasks' threads are few, and must not wait for a model.
    static func onThread<Value: Sendable>(_ body: @escaping @Sendable (Cancellation) throws -> Value)
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
