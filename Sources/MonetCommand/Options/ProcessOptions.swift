import ArgumentParser
import MonetCompute
import MonetProcesses

/// Processes of a command.
struct WorkerOptions: ParsableArguments {
    @Option(help: "Number of processes to start on this machine with Open MPI's mpirun.")
    var workers: Int?

    func validate() throws {
        if let workers, !(1...1024).contains(workers) {
            throw ValidationError("--workers is \(workers), expected 1 to 1024")
        }
    }

    /// Starts the workers that were asked for, or runs `body` as one of them or alone.
    ///
    /// - `resumeCommand`: what goes on with work that ended early.
    func run(resumeCommand: String, _ body: (any Communicator) throws -> Void) throws {
        if let workers, workers > 1, !OpenMPI.isStarted() {
            return try Workers(count: workers, resumeCommand: resumeCommand).run()
        }
        try Workers.join { communicator in
            if let workers, workers != communicator.count {
                throw ProcessError.otherNumber(asked: workers, started: communicator.count)
            }
            try body(communicator)
        }
    }
}

/// Threads and processes of a command that trains.
struct ProcessOptions: ParsableArguments {
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @OptionGroup var workers: WorkerOptions

    func validate() throws {
        if let threads, !(1...1024).contains(threads) {
            throw ValidationError("--threads is \(threads), expected 1 to 1024")
        }
    }

    /// The processes that share the work, if anyone asked for a number of them.
    func sharing(_ communicator: any Communicator) -> Int? {
        workers.workers != nil || communicator.isShared ? communicator.count : nil
    }

    /// Starts the workers that were asked for, or runs `body` as one of them or alone.
    func run(resumeCommand: String, _ body: (any Communicator) throws -> Void) throws {
        try workers.run(resumeCommand: resumeCommand, body)
    }
}

extension ComputeOptions {
    /// The backend that these options describe, for one of several processes: the processors are divided among them, and
    /// sums as for all threads of one process, so that its results are the same.
    func backend(_ communicator: any Communicator) throws -> CPUBackend {
        guard communicator.isShared else { return try backend() }
        let usable = try communicator.gather([Double(ProcessorLimits.usableProcessors)])[0]
        return try Self.backend(
            threads: threads ?? Workers.threadsPerProcess(communicator),
            shares: threads ?? Int(usable.first ?? 1), precision: dtype ?? .float32,
            isBatchInvariant: batchInvariant)
    }
}
