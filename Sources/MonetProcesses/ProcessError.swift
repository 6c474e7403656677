/// What can go wrong between the processes of one job.
public enum ProcessError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Open MPI is not installed, or is another library.
    case openMPIUnavailable(reason: String)
    /// A call of Open MPI failed.
    case failed(operation: String, code: Int)
    /// A process has not answered in time: it is gone, hangs, or cannot be reached.
    case noAnswer(rank: Int, seconds: Int)
    /// A process answered with something else than was agreed.
    case unexpectedAnswer(rank: Int, expected: String, found: String)
    /// The job's processes do not see each other.
    case notJoined(started: Int, starter: String)
    /// Another number of processes was asked for than a launcher started.
    case otherNumber(asked: Int, started: Int)
    /// `mpirun` was not found or could not be run.
    case launcherUnavailable(reason: String)

    public var description: String {
        switch self {
        case .openMPIUnavailable(let reason):
            "Open MPI cannot be loaded: \(reason). Install it (Debian: apt-get install openmpi-bin), "
                + "or run one process"
        case .failed(let operation, let code): "Open MPI could not \(operation) (error \(code))"
        case .noAnswer(let rank, let seconds):
            "process \(rank) has not answered for \(seconds) s: it is gone, hangs, or the network between the "
                + "processes is down"
        case .unexpectedAnswer(let rank, let expected, let found):
            "process \(rank) sent \(found), expected \(expected); do all processes run the same version?"
        case .notJoined(let started, let starter):
            "\(starter) started \(started) processes, but each of them is alone in Open MPI's view; "
                + "start them with mpirun, or with srun --mpi=pmix"
        case .otherNumber(let asked, let started):
            "--workers is \(asked), but a launcher has started \(started == 1 ? "one process" : "\(started) processes"); leave it out here"
        case .launcherUnavailable(let reason):
            "mpirun cannot be run: \(reason). Install Open MPI (Debian: apt-get install openmpi-bin)"
        }
    }
}
