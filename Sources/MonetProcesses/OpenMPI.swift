import CMPI
import Foundation
import Synchronization

/// The processes that `mpirun`, `srun` or a Kubernetes MPI job started.
///
/// The library is loaded at run time. Calls are made one at a time; whoever waits asks for its transfers in turn.
public final class OpenMPI: Communicator {
    public let rank: Int
    public let count: Int
    public let processesOnThisMachine: Int
    /// The library's name and version.
    public let version: String
    /// Guards every call; holds the transfers under way, whose memory must stay until the library is done with it, even
    /// when the work that began them has failed.
    private let calls = Mutex([ObjectIdentifier: Transfer]())
    private let pulse = Mutex(Pulse())

    /// Whether this process was started as one of several.
    public static func isStarted(_ environment: [String: String] = ProcessInfo.processInfo.environment)
        -> Bool
    {
        starter(environment) != nil
    }

    /// What started this process as one of several, and how many there are, if known. One that was started alone, as in
    /// a shell that `srun` opened, needs no library.
    private static func starter(_ environment: [String: String]) -> (name: String, count: Int?)? {
        let tasks = environment["SLURM_STEP_NUM_TASKS"] ?? environment["SLURM_NTASKS"]
        let starter: (name: String, count: Int?)? =
            if let count = environment["OMPI_COMM_WORLD_SIZE"] {
                ("mpirun", Int(count))
            } else if environment["PMIX_RANK"] != nil {
                ("a PMIx launcher", tasks.flatMap { Int($0) })
            } else if environment["SLURM_PROCID"] != nil {
                ("srun", Int(environment["SLURM_STEP_NUM_TASKS"] ?? "1") ?? 1)
            } else {
                nil
            }
        return starter?.count == 1 ? nil : starter
    }

    /// Checks that a launcher tells its processes of each other. Open MPI itself would end a process that `srun` started
    /// without a PMI, with advice that is wrong here.
    ///
    /// - Throws: `ProcessError.notJoined`.
    package static func requireJoined(_ environment: [String: String]) throws {
        if case let (name, started?)? = starter(environment), name == "srun", environment["PMI_RANK"] == nil {
            throw ProcessError.notJoined(started: started, starter: name)
        }
    }

    /// Joins the job.
    ///
    /// - Throws: `ProcessError.openMPIUnavailable`, `ProcessError.failed`, `ProcessError.notJoined`.
    public init(_ environment: [String: String] = ProcessInfo.processInfo.environment) throws {
        try Self.requireJoined(environment)
        var message = [CChar](repeating: 0, count: 1024)
        guard monet_mpi_load(&message, message.count) == 0 else {
            throw ProcessError.openMPIUnavailable(reason: Self.text(message))
        }
        var (rank, count): (Int32, Int32) = (0, 0)
        let status = monet_mpi_init(&rank, &count)
        guard status == 0 else { throw ProcessError.failed(operation: "join the job", code: Int(status)) }
        if count == 1, let (name, started) = Self.starter(environment), let started, started > 1 {
            throw ProcessError.notJoined(started: started, starter: name)
        }
        (self.rank, self.count) = (Int(rank), Int(count))
        var neighbours: Int32 = 1
        let found = count > 1 ? monet_mpi_neighbours(&neighbours) : 0
        guard found == 0 else {
            throw ProcessError.failed(operation: "count the processes of this machine", code: Int(found))
        }
        processesOnThisMachine = max(1, Int(neighbours))
        var version = [CChar](repeating: 0, count: 512)
        monet_mpi_version(&version, version.count)
        self.version = Self.text(version).split(separator: ",").first.map(String.init) ?? "Open MPI"
        if self.count > 1 { startPulse() }
    }

    private static func text(_ characters: [CChar]) -> String {
        String(decoding: characters.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    public func send(_ bytes: TransferBuffer, to rank: Int, tag: TransferTag) throws -> Transfer {
        try begin("send to process \(rank)", bytes, rank) {
            monet_mpi_send(bytes.bytes.baseAddress, $0, Int32(rank), tag.rawValue, &$1)
        }
    }

    public func receive(into bytes: TransferBuffer, from rank: Int, tag: TransferTag) throws -> Transfer {
        try begin("receive from process \(rank)", bytes, rank) {
            monet_mpi_receive(bytes.bytes.baseAddress, $0, Int32(rank), tag.rawValue, &$1)
        }
    }

    private func begin(
        _ operation: String, _ bytes: TransferBuffer, _ rank: Int,
        _ body: (Int32, inout UnsafeMutableRawPointer?) -> Int32
    ) throws -> Transfer {
        guard let size = Int32(exactly: bytes.bytes.count) else {
            throw ProcessError.failed(operation: "\(operation) \(bytes.bytes.count) bytes at once", code: 0)
        }
        let transfer = Transfer(rank: rank, buffer: bytes)
        let status = calls.withLock { open in
            let status = body(size, &transfer.handle)
            if status == 0 { open[ObjectIdentifier(transfer)] = transfer }
            return status
        }
        guard status == 0 else { throw ProcessError.failed(operation: operation, code: Int(status)) }
        return transfer
    }

    public func isComplete(_ transfer: Transfer) throws -> Bool {
        if let silence = pulse.withLock({ $0.silence(of: transfer.rank) }) {
            throw ProcessError.noAnswer(rank: transfer.rank, seconds: silence)
        }
        return try test(transfer)
    }

    private func test(_ transfer: Transfer) throws -> Bool {
        try calls.withLock { open in
            guard transfer.handle != nil else { return true }
            var done: Int32 = 0
            let status = monet_mpi_test(&transfer.handle, &done)
            guard status == 0 else {
                throw ProcessError.failed(
                    operation: "pass bytes to or from process \(transfer.rank)", code: Int(status))
            }
            if done != 0 {
                transfer.handle = nil
                open[ObjectIdentifier(transfer)] = nil
            }
            return done != 0
        }
    }

    // MARK: Signs of life

    /// The signs of life that this process has from others.
    private struct Pulse {
        /// On a clock that stands still while the machine sleeps.
        var heard: [Int: SuspendingClock.Instant] = [:]
        /// The others that have said that they leave.
        var gone: Set<Int> = []
        var leaves = false
        var isOver = false

        /// Seconds for which nothing was heard of a process, if they are too many.
        func silence(of rank: Int) -> Int? {
            guard let last = heard[rank], !gone.contains(rank) else { return nil }
            let seconds = (SuspendingClock.now - last) / .seconds(1)
            return seconds > Patience.silence ? Int(seconds) : nil
        }
    }

    /// Tells all others every two seconds that this process is there, however long its work takes: who is silent has
    /// died or cannot be reached. The last message says that it leaves, so that none is under way at the end.
    private func startPulse() {
        let others = (0..<count).filter { $0 != rank }
        pulse.withLock { pulse in for other in others { pulse.heard[other] = .now } }
        let thread = Thread { [self] in
            var sent: [Int: Transfer] = [:]
            var expected: [Int: (transfer: Transfer, byte: TransferBuffer)] = [:]
            var said: Set<Int> = []
            var next = ContinuousClock.now
            // Errors show where the work itself waits; here, silence is enough.
            while true {
                let leaves = pulse.withLock { $0.leaves }
                let isDue = ContinuousClock.now >= next || leaves
                if isDue { next = .now + .seconds(2) }
                for other in others {
                    if isDue, !said.contains(other), (try? sent[other].map(test) ?? true) == true {
                        sent[other] = try? send(
                            TransferBuffer([leaves ? 1 : 0]), to: other, tag: .pulse)
                        if leaves { said.insert(other) }
                    }
                    if let (transfer, byte) = expected[other] {
                        guard (try? test(transfer)) == true else { continue }
                        let isLast = byte.bytes.first == 1
                        pulse.withLock { pulse in
                            pulse.heard[other] = .now
                            if isLast { pulse.gone.insert(other) }
                        }
                        expected[other] = nil
                        if isLast { continue }
                    }
                    guard !pulse.withLock({ $0.gone.contains(other) }), expected[other] == nil else {
                        continue
                    }
                    let byte = TransferBuffer(byteCount: 1)
                    if let transfer = try? receive(into: byte, from: other, tag: .pulse) {
                        expected[other] = (transfer, byte)
                    }
                }
                if said.count == others.count, sent.values.allSatisfy({ (try? test($0)) ?? true }),
                    pulse.withLock({ $0.gone.count == others.count })
                {
                    return pulse.withLock { $0.isOver = true }
                }
                usleep(leaves ? 1000 : 50_000)
            }
        }
        thread.name = "monet-pulse"
        thread.start()
    }

    /// Leaves the job after all processes have come here.
    ///
    /// - Throws: `ProcessError`.
    public func leave() throws {
        try barrier()
        if count > 1 {
            pulse.withLock { $0.leaves = true }
            let end = ContinuousClock.now + .seconds(Patience.silence)
            while !pulse.withLock({ $0.isOver }), ContinuousClock.now < end { usleep(1000) }
        }
        let status = calls.withLock { _ in monet_mpi_finalize() }
        guard status == 0 else { throw ProcessError.failed(operation: "leave the job", code: Int(status)) }
    }

    public func abort(code: Int32) {
        // mpirun and its daemons wait for each other to end, forever if the network between them is down, and end this
        // process first. What remains in a session of its own ends them then.
        if let starter = Self.parentStarter {
            let helper = Process()
            helper.executableURL = URL(fileURLWithPath: "/bin/sh")
            helper.arguments = [
                "-c",
                "setsid sh -c 'sleep 10; for s in TERM TERM KILL; do kill -$s \(starter) || exit; sleep 1; done' "
                    + "</dev/null >/dev/null 2>&1 &",
            ]
            try? helper.run()
            helper.waitUntilExit()
        }
        calls.withLock { _ in monet_mpi_abort(code) }
    }

    /// The parent process, if it is one of Open MPI's.
    private static var parentStarter: pid_t? {
        let parent = getppid()
        let names = ["mpirun", "orterun", "prterun", "mpiexec", "orted", "prted"]
        let name = try? String(contentsOfFile: "/proc/\(parent)/comm", encoding: .utf8)
        return names.contains((name ?? "").trimmingCharacters(in: .whitespacesAndNewlines)) ? parent : nil
    }
}
