import Foundation

/// The processes of one job, as one of them sees them.
///
/// What a process sends to another under one tag arrives in the order of sending.
public protocol Communicator: AnyObject, Sendable {
    /// This process's number, from 0.
    var rank: Int { get }
    /// The number of processes.
    var count: Int { get }
    /// How many of the processes run on this machine.
    var processesOnThisMachine: Int { get }
    /// Begins to send; the transfer keeps the bytes until they have left.
    ///
    /// - Throws: `ProcessError`.
    func send(_ bytes: TransferBuffer, to rank: Int, tag: TransferTag) throws -> Transfer
    /// Begins to receive as many bytes as the buffer has.
    ///
    /// - Throws: `ProcessError`.
    func receive(into bytes: TransferBuffer, from rank: Int, tag: TransferTag) throws -> Transfer
    /// Whether a transfer is complete. Only asking moves bytes on.
    ///
    /// - Throws: `ProcessError`.
    func isComplete(_ transfer: Transfer) throws -> Bool
    /// Ends all processes of the job at once, this one too where it is a process of its own.
    func abort(code: Int32)
}

/// What transfers belong to: those of different tags do not meet.
public enum TransferTag: Int32, Sendable {
    case sizes, values, gradients, parameters, pulse
}

/// Bytes on their way, in memory that does not move.
///
/// `@unchecked Sendable`: whoever begins a transfer leaves the bytes alone until it is complete.
public final class TransferBuffer: @unchecked Sendable {
    /// The bytes.
    public let bytes: UnsafeMutableRawBufferPointer

    /// Allocates uninitialized bytes, aligned for numbers of any type.
    public init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 64)
    }

    /// Copies bytes.
    public convenience init(_ data: some Collection<UInt8>) {
        self.init(byteCount: data.count)
        bytes.copyBytes(from: data)
    }

    deinit { bytes.deallocate() }

    /// The bytes as float32 values.
    public var floats: UnsafeMutableBufferPointer<Float> { bytes.bindMemory(to: Float.self) }
}

/// A transfer under way.
///
/// `@unchecked Sendable`: the communicator that made it guards its handle.
public final class Transfer: @unchecked Sendable {
    /// The process at the other end.
    public let rank: Int
    let buffer: TransferBuffer
    /// The library's handle; nil once the transfer is complete.
    var handle: UnsafeMutableRawPointer?

    /// A transfer with the handle of the library that makes it.
    public init(rank: Int, buffer: TransferBuffer, handle: UnsafeMutableRawPointer? = nil) {
        self.rank = rank
        self.buffer = buffer
        self.handle = handle
    }
}

/// The only process of its job.
public final class SingleProcess: Communicator {
    public let rank = 0
    public let count = 1

    /// There is nothing to set up.
    public init() {}

    public func send(_ bytes: TransferBuffer, to rank: Int, tag: TransferTag) throws -> Transfer {
        throw ProcessError.failed(operation: "send to process \(rank) of 1", code: 0)
    }

    public func receive(into bytes: TransferBuffer, from rank: Int, tag: TransferTag) throws -> Transfer {
        throw ProcessError.failed(operation: "receive from process \(rank) of 1", code: 0)
    }

    public func isComplete(_ transfer: Transfer) throws -> Bool { true }
    public func abort(code: Int32) {}
}

extension Communicator {
    public var processesOnThisMachine: Int { 1 }
    /// Whether there are other processes.
    public var isShared: Bool { count > 1 }
    /// Whether this process writes files and reports.
    public var isFirst: Bool { rank == 0 }

    /// Waits until transfers are complete.
    ///
    /// - `patience`: seconds without any of them being completed after which the others count as gone.
    /// - Throws: `ProcessError.noAnswer`.
    public func wait(for transfers: [Transfer], patience: Double = Patience.long) throws {
        var waiting = transfers
        var last = ContinuousClock.now
        var pause: UInt32 = 0
        while true {
            let before = waiting.count
            waiting = try waiting.filter { try !isComplete($0) }
            if waiting.isEmpty { return }
            let now = ContinuousClock.now
            if waiting.count < before {
                (last, pause) = (now, 0)
            } else if now - last > .seconds(patience) {
                throw ProcessError.noAnswer(rank: waiting[0].rank, seconds: Int(patience))
            }
            // Asking all the time would take a core from the process that is waited for.
            if pause == 0 { sched_yield() } else { usleep(pause) }
            pause = min(500, pause + 10)
        }
    }

    /// Room for as many bytes as a process says that it sends.
    ///
    /// - Throws: `ProcessError.unexpectedAnswer`.
    func room(for size: TransferBuffer, from rank: Int) throws -> TransferBuffer {
        let bytes = size.bytes.load(as: UInt64.self)
        // A process of another version may send anything; no memory is reserved on its word.
        guard bytes < 1 << 31 else {
            throw ProcessError.unexpectedAnswer(
                rank: rank, expected: "at most 2 GiB", found: "\(bytes) bytes")
        }
        return TransferBuffer(byteCount: Int(bytes))
    }

    /// What every process contributes, in the order of ranks.
    ///
    /// - Throws: `ProcessError`.
    public func gather(_ own: Data, patience: Double = Patience.long) throws -> [Data] {
        guard isShared else { return [own] }
        let others = (0..<count).filter { $0 != rank }
        let size = TransferBuffer(byteCount: 8)
        size.bytes.storeBytes(of: UInt64(own.count), as: UInt64.self)
        let sizes = others.map { _ in TransferBuffer(byteCount: 8) }
        let body = TransferBuffer(own)
        var transfers = try zip(others, sizes).map { try receive(into: $1, from: $0, tag: .sizes) }
        for other in others { transfers.append(try send(size, to: other, tag: .sizes)) }
        try wait(for: transfers, patience: patience)
        let bodies = try zip(others, sizes).map { try room(for: $1, from: $0) }
        transfers = try zip(others, bodies).map { try receive(into: $1, from: $0, tag: .values) }
        for other in others { transfers.append(try send(body, to: other, tag: .values)) }
        try wait(for: transfers, patience: patience)
        var result = bodies.map { Data($0.bytes) }
        result.insert(own, at: rank)
        return result
    }

    /// Numbers of every process, in the order of ranks.
    ///
    /// - Throws: `ProcessError`, also if a process sends another number of them.
    public func gather(_ own: [Double], patience: Double = Patience.long) throws -> [[Double]] {
        guard isShared else { return [own] }
        let all = try gather(own.withUnsafeBytes { Data($0) }, patience: patience)
        return try all.enumerated().map { rank, data in
            guard data.count % 8 == 0 else {
                throw ProcessError.unexpectedAnswer(
                    rank: rank, expected: "numbers", found: "\(data.count) bytes")
            }
            return data.withUnsafeBytes { bytes in
                (0..<(bytes.count / 8)).map { bytes.loadUnaligned(fromByteOffset: 8 * $0, as: Double.self) }
            }
        }
    }

    /// Waits until every process is here.
    public func barrier(patience: Double = Patience.long) throws {
        _ = try gather(Data(), patience: patience)
    }
}

/// How long a process waits for the others, in seconds.
public enum Patience {
    /// For an answer: others may be slower, prepare data or write a checkpoint.
    public static let long = 3600.0
    /// For any sign of life.
    static let silence = 60.0
}
