import Foundation

/// A child process in a session of its own.
///
/// Foundation's `Process` watches its children on threads of its own and hands them descriptors that other threads
/// have open; thousands of programs that do their worst are no work for it.
package struct ChildProcess: Sendable {
    /// Its number, which no other process gets before `wait` returned.
    package let identifier: pid_t

    /// Starts `command`, whose first part is a path.
    ///
    /// - `descriptors`: what the child has as descriptor 0, 1, 2 and so on; it has no others.
    /// - Throws: `SandboxError.notStarted`.
    package init(_ command: [String], environment: [String: String], descriptors: [Descriptor]) throws {
        #if canImport(Darwin)
            var actions: posix_spawn_file_actions_t?
            var attributes: posix_spawnattr_t?
            let (newSession, closeOthers) = (POSIX_SPAWN_SETSID, POSIX_SPAWN_CLOEXEC_DEFAULT)
        #else
            var actions = posix_spawn_file_actions_t()
            var attributes = posix_spawnattr_t()
            // Glibc's module does not export POSIX_SPAWN_SETSID.
            let (newSession, closeOthers) = (Int32(0x80), Int32(0))
        #endif
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        for (number, descriptor) in descriptors.enumerated() {
            posix_spawn_file_actions_adddup2(&actions, descriptor.number, Int32(number))
        }
        #if !canImport(Darwin)
            Self.closeAll(from: Int32(descriptors.count), &actions)
        #endif
        // What this process ignores or blocks, the child would too.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        let flags = Int32(POSIX_SPAWN_SETSIGDEF) | Int32(POSIX_SPAWN_SETSIGMASK)
        posix_spawnattr_setflags(&attributes, Int16(truncatingIfNeeded: flags | newSession | closeOthers))

        var identifier = pid_t()
        let variables = environment.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
        let result = Self.withStrings(command) { arguments in
            Self.withStrings(variables) { variables in
                withExtendedLifetime(descriptors) {
                    posix_spawn(&identifier, command[0], &actions, &attributes, arguments, variables)
                }
            }
        }
        guard result == 0 else {
            throw SandboxError.notStarted(reason: "\(command[0]): \(String(cString: strerror(result)))")
        }
        self.identifier = identifier
    }

    /// Kills it alone.
    func kill() { _ = Foundation.kill(identifier, SIGKILL) }

    /// Kills it and what it started, except what left its session.
    func killGroup() { _ = Foundation.kill(-identifier, SIGKILL) }

    /// Whether it ended; its number stays its own until `wait`.
    package var hasEnded: Bool {
        var information = siginfo_t()
        let result = waitid(P_PID, id_t(identifier), &information, WEXITED | WNOHANG | WNOWAIT)
        return result == 0 ? information.si_signo != 0 : errno == ECHILD
    }

    /// Waits until it ended and frees its number.
    ///
    /// - Returns: its exit code, or 128 and the number of the signal that ended it, as shells report it; nil where this
    ///   process ignores SIGCHLD, so that the system keeps no code.
    package func wait() -> Int32? {
        var status: Int32 = 0
        while waitpid(identifier, &status, 0) < 0 {
            guard errno == EINTR else { return nil }
        }
        let signal = status & 0x7f
        return signal == 0 ? (status >> 8) & 0xff : 128 + signal
    }

    /// Calls `body` with C strings and the null pointer that ends them.
    private static func withStrings<Result>(
        _ strings: [String], _ body: ([UnsafeMutablePointer<CChar>?]) -> Result
    ) -> Result {
        let copies = strings.map { strdup($0) }
        defer { for copy in copies { free(copy) } }
        return body(copies + [nil])
    }

    #if !canImport(Darwin)
        /// Has the child close what this process left open for children, such as descriptors of other libraries.
        private static func closeAll(from first: Int32, _ actions: inout posix_spawn_file_actions_t) {
            // Glibc has it since 2.34, and its module does not export it.
            typealias CloseFrom =
                @convention(c) (UnsafeMutablePointer<posix_spawn_file_actions_t>, Int32) -> Int32
            if let symbol = dlsym(nil, "posix_spawn_file_actions_addclosefrom_np") {
                _ = unsafeBitCast(symbol, to: CloseFrom.self)(&actions, first)
                return
            }
            let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []
            for number in names.compactMap({ Int32($0) }) where number >= first {
                posix_spawn_file_actions_addclose(&actions, number)
            }
        }
    #endif
}
