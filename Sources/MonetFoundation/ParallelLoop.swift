import Foundation
import Synchronization

/// A loop whose turns run on several threads, and on the caller's alone where the system grants no other.
///
/// Dispatch's `concurrentPerform` waits without end in that case. For modules below `MonetCompute`, whose
/// `WorkerPool` serves the many short loops of a model.
package enum ParallelLoop {
    /// Calls `body` with every number below `count`, each once.
    package static func run(_ count: Int, _ body: @Sendable (Int) -> Void) {
        let threads = min(count, ProcessInfo.processInfo.activeProcessorCount)
        withoutActuallyEscaping(body) { body in
            let turns = Turns(count: count, body: body)
            var started: [pthread_t] = []
            for _ in 1..<max(2, threads) where threads > 1 {
                let argument = Unmanaged.passRetained(turns)
                #if os(Linux)
                    var thread = pthread_t()
                    let result = pthread_create(
                        &thread, nil,
                        { argument in
                            guard let argument else { return nil }
                            Unmanaged<Turns>.fromOpaque(argument).takeRetainedValue().drain()
                            return nil
                        }, argument.toOpaque())
                    if result == 0 { started.append(thread) } else { argument.release() }
                #else
                    var thread: pthread_t?
                    let result = pthread_create(
                        &thread, nil,
                        { argument in
                            Unmanaged<Turns>.fromOpaque(argument).takeRetainedValue().drain()
                            return nil
                        }, argument.toOpaque())
                    if result == 0, let thread { started.append(thread) } else { argument.release() }
                #endif
            }
            turns.drain()
            for thread in started { pthread_join(thread, nil) }
        }
    }

    private final class Turns: Sendable {
        private let next = Atomic<Int>(0)
        private let count: Int
        private let body: @Sendable (Int) -> Void

        init(count: Int, body: @escaping @Sendable (Int) -> Void) {
            self.count = count
            self.body = body
        }

        func drain() {
            while true {
                let turn = next.add(1, ordering: .relaxed).oldValue
                if turn >= count { return }
                body(turn)
            }
        }
    }
}
