import Foundation
import MonetFoundation

extension Sandbox {
    /// The folder that programs work in.
    private static let folder = "/tmp/work"
    /// The file systems that programs can write to, each in memory and limited.
    private static let writableFolders = ["/tmp", "/dev/shm"]

    /// Descriptors that bubblewrap is started with, after those of every program.
    private static let statusDescriptor = 4
    private static let firstInput = 5

    func runIsolated(_ job: Job, by bubblewrap: String) throws -> ProgramRun {
        let steps = job.steps(inOwnNamespace: true)
        var inputs: [Descriptor] = []
        var arguments = (try job.user?.change() ?? []) + [bubblewrap]
        arguments += Self.separation + systemFolders + Self.writable(limits)
        #if os(Linux)
            if let filter = SystemCallFilter.bytes {
                arguments += ["--seccomp", "\(Self.firstInput + inputs.count)"]
                inputs.append(try Descriptor.file(holding: filter))
            }
        #endif
        for file in job.files {
            // They are put into an empty folder before the program is there to put links in their place.
            arguments += [
                "--perms", "0644", "--file", "\(Self.firstInput + inputs.count)",
                "\(Self.folder)/\(file.name)",
            ]
            inputs.append(try Descriptor.file(holding: Array(file.text.utf8)))
        }
        for path in job.extraReadOnlyPaths { arguments += ["--ro-bind", path, path] }
        // The root and `/dev` are file systems in memory too, to which the program could write as much as it likes.
        arguments += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", Self.folder, "--clearenv"]
        for (name, value) in job.environment(in: Self.folder).sorted(by: { $0.key < $1.key }) {
            arguments += ["--setenv", name, value]
        }
        arguments += ["--", "/bin/sh", "-c", LimitScript(steps: steps).text]
        let program = try Self.start(arguments, environment: [:], reports: true, inputs: inputs)
        var watch = ProgramWatch(program, steps: steps, folders: Self.writableFolders)
        return try watch.run()
    }

    /// What keeps the program from others.
    private static let separation = [
        "--unshare-all",
        // `--unshare-all` does without where user namespaces are not permitted; then the program must not start.
        "--unshare-user",
        // In user namespaces of its own, the program would have all rights over parts of the kernel.
        "--disable-userns",
        "--uid", "1000", "--gid", "1000", "--cap-drop", "ALL", "--hostname", "sandbox",
        // A terminal of its own session: otherwise it could type into the caller's.
        "--new-session",
        // Also when this process is killed. The kernel means the thread that starts it, which waits until it ended.
        "--die-with-parent",
        // The shell of `LimitScript`, which bubblewrap waits for. With bubblewrap's own process 1 between them,
        // bubblewrap ends first and leaves it to this machine's process 1, which in containers may not take it in.
        "--as-pid-1",
        "--json-status-fd", "\(statusDescriptor)",
    ]

    /// The folders of interpreters, read-only: `/usr` and what belongs to it, and their settings in `/etc`, where
    /// secrets lie too.
    private var systemFolders: [String] {
        var arguments = ["--ro-bind", "/usr", "/usr"]
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            let path = "/" + name
            // On most systems, these are links into `/usr`.
            if let target = try? FileManager.default.destinationOfSymbolicLink(atPath: path) {
                arguments += ["--symlink", target, path]
            } else {
                arguments += ["--ro-bind-try", path, path]
            }
        }
        let settings = (try? FileManager.default.contentsOfDirectory(atPath: "/etc")) ?? []
        for name in settings.sorted() where Self.isSetting(name) {
            arguments += ["--ro-bind-try", "/etc/\(name)", "/etc/\(name)"]
        }
        return arguments + ["--ro-bind-try", "/etc/ssl/openssl.cnf", "/etc/ssl/openssl.cnf"]
    }

    private static func isSetting(_ name: String) -> Bool {
        ["alternatives", "ld.so.cache", "php", "lua"].contains(name)
            || ["java", "python3"].contains { name.hasPrefix($0) }
    }

    private static func writable(_ limits: SandboxLimits) -> [String] {
        ["--proc", "/proc", "--dev", "/dev"]
            + writableFolders.flatMap { ["--size", "\(max(1 << 16, limits.diskBytes))", "--tmpfs", $0] }
            + ["--dir", folder]
    }
}
