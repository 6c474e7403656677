import Foundation
import MonetProcesses
import Synchronization

/// Processes of one job as threads of this one: messages pass through memory.
public final class ThreadProcesses: Sendable {
    private struct Route: Hashable {
        let from: Int
        let to: Int
        let tag: TransferTag
    }

    private struct State {
        var sent: [Route: [Data]] = [:]
        var expected: [Route: [(id: ObjectIdentifier, buffer: TransferBuffer)]] = [:]
        var complete: Set<ObjectIdentifier> = []
        var transfers: [ObjectIdentifier: Transfer] = [:]
        var bytes = 0
    }

    private let count: Int
    private let state = Mutex(State())

    /// Makes a job.
    public init(count: Int) { self.count = count }

    /// Bytes sent so far.
    public var bytesSent: Int { state.withLock { $0.bytes } }

    /// Runs every process on a thread of its own and returns what they give, or throws what the first one throws.
    public func run<Result: Sendable>(_ body: @escaping @Sendable (any Communicator) throws -> Result) throws
        -> [Result]
    {
        let results = Mutex([Swift.Result<Result, any Error>?](repeating: nil, count: count))
        let group = DispatchGroup()
        for rank in 0..<count {
            group.enter()
            let thread = Thread {
                let result = Swift.Result { try body(Member(rank: rank, count: self.count, job: self)) }
                results.withLock { $0[rank] = result }
                group.leave()
            }
            thread.stackSize = 8 << 20
            thread.start()
        }
        group.wait()
        return try results.withLock { try $0.compactMap { try $0?.get() } }
    }

    private final class Member: Communicator {
        let rank: Int
        let count: Int
        let job: ThreadProcesses

        init(rank: Int, count: Int, job: ThreadProcesses) {
            self.rank = rank
            self.count = count
            self.job = job
        }

        func send(_ bytes: TransferBuffer, to rank: Int, tag: TransferTag) throws -> Transfer {
            let transfer = Transfer(rank: rank, buffer: bytes)
            let route = Route(from: self.rank, to: rank, tag: tag)
            job.state.withLock { state in
                state.bytes += bytes.bytes.count
                state.transfers[ObjectIdentifier(transfer)] = transfer
                state.complete.insert(ObjectIdentifier(transfer))
                state.sent[route, default: []].append(Data(bytes.bytes))
                Self.match(route, &state)
            }
            return transfer
        }

        func receive(into bytes: TransferBuffer, from rank: Int, tag: TransferTag) throws -> Transfer {
            let transfer = Transfer(rank: rank, buffer: bytes)
            let route = Route(from: rank, to: self.rank, tag: tag)
            job.state.withLock { state in
                state.transfers[ObjectIdentifier(transfer)] = transfer
                state.expected[route, default: []].append((ObjectIdentifier(transfer), bytes))
                Self.match(route, &state)
            }
            return transfer
        }

        private static func match(_ route: Route, _ state: inout State) {
            while let data = state.sent[route]?.first, let next = state.expected[route]?.first {
                precondition(data.count == next.buffer.bytes.count, "\(route): \(data.count) bytes")
                next.buffer.bytes.copyBytes(from: data)
                state.complete.insert(next.id)
                state.sent[route]?.removeFirst()
                state.expected[route]?.removeFirst()
            }
        }

        func isComplete(_ transfer: Transfer) throws -> Bool {
            job.state.withLock { state in
                let isComplete = state.complete.contains(ObjectIdentifier(transfer))
                return isComplete
            }
        }

        func abort(code: Int32) {}
    }
}
