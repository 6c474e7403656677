import ArgumentParser
import Foundation
import Synchronization

/// The first signal's number, 0 before it. A global, because a C function pointer may not capture a type.
private let interruptionSignal = Atomic<Int32>(0)
/// How many signals came.
private let interruptionCount = Atomic<Int32>(0)
/// Whether the second signal does what it does by default.
private let interruptionEnds = Atomic<Bool>(true)

/// Ctrl-C as a flag that long-running work polls; the second one ends the process.
enum Interruption {
    /// Whether the user wants to stop.
    static var isRequested: Bool { interruptionSignal.load(ordering: .relaxed) != 0 }

    /// Whether the user asked again: for commands that `install` lets see the second signal.
    static var isInsisted: Bool { interruptionCount.load(ordering: .relaxed) > 1 }

    /// How a command ends that the user stopped: 128 and the signal's number, as shells report it.
    static var exitCode: ExitCode {
        ExitCode(128 + (interruptionSignal.load(ordering: .relaxed) == SIGTERM ? SIGTERM : SIGINT))
    }

    /// Lets signals end the process as they do by default, whatever its parent left ignored or blocked; only a
    /// hang-up stays ignored, as `nohup` asks for.
    static func reset() {
        var signals = sigset_t()
        sigemptyset(&signals)
        for number in [SIGINT, SIGTERM, SIGHUP, SIGUSR1] { sigaddset(&signals, number) }
        pthread_sigmask(SIG_UNBLOCK, &signals, nil)
        signal(SIGTERM, SIG_DFL)
    }

    /// Installs the handler.
    ///
    /// - Parameters:
    ///   - hangUp: whether losing the terminal is a request to stop too.
    ///   - termination: whether SIGTERM is one, as job schedulers send it, and SIGUSR1, which mpirun passes on.
    ///   - endsAtSecond: whether the second signal ends the process, rather than only being counted.
    static func install(hangUp: Bool = false, termination: Bool = false, endsAtSecond: Bool = true) {
        interruptionSignal.store(0, ordering: .relaxed)
        interruptionCount.store(0, ordering: .relaxed)
        interruptionEnds.store(endsAtSecond, ordering: .relaxed)
        for number in [SIGINT] + (hangUp ? [SIGHUP] : []) + (termination ? [SIGTERM, SIGUSR1] : []) {
            var old = sigaction()
            sigaction(number, nil, &old)
            if number == SIGHUP, isIgnored(old) { continue }
            var action = sigaction()
            // No SA_RESTART: a read that waits for input ends.
            action.sa_flags = 0
            set(&action) { number in
                interruptionSignal.store(number, ordering: .relaxed)
                // A terminal that closes may say so twice.
                if number != SIGHUP { interruptionCount.add(1, ordering: .relaxed) }
                if interruptionEnds.load(ordering: .relaxed) { signal(number, SIG_DFL) }
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
