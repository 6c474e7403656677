import ArgumentParser
import Foundation
import MonetCompute
import MonetProcesses

/// Several processes of the command that runs.
struct Workers {
    let count: Int
    /// What goes on with work that ended early.
    let resumeCommand: String

    /// Starts the processes with the arguments of this one, and ends as they do.
    func run() throws {
        let command = try ProcessLauncher().command(count, [Self.executable] + Self.arguments)
        Interruption.install(hangUp: true, termination: true, endsAtSecond: false)
        let outcome = try ProcessLauncher.run(
            command, environment: ProcessLauncher.environment(), shouldStop: { Interruption.isRequested },
            shouldEnd: { Interruption.isInsisted })
        if Interruption.isRequested { throw Interruption.exitCode }
        switch outcome {
        case .exited(0): return
        case .exited(128 + SIGINT): throw ExitCode(128 + SIGINT)
        case .exited(128 + SIGTERM): throw ExitCode(128 + SIGTERM)
        case .exited(let code):
            // Signals come back from mpirun as shells report them; higher codes are mpirun's own.
            guard code > 128 else { throw ExitCode(code) }
            StandardError.write(
                code <= 192
                    ? "monet: a process was ended by signal \(code - 128), and the others with it\n"
                        + "continue with: \(resumeCommand)\n"
                    : "monet: mpirun ended with code \(code)\n")
            throw ExitCode.failure
        case .signalled(let number):
            StandardError.write(
                "monet: mpirun was ended by signal \(number)\ncontinue with: \(resumeCommand)\n")
            throw ExitCode.failure
        }
    }

    /// Runs a command as one of the processes that were started together, or as the only one. An error ends all of
    /// them.
    static func join(_ body: (any Communicator) throws -> Void) throws {
        guard OpenMPI.isStarted() else { return try body(SingleProcess()) }
        let job = try OpenMPI()
        do {
            try body(job)
        } catch let code as ExitCode {
            // All processes end so, together.
            try job.leave()
            throw code
        } catch {
            // What is wrong for all, such as a bad setting, the first one says for all: it ends the others meanwhile.
            if !job.isFirst { sleep(3) }
            let name = job.isFirst ? "" : "process \(job.rank): "
            StandardError.write("monet: \(name)\(error)\n")
            job.abort(code: 1)
            throw ExitCode.failure
        }
        try job.leave()
    }

    /// The processors that this process may use, divided among the processes that may use the same: those of a machine,
    /// unless a launcher binds each to its own. All processes call this.
    ///
    /// - Throws: `ProcessError`.
    static func threadsPerProcess(_ communicator: any Communicator) throws -> Int? {
        guard communicator.isShared else { return nil }
        let places = try communicator.gather(Data(ProcessorLimits.place.utf8))
        let sharing = places.count { $0 == places[communicator.rank] }
        let own = ProcessorLimits.usableProcessors / max(1, sharing)
        // A quota of time holds for all processes of the machine, wherever they are bound.
        let granted = ProcessorLimits.quota.map { Int($0.rounded(.up)) / communicator.processesOnThisMachine }
        return max(1, min(own, granted ?? own))
    }

    private static var executable: String {
        #if os(Linux)
            if let path = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
                return path
            }
        #endif
        return Bundle.main.executablePath ?? CommandLine.arguments[0]
    }

    /// This process's arguments without the number of workers.
    private static var arguments: [String] {
        var result: [String] = []
        var skips = false
        for argument in CommandLine.arguments.dropFirst() {
            if skips {
                skips = false
            } else if argument == "--workers" {
                skips = true
            } else if !argument.hasPrefix("--workers=") {
                result.append(argument)
            }
        }
        return result
    }
}
