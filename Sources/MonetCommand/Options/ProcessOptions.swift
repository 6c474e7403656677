import ArgumentParser
import MonetProcesses

/// Threads and processes of a command that trains.
struct ProcessOptions: ParsableArguments {
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @Option(help: "Number of processes to start on this machine with Open MPI's mpirun.")
    var workers: Int?

    func validate() throws {
        for (name, value) in [("threads", threads), ("workers", workers)] {
            if let value, !(1...1024).contains(value) {
                throw ValidationError("--\(name) is \(value), expected 1 to 1024")
            }
        }
    }

    /// Starts the workers that were asked for, or runs `body` as one of them or alone.
    ///
    /// - `resumeCommand`: what goes on with work that ended early.
    func run(resumeCommand: String, _ body: (any Communicator) throws -> Void) throws {
        if let workers, !OpenMPI.isStarted() {
            return try Workers(count: workers, resumeCommand: resumeCommand).run()
        }
        try Workers.join(body)
    }
}
