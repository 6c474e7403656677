import Foundation
import MonetFoundation

/// Watches a program from its start to its end, which comes for certain.
struct ProgramWatch {
    /// A program that was started, and what it writes.
    struct Program {
        let child: ChildProcess
        var output: PipeReader
        var errorOutput: PipeReader
        /// A byte for each step that began.
        var progress: PipeReader
        /// What bubblewrap says about the sandbox; nil for programs that run without.
        var status: PipeReader?
    }

    private var program: Program
    private let steps: [LimitScript.Step]
    /// The folders of its sandbox in which files can be made.
    private let folders: [String]
    /// When the present step began.
    private var start = ContinuousClock.now

    /// How often its memory is looked at: in this time, a process can fill some hundred megabytes.
    private static let interval = Duration.milliseconds(20)

    init(_ program: Program, steps: [LimitScript.Step], folders: [String]) {
        self.program = program
        self.steps = steps
        self.folders = folders
    }

    /// How many steps have begun. A program can find its shell's end of the pipe and write more bytes to it.
    private var begun: Int { min(program.progress.bytes.count, steps.count) }

    /// The limits of the step that runs, or of the first.
    private var limits: SandboxLimits { steps[max(0, begun - 1)].limits }

    /// When the step that runs must have ended.
    private var deadline: ContinuousClock.Instant { start + .seconds(max(0, min(1e6, limits.seconds))) }

    /// The largest of the steps' limits on output: what the earlier ones wrote comes before the last one's.
    private var outputLimit: Int { steps.map(\.limits.outputBytes).max() ?? 0 }

    /// Waits until the program ended by itself or was ended, and nothing of it is left.
    ///
    /// - Throws: `SandboxError.notStarted`.
    mutating func run() throws -> ProgramRun {
        let excess = watch()
        if excess != nil { end() }
        let waited = program.child.wait()
        // What was written last. Programs that are not isolated may have left others that hold the pipes and go on.
        readAll()
        let seconds = start.duration(to: .now).seconds
        let code = program.status.flatMap { Self.number("exit-code", in: $0) } ?? waited
        guard begun > 0 || excess != nil else {
            let reason = program.errorOutput.text(upTo: 2000).trimmingCharacters(in: .whitespacesAndNewlines)
            throw SandboxError.notStarted(
                reason: reason.isEmpty ? "its shell ended with code \(code ?? -1)" : reason)
        }
        guard let ending = excess ?? (isOutputOver ? .overOutput : code.map(Self.ending)) else {
            throw SandboxError.notStarted(
                reason: "this process ignores SIGCHLD, so that the system does not say how programs end")
        }
        return ProgramRun(
            ending: ending,
            output: program.output.text(upTo: outputLimit),
            errorOutput: program.errorOutput.text(upTo: outputLimit),
            seconds: seconds, isPrepared: begun == steps.count)
    }

    /// What a shell's exit code says.
    private static func ending(_ code: Int32) -> ProgramRun.Ending {
        guard code > 128 else { return .exited(code) }
        return code - 128 == SIGXCPU ? .overProcessorTime : .signalled(code - 128)
    }

    /// Waits for the end.
    ///
    /// - Returns: the limit that was exceeded, if the program did not end by itself.
    private mutating func watch() -> ProgramRun.Ending? {
        var nextLook = start + Self.interval
        while isRunning {
            wait(until: min(deadline, nextLook))
            readAll()
            let now = ContinuousClock.now
            if isOutputOver { return .overOutput }
            if !isRunning { return nil }
            if now >= deadline { return .timedOut }
            if now >= nextLook {
                // Its pipe stays open if another library started a process just when the pipe was made.
                if program.child.hasEnded { return nil }
                if let excess { return excess }
                nextLook = .now + Self.interval
            }
        }
        return nil
    }

    /// Bubblewrap, or the shell of a program without, holds the other end as long as it lives. No program does.
    private var isRunning: Bool { (program.status ?? program.progress).isOpen }

    private var isOutputOver: Bool {
        max(program.output.bytes.count, program.errorOutput.bytes.count) > outputLimit
    }

    /// What the program uses too much of.
    private var excess: ProgramRun.Ending? {
        #if os(Linux)
            guard let status = program.status else {
                return ResourceWatch(root: program.child.identifier, isNamespace: false, folders: [])
                    .excess(of: limits)
            }
            // Before its shell runs, process 1 is bubblewrap, which still sees the processes of this machine.
            guard begun > 0, let first = Self.firstProcess(status) else { return nil }
            return ResourceWatch(root: first, isNamespace: true, folders: folders).excess(of: limits)
        #else
            // No other system is asked for the memory of processes here.
            return nil
        #endif
    }

    /// Process 1 of the sandbox, as this process numbers it.
    private static func firstProcess(_ status: PipeReader) -> pid_t? { number("child-pid", in: status) }

    /// The value of `key` in bubblewrap's words, which are `{ "child-pid": 123, … }` and, on a line of its own at the
    /// end, `{ "exit-code": 0 }`.
    private static func number(_ key: String, in status: PipeReader) -> Int32? {
        let text = status.text(upTo: 4096)
        guard let key = text.range(of: "\"\(key)\":") else { return nil }
        let digits = text[key.upperBound...].drop { $0 == " " }.prefix { $0.isNumber }
        // Until what follows the number has come, it may lack digits.
        return digits.endIndex == text.endIndex ? nil : Int32(digits)
    }

    private mutating func readAll() {
        let before = begun
        program.output.read(upTo: outputLimit)
        program.errorOutput.read(upTo: outputLimit)
        program.progress.read(upTo: steps.count, discardsRest: true)
        program.status?.read(upTo: 4096, discardsRest: true)
        if begun > before { start = .now }
    }

    /// Waits until a pipe brings something or closes.
    private func wait(until deadline: ContinuousClock.Instant) {
        let readers = [program.output, program.errorOutput, program.progress, program.status].compactMap(
            \.self)
        var pipes = readers.filter(\.isOpen).map {
            pollfd(fd: $0.descriptor.number, events: Int16(POLLIN), revents: 0)
        }
        let seconds = ContinuousClock.now.duration(to: deadline).seconds
        poll(&pipes, nfds_t(pipes.count), Int32(max(0, min(1000, (seconds * 1000).rounded(.up)))))
    }

    /// Kills the program and all that it started.
    private mutating func end() {
        guard program.status != nil else { return program.child.killGroup() }
        killSandbox()
        // Bubblewrap sees its child die, when all others in its namespace are gone, and ends.
        let deadline = ContinuousClock.now + .seconds(2)
        while isRunning, ContinuousClock.now < deadline {
            wait(until: deadline)
            program.status?.read(upTo: 4096, discardsRest: true)
            // Their pipes are no longer read, and a full or closed one would have `wait` return at once.
            (program.output, program.errorOutput) = (program.output.closed, program.errorOutput.closed)
            program.progress = program.progress.closed
        }
        // Process 1 dies with it.
        if isRunning { program.child.kill() }
        #if os(Linux)
            // The kernel ends process 1 when the others in its namespace are gone. Bubblewrap has waited for that,
            // unless it was killed itself.
            guard let first = program.status.flatMap(Self.firstProcess) else { return }
            while !SystemProcesses.hasEnded(first), ContinuousClock.now < deadline { usleep(1000) }
        #endif
    }

    /// Kills process 1 of the sandbox, with which the kernel kills all others there.
    private func killSandbox() {
        #if os(Linux)
            if let first = program.status.flatMap(Self.firstProcess),
                SystemProcesses.signal(
                    first, SIGKILL, if: { SystemProcesses.parent(of: first) == program.child.identifier })
            {
                return
            }
        #endif
        program.child.kill()
    }
}
