import CMPI
import Foundation
import Synchronization

/// The processes that `mpirun`, `srun` or a Kubernetes MPI job started.
///
/// The library is loaded at run time. Calls are made one at a time; whoever waits asks for its transfers in turn.
public final class OpenMPI: Communicator {
    public let rank: Int
    public let count: Int
    /// The library's name and version.
    public let version: String
    private let calls = Mutex(())

    /// Whether this process was started as one of several.
    public static func isStarted(_ environment: [String: String] = ProcessInfo.processInfo.environment)
        -> Bool
    {
        starter(environment) != nil
    }

    /// What started this process as one of several, and how many there are, if known.
    private static func starter(_ environment: [String: String]) -> (name: String, count: Int?)? {
        if let count = environment["OMPI_COMM_WORLD_SIZE"] { return ("mpirun", Int(count)) }
        if environment["PMIX_RANK"] != nil {
            return ("a PMIx launcher", environment["SLURM_NTASKS"].flatMap { Int($0) })
        }
        if environment["SLURM_PROCID"] != nil, environment["SLURM_STEP_NUM_TASKS"] ?? "1" != "1" {
            return ("srun", environment["SLURM_STEP_NUM_TASKS"].flatMap { Int($0) })
        }
        return nil
    }

    /// Processes of the job on this machine, as far as the launcher says.
    public static func processesOnThisMachine(
        _ environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> Int {
        let keys = ["OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"]
        return max(1, keys.lazy.compactMap { environment[$0].flatMap { Int($0) } }.first ?? 1)
    }

    /// Joins the job.
    ///
    /// - Throws: `ProcessError.openMPIUnavailable`, `ProcessError.failed`, `ProcessError.notJoined`.
    public init(_ environment: [String: String] = ProcessInfo.processInfo.environment) throws {
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
        var version = [CChar](repeating: 0, count: 512)
        monet_mpi_version(&version, version.count)
        self.version = Self.text(version).split(separator: ",").first.map(String.init) ?? "Open MPI"
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
        let status = calls.withLock { _ in body(size, &transfer.handle) }
        guard status == 0 else { throw ProcessError.failed(operation: operation, code: Int(status)) }
        return transfer
    }

    public func isComplete(_ transfer: Transfer) throws -> Bool {
        try calls.withLock { _ in
            guard transfer.handle != nil else { return true }
            var done: Int32 = 0
            let status = monet_mpi_test(&transfer.handle, &done)
            guard status == 0 else {
                throw ProcessError.failed(
                    operation: "pass bytes to or from process \(transfer.rank)", code: Int(status))
            }
            if done != 0 { transfer.handle = nil }
            return done != 0
        }
    }

    /// Leaves the job after all processes have come here.
    public func leave() throws {
        try barrier()
        let status = calls.withLock { _ in monet_mpi_finalize() }
        guard status == 0 else { throw ProcessError.failed(operation: "leave the job", code: Int(status)) }
    }

    public func abort(code: Int32) { monet_mpi_abort(code) }
}
