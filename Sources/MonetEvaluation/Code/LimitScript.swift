import Foundation

/// The shell script that runs commands one after another within limits.
///
/// The shell stays as the parent of what it runs and is, in a sandbox, process 1: it takes in orphans, no signal from
/// inside ends it, and when it ends, the system kills what is left. A program that is process 1 itself would not die
/// of its own signals, such as those of `abort`.
struct LimitScript {
    /// A command and what it may use.
    struct Step {
        let command: [String]
        let limits: SandboxLimits
        /// What the user may have in processes in all; nil where the system counts for all users alike.
        let processes: Int?
    }

    let steps: [Step]
    /// The folder to work in, if the shell does not start there.
    var folder: String?

    /// The descriptor through which the shell writes a byte whenever it has set the limits of a step.
    static let progress: Int32 = 3

    /// The most that the first thread's stack grows to, and what others reserve for theirs.
    private static let stackBytes = 8 << 20

    var text: String {
        let start = folder.map { "cd \(Self.quoted($0)) && unset OLDPWD || exit 125\n" } ?? ""
        return Self.lower + start
            + steps.map { step in
                """
                ( \(limits(step)) && echo >&\(Self.progress) || exit 125
                  exec \(Self.progress)>&-
                  exec \(step.command.map(Self.quoted).joined(separator: " ")) ) || exit $?

                """
            }.joined()
            // Without this last command, the shell would replace itself by the program.
            + "exit 0\n"
    }

    /// Sets a limit of the shell's `ulimit`, unless a lower one is set that cannot be raised.
    private static let lower =
        #"lower() { ulimit $1 $2 2>/dev/null || [ "$(ulimit -H $1)" -le $2 ] 2>/dev/null; }"# + "\n"

    /// Sets the limits of a step, for the rest of a subshell: they can be lowered only.
    private func limits(_ step: Step) -> String {
        let limits = step.limits
        let seconds = max(1, limits.processorSeconds)
        var commands = [
            "lower -c 0", "lower -n \(SandboxLimits.descriptors)",
            // The signal of the lower limit tells what happened; programs that ignore it meet the upper one.
            "lower -t \(seconds + 1) && { ulimit -S -t \(seconds) 2>/dev/null || :; }",
            // In blocks of 512 bytes.
            "lower -f \(max(1, limits.diskBytes >> 9))",
        ]
        #if os(Linux)
            // In kilobytes. Private memory that can be written to, unlike address space (`-v`), which Java and Node
            // reserve by the gigabyte: twice what the program may hold, so that single huge requests fail at once while
            // what grows is noticed and named by the watch over its processes; and a stack for each thread.
            let stack = Self.stackBytes >> 10
            commands.append("lower -s \(stack)")
            commands.append(
                "lower -d \((max(1, limits.memoryBytes) >> 9) + max(1, limits.processes) * stack)")
        #endif
        if let processes = step.processes {
            // Shells disagree on the letter.
            commands.append(
                "if ulimit -u >/dev/null 2>&1; then lower -u \(processes); else lower -p \(processes); fi")
        }
        // Where the system runs out of memory, this is what it kills first.
        commands.append("{ echo 1000 >/proc/self/oom_score_adj || :; } 2>/dev/null")
        return commands.joined(separator: " && ")
    }

    private static func quoted(_ text: String) -> String {
        "'" + text.replacingOccurrences(of: "'", with: #"'\''"#) + "'"
    }
}
