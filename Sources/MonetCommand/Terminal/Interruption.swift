import ArgumentParser
import Foundation
import Synchronization

/// Set by the first signal. A global, because a C function pointer may not capture a type.
private let interruptionRequested = Atomic<Bool>(false)

/// Ctrl-C as a flag that long-running work polls; the second one ends the process.
enum Interruption {
    /// Whether the user wants to stop.
    static var isRequested: Bool { interruptionRequested.load(ordering: .relaxed) }

    /// How a command ends that the user stopped: 128 and the signal's number, as shells report it.
    static let exitCode = ExitCode(128 + SIGINT)

    /// Lets signals end the process as they do by default, whatever its parent left ignored or blocked; only a
    /// hang-up stays ignored, as `nohup` asks for.
    static func reset() {
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, number) }
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        signal(SIGTERM, SIG_DFL)
    }

    /// Installs the handler.
    ///
    /// - Parameters:
    ///   - hangUp: whether losing the terminal is a request to stop too.
    static func install(hangUp: Bool = false) {
        interruptionRequested.store(false, ordering: .relaxed)
        for number in hangUp ? [SIGINT, SIGHUP] : [SIGINT] {
            var old = sigaction()
            sigaction(number, nil, &old)
            if number == SIGHUP, isIgnored(old) { continue }
            var action = sigaction()
            // No SA_RESTART: a read that waits for input ends.
            action.sa_flags = 0
            set(&action) { number in
                interruptionRequested.store(true, ordering: .relaxed)
                signal(number, SIG_DFL)
            }
            sigaction(number, &action, nil)
        }
    }

    private static func set(_ action: inout sigaction, _ handler: @escaping @convention(c) (Int32) -> Void) {
        #if os(Linux)
            action.__sigaction_handler.sa_handler = handler
        #else
            action.__sigaction_u.__sa_handler = handler
        #endif
    }

    private static func isIgnored(_ action: sigaction) -> Bool {
        #if os(Linux)
            let handler = action.__sigaction_handler.sa_handler
        #else
            let handler = action.__sigaction_u.__sa_handler
        #endif
        return unsafeBitCast(handler, to: Int.self) == unsafeBitCast(SIG_IGN, to: Int.self)
    }
}
