/// Why programs are not run.
package enum SandboxError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Programs cannot be isolated from this machine.
    case noIsolation(reason: String)

    /// What a program needs is not installed, or lies where the sandbox does not show it.
    case missing(tool: String, package: String, purpose: String)

    /// The sandbox was not set up; the program did not start.
    case notStarted(reason: String)

    /// A file's name that is more than a name.
    case invalidFileName(String)

    /// A sentence for users.
    package var description: String {
        switch self {
        case .noIsolation(let reason): "programs cannot be isolated from this machine: \(reason)"
        case .missing(let tool, let package, let purpose):
            "\(purpose) needs \(tool), which is not in the system's folders on PATH (Debian package \(package))"
        case .notStarted(let reason): "the program could not be started: \(reason)"
        case .invalidFileName(let name): "'\(name)' is no name for a file, expected one part of a path"
        }
    }
}
