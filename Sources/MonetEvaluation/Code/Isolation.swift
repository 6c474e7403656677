import Foundation
import MonetFoundation

/// What separates programs from this machine.
package enum Isolation: Sendable, Equatable {
    /// Bubblewrap, a program that makes namespaces of Linux: its path.
    case bubblewrap(path: String)

    /// Nothing but limits on what a program uses: it can read and change what its user can, reach networks, and leave
    /// processes behind. For machines that hold nothing else, and for those who trust the programs.
    case unsafe

    /// The isolation that this machine has.
    ///
    /// - `searchPath`: folders to find bubblewrap in, separated by colons; those of PATH unless given.
    /// - Throws: `SandboxError.noIsolation`, which says what to install or allow.
    package static func find(on searchPath: String? = nil) throws -> Isolation {
        #if os(Linux)
            guard let path = SystemTools.path(of: ["bwrap"], on: searchPath ?? SystemTools.searchPath) else {
                throw SandboxError.noIsolation(
                    reason: "there is no bwrap on PATH (Debian package bubblewrap)")
            }
            let isolation = Isolation.bubblewrap(path: path)
            // Whether it is of use here depends on the kernel, its settings, and the container around this process.
            let run: ProgramRun
            do {
                run = try Sandbox(isolation: isolation).run(["/bin/sh", "-c", "exit 0"])
            } catch let error as SandboxError {
                throw SandboxError.noIsolation(
                    reason:
                        "bubblewrap, which must be 0.8 or newer and may make user namespaces, fails: \(error)"
                )
            }
            guard run.ending == .exited(0) else {
                throw SandboxError.noIsolation(reason: "in bubblewrap, \"exit 0\" ends as \(run.ending)")
            }
            return isolation
        #else
            throw SandboxError.noIsolation(reason: "bubblewrap, which does it, exists for Linux only")
        #endif
    }
}
