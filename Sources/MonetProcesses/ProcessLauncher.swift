import Foundation

/// Starts several processes of one program on this machine, with `mpirun` and flags that work.
public struct ProcessLauncher: Sendable {
    private let mpirun: String
    private let major: Int

    /// Finds `mpirun`.
    ///
    /// - Throws: `ProcessError.launcherUnavailable`.
    public init(_ environment: [String: String] = ProcessInfo.processInfo.environment) throws {
        let folders = (environment["PATH"] ?? "/usr/bin").split(separator: ":")
        let found = folders.map { $0 + "/mpirun" }.first { FileManager.default.isExecutableFile(atPath: $0) }
        guard let found else {
            throw ProcessError.launcherUnavailable(
                reason: "it is in none of \(folders.joined(separator: ", "))")
        }
        mpirun = found
        let process = Process()
        process.executableURL = URL(fileURLWithPath: found)
        process.arguments = ["--version"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        process.standardInput = FileHandle.nullDevice
        do { try process.run() } catch {
            throw ProcessError.launcherUnavailable(reason: "\(found): \(error.localizedDescription)")
        }
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        // "mpirun (Open MPI) 4.1.4" or "mpirun (Open MPI) 5.0.7"
        guard text.contains("Open MPI"), let version = text.firstMatch(of: /(\d+)\.\d+/),
            let major = Int(version.1)
        else {
            throw ProcessError.launcherUnavailable(
                reason: "\(found) is not Open MPI's: \(text.split(separator: "\n").first ?? "no version")")
        }
        self.major = major
    }

    /// The command that starts `count` processes of a program.
    public func command(_ count: Int, _ program: [String], isRoot: Bool = getuid() == 0) -> [String] {
        var result = [mpirun, "-np", "\(count)"]
        // It adds a page to every message of ours. Version 5 has no such flag.
        if major < 5 { result.append("--quiet") }
        // Root is refused by default, in containers too, where there is no other user.
        if isRoot { result.append("--allow-run-as-root") }
        // More processes than cores are the user's own wish; the processes share the cores themselves.
        result += major >= 5 ? ["--map-by", ":OVERSUBSCRIBE"] : ["--oversubscribe"]
        return result + ["--bind-to", "none"] + program
    }

    /// What the processes need in their environment.
    public static func environment(
        _ own: [String: String] = ProcessInfo.processInfo.environment
    ) -> [String: String] {
        // A launcher that started this process, alone, has left marks for which mpirun would take itself for its child.
        let isChild = own["OMPI_COMM_WORLD_SIZE"] != nil
        let own = own.filter { key, _ in
            if key.hasPrefix("OMPI_") { return !isChild || key.hasPrefix("OMPI_ALLOW_RUN_AS_ROOT") }
            return !["PMIX_", "PMI_", "PRTE_"].contains { key.hasPrefix($0) }
                || key.contains("_MCA_") && !isChild
        }
        // What the user has set stays. Containers forbid reading another process's memory, and a missing InfiniBand
        // card is worth no warning.
        let defaults = [
            "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
            "OMPI_MCA_btl_base_warn_component_unused": "0",
        ]
        return own.merging(defaults) { given, _ in given }
    }

    /// How the processes ended.
    public enum Outcome: Sendable, Equatable {
        case exited(code: Int32)
        case signalled(Int32)
    }

    /// Runs a command in a process group of its own, so that the terminal's Ctrl-C reaches this process alone, and
    /// waits for its end.
    ///
    /// - `shouldStop`: asked all the time; when it becomes true, all processes are asked to save and stop.
    /// - `shouldEnd`: likewise; all processes are ended as they are.
    /// - Throws: `ProcessError.launcherUnavailable`.
    public static func run(
        _ command: [String], environment: [String: String], shouldStop: () -> Bool,
        shouldEnd: () -> Bool = { false }
    ) throws -> Outcome {
        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        posix_spawnattr_setflags(
            &attributes, Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
        posix_spawnattr_setpgroup(&attributes, 0)
        // Whatever this process's parent left blocked or ignored: the request to stop must arrive.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        for number in [SIGINT, SIGTERM, SIGUSR1] { sigaddset(&signals, number) }
        posix_spawnattr_setsigdefault(&attributes, &signals)
        // A background group that reads from the terminal is stopped.
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        var arguments = command.map { strdup($0) } + [nil]
        var variables = environment.map { strdup("\($0)=\($1)") } + [nil]
        defer { for pointer in arguments + variables { free(pointer) } }
        // A parent may have left the end of children ignored, and then nobody learns how they end.
        signal(SIGCHLD, SIG_DFL)
        var child = pid_t()
        let status = posix_spawn(&child, command[0], &actions, &attributes, &arguments, &variables)
        guard status == 0 else {
            throw ProcessError.launcherUnavailable(
                reason: "\(command[0]): \(String(cString: strerror(status)))")
        }
        var asked = false
        var ending: ContinuousClock.Instant?
        while true {
            var state: Int32 = 0
            let ended = waitpid(child, &state, WNOHANG)
            if ended == child {
                let signal = state & 0x7f
                return signal == 0 ? .exited(code: (state >> 8) & 0xff) : .signalled(signal)
            }
            if ended == -1, errno != EINTR {
                throw ProcessError.launcherUnavailable(
                    reason: "\(command[0]) cannot be waited for: \(String(cString: strerror(errno)))")
            }
            if !asked, shouldStop() {
                asked = true
                // mpirun passes it on to every process.
                kill(child, SIGUSR1)
            }
            if ending == nil, shouldEnd() {
                // mpirun ends every process, soon by force.
                ending = .now
                kill(child, SIGTERM)
            } else if let since = ending, ContinuousClock.now - since > .seconds(10) {
                ending = .now
                kill(-child, SIGKILL)
            }
            usleep(50_000)
        }
    }
}
