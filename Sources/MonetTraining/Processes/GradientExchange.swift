import Foundation
import MonetCompute
import MonetProcesses

/// In which form partial gradients travel between processes.
public enum GradientFormat: String, Sendable, CaseIterable {
    /// As they are: any number of processes gives the same parameters.
    case float32
    /// Rounded to half the bytes. Inexact: parameters then depend on the number of processes.
    case bfloat16
}

/// Sums the gradients of all processes, piece by piece, while the backward pass goes on.
///
/// Every process sends its partial sum of a piece to the piece's owner, which adds those of all processes in the
/// order of `SummationTree`. A process thus sends and receives (P − 1)/P of the gradient's bytes. A thread of its own
/// moves the bytes, because Open MPI moves them only while it is called.
///
/// `@unchecked Sendable`: what both threads use is guarded by `condition`.
final class GradientExchange: @unchecked Sendable {
    /// What a step's exchange took.
    struct Cost: Sendable, Equatable {
        /// Bytes that this process sent.
        var bytes = 0
        /// Seconds from the first piece to the last, and of these, those in which nothing was left but to wait.
        var seconds = 0.0
        var waited = 0.0
        /// The same of the parameters that were sent after the update, for which everything waits.
        var parameterBytes = 0
        var parameterSeconds = 0.0
    }

    /// Bytes under way beyond which the backward pass waits.
    private static let mostUnderWay = 256 << 20

    private struct Work {
        let piece: Int
        /// Partial sums by rank; empty for a piece that belongs to another process.
        var partial: [TransferBuffer]
        var transfers: [Transfer]
        let bytes: Int
    }

    private let shards: ParameterShards
    private let communicator: any Communicator
    private let format: GradientFormat
    private let condition = NSCondition()
    private var waiting: [Work] = []
    private var sums: [Int: TransferBuffer] = [:]
    private var bytesUnderWay = 0
    private var failure: (any Error)?
    private var stopped = false
    private var cost = Cost()
    private var start: ContinuousClock.Instant?

    init(_ shards: ParameterShards, communicator: any Communicator, format: GradientFormat) {
        self.shards = shards
        self.communicator = communicator
        self.format = format
        let thread = Thread { [weak self] in
            while let self, self.moveOn() {}
        }
        thread.name = "monet-exchange"
        thread.start()
    }

    /// Ends the thread; exchanges under way are given up.
    func stop() {
        condition.withLock {
            stopped = true
            condition.broadcast()
        }
    }

    /// Takes a parameter's gradient, which this process has finished, and begins its exchange.
    func begin(parameter: Int, gradient: Tensor) throws {
        for piece in shards.piecesOfParameter[parameter] {
            let part = shards.part(piece, of: gradient)
            let owner = shards.owner(of: piece)
            let own = buffer(
                of: format == .float32 || owner == communicator.rank
                    ? part : part.converted(to: .bfloat16))
            var work = Work(piece: piece, partial: [], transfers: [], bytes: own.bytes.count)
            if owner == communicator.rank {
                for rank in 0..<communicator.count {
                    if rank == owner {
                        work.partial.append(own)
                        continue
                    }
                    let other = TransferBuffer(
                        byteCount: shards.pieces[piece].range.count * (format == .float32 ? 4 : 2))
                    work.partial.append(other)
                    work.transfers.append(
                        try communicator.receive(into: other, from: rank, tag: .gradients))
                }
            } else {
                work.transfers = [try communicator.send(own, to: owner, tag: .gradients)]
            }
            condition.lock()
            if start == nil { start = .now }
            if owner != communicator.rank { cost.bytes += own.bytes.count }
            waiting.append(work)
            bytesUnderWay += work.bytes
            condition.broadcast()
            while bytesUnderWay > Self.mostUnderWay, failure == nil { condition.wait() }
            condition.unlock()
        }
    }

    /// Waits for what is under way and writes the sums of the process's own pieces into its gradients.
    ///
    /// - Throws: `ProcessError`.
    func finish(_ gradients: [Tensor]) throws -> Cost {
        let begun = ContinuousClock.now
        condition.lock()
        while !waiting.isEmpty, failure == nil { condition.wait() }
        let result = sums
        let problem = failure
        var cost = cost
        if let start { cost.seconds = (ContinuousClock.now - start).seconds }
        cost.waited = (ContinuousClock.now - begun).seconds
        (sums, self.cost, start) = ([:], Cost(), nil)
        condition.unlock()
        if let problem { throw problem }
        for (piece, sum) in result {
            let gradient = gradients[shards.pieces[piece].parameter]
            try shards.part(piece, of: gradient).write(Array(sum.floats))
        }
        return cost
    }

    private func buffer(of gradient: Tensor) -> TransferBuffer {
        gradient.withUnsafeBytes { bytes in
            let buffer = TransferBuffer(byteCount: bytes.count)
            buffer.bytes.copyMemory(from: bytes)
            return buffer
        }
    }

    // MARK: The thread that moves bytes

    private var lastProgress = ContinuousClock.now

    /// Asks for every transfer under way and adds what has arrived; false once the exchange has been stopped.
    private func moveOn() -> Bool {
        condition.lock()
        if waiting.isEmpty {
            while waiting.isEmpty, !stopped, failure == nil { condition.wait() }
            lastProgress = .now
        }
        if stopped || failure != nil {
            condition.unlock()
            return !stopped && failure == nil
        }
        let works = waiting
        condition.unlock()
        var (done, moved): ([Int: TransferBuffer?], Bool) = ([:], false)
        var left: [Int: [Transfer]] = [:]
        do {
            for work in works {
                let open = try work.transfers.filter { try !communicator.isComplete($0) }
                if open.count < work.transfers.count { moved = true }
                if open.isEmpty {
                    done[work.piece] = .some(work.partial.isEmpty ? nil : sum(work.partial))
                } else {
                    left[work.piece] = open
                }
            }
            let now = ContinuousClock.now
            if moved || !done.isEmpty {
                lastProgress = now
            } else if now - lastProgress > .seconds(Patience.long), let slow = left.values.first?.first {
                throw ProcessError.noAnswer(rank: slow.rank, seconds: Int(Patience.long))
            }
        } catch {
            condition.withLock {
                failure = error
                condition.broadcast()
            }
            return false
        }
        condition.lock()
        for (piece, sum) in done { if let sum { sums[piece] = sum } }
        waiting = waiting.compactMap { work in
            if done[work.piece] != nil {
                bytesUnderWay -= work.bytes
                return nil
            }
            var work = work
            if let open = left[work.piece] { work.transfers = open }
            return work
        }
        condition.broadcast()
        condition.unlock()
        if done.isEmpty { usleep(200) }
        return true
    }

    /// The sum of all processes' parts, in the first one's buffer if that has float32 values.
    private func sum(_ partial: [TransferBuffer]) -> TransferBuffer {
        let wide = partial.enumerated().map { rank, buffer in
            format == .float32 || rank == communicator.rank ? buffer : Self.widened(buffer)
        }
        SummationTree.reduce(wide.count) { into, from in
            let (target, source) = (wide[into].floats, wide[from].floats)
            for index in target.indices { target[index] += source[index] }
        }
        return wide[0]
    }

    private static func widened(_ buffer: TransferBuffer) -> TransferBuffer {
        let narrow = buffer.bytes.bindMemory(to: UInt16.self)
        let result = TransferBuffer(byteCount: 4 * narrow.count)
        let values = result.floats
        for index in narrow.indices { values[index] = Float(bitPattern: UInt32(narrow[index]) << 16) }
        return result
    }
}
