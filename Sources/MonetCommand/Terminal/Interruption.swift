import Foundation
import Synchronization

/// Set by the first signal. A global, because a C function pointer may not capture a type.
private let interruptionRequested = Atomic<Bool>(false)

/// Ctrl-C and SIGTERM as a flag that long-running work polls; the second signal ends the process.
enum Interruption {
    /// Whether the user wants to stop.
    static var isRequested: Bool { interruptionRequested.load(ordering: .relaxed) }

    /// Installs a handler for both signals.
    static func install() {
        interruptionRequested.store(false, ordering: .relaxed)
        // The parent process may have left the signals blocked.
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM] { sigaddset(&signals, number) }
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        for number in [SIGINT, SIGTERM] {
            signal(number) { number in
                interruptionRequested.store(true, ordering: .relaxed)
                signal(number, SIG_DFL)
            }
        }
    }
}
