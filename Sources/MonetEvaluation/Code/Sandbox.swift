import Foundation
import MonetFoundation

/// Runs programs that nobody has read.
///
/// A program sees a read-only copy of the system's folders, a small empty folder to work in, no network, no other
/// process and no environment, as a user without rights; it is killed with all that it started when it exceeds a limit,
/// when its first process ends, or when this process does. Several threads may run programs at a time.
package struct Sandbox: Sendable {
    let isolation: Isolation
    /// What the program may use.
    package var limits: SandboxLimits
    /// What its preparation may use.
    package var preparationLimits = SandboxLimits.compiling

    /// Programs run in `isolation`, each within `limits`.
    package init(isolation: Isolation, limits: SandboxLimits = SandboxLimits()) {
        self.isolation = isolation
        self.limits = limits
    }

    /// Runs a command in a folder of its own and waits for its end.
    ///
    /// - `command`: the path of a program and its arguments.
    /// - `preparation`: a command to run before, such as a compiler; the other is run if its exit code is 0.
    /// - `files`: what is in the folder at first.
    /// - `environment`: variables; `PATH`, `HOME`, `TMPDIR` and `LANG` are set.
    /// - `extraReadOnlyPaths`: files and folders that the program sees besides the system's own, where it sees them.
    /// - Throws: `SandboxError.notStarted` and `SandboxError.invalidFileName`; nothing that the program does is an error.
    package func run(
        _ command: [String], after preparation: [String]? = nil, files: [(name: String, text: String)] = [],
        environment: [String: String] = [:], extraReadOnlyPaths: [String] = []
    ) throws -> ProgramRun {
        try Self.check(files.map(\.name))
        let job = Job(
            commands: (preparation.map { [($0, preparationLimits)] } ?? []) + [(command, limits)],
            files: files, environment: environment, extraReadOnlyPaths: extraReadOnlyPaths,
            user: try SandboxUser.next())
        // Nobody else becomes its user before it ended.
        return try withExtendedLifetime(job.user) {
            switch isolation {
            case .bubblewrap(let path): try runIsolated(job, by: path)
            case .unsafe: try runUnsafely(job)
            }
        }
    }

    /// What is to be run.
    struct Job {
        let commands: [(command: [String], limits: SandboxLimits)]
        let files: [(name: String, text: String)]
        let environment: [String: String]
        let extraReadOnlyPaths: [String]
        /// Whom to become before.
        let user: SandboxUser?

        func steps(inOwnNamespace: Bool) -> [LimitScript.Step] {
            commands.map { command, limits in
                LimitScript.Step(
                    command: command, limits: limits,
                    processes: SandboxUser.limit(
                        limits.processes, inOwnNamespace: inOwnNamespace, as: user))
            }
        }

        /// The variables of a program whose folder is `folder`.
        func environment(in folder: String) -> [String: String] {
            // Nothing of this process's own environment, which may hold keys.
            [
                "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8",
            ].merging(environment) { $1 }
        }
    }

    private static func check(_ names: [String]) throws {
        for name in names {
            guard !["", ".", ".."].contains(name), !name.contains("/"), !name.contains("\0"),
                name.utf8.count < 256
            else { throw SandboxError.invalidFileName(name) }
        }
        // Each is a descriptor of a child.
        guard names.count <= 50 else {
            throw SandboxError.notStarted(reason: "\(names.count) files, expected up to 50")
        }
    }

    /// Starts a command whose output, and what `LimitScript` tells, come through pipes.
    ///
    /// - `reports`: whether descriptor 4 is for bubblewrap's reports.
    /// - `inputs`: its descriptors from 5 on.
    static func start(
        _ command: [String], environment: [String: String], reports: Bool, inputs: [Descriptor] = []
    ) throws -> ProgramWatch.Program {
        let (output, errorOutput, progress) = (
            try Descriptor.pipe(), try Descriptor.pipe(), try Descriptor.pipe()
        )
        let status = reports ? try Descriptor.pipe() : nil
        let nothing = try Descriptor(open("/dev/null", O_RDONLY | O_CLOEXEC))
        let descriptors =
            [nothing, output.writing, errorOutput.writing, progress.writing]
            + (status.map { [$0.writing] } ?? []) + inputs
        let child = try ChildProcess(command, environment: environment, descriptors: descriptors)
        return ProgramWatch.Program(
            child: child, output: PipeReader(output.reading), errorOutput: PipeReader(errorOutput.reading),
            progress: PipeReader(progress.reading), status: status.map { PipeReader($0.reading) })
    }
}
