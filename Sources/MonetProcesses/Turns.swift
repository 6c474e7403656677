import Foundation

extension Communicator {
    /// What every process contributes, at the first process in the order of ranks; empty at the others.
    ///
    /// - Throws: `ProcessError`.
    public func collect(_ own: Data, patience: Double = Patience.long) throws -> [Data] {
        guard isShared else { return [own] }
        guard isFirst else {
            let size = TransferBuffer(byteCount: 8)
            size.bytes.storeBytes(of: UInt64(own.count), as: UInt64.self)
            let transfers = [
                try send(size, to: 0, tag: .sizes), try send(TransferBuffer(own), to: 0, tag: .values),
            ]
            try wait(for: transfers, patience: patience)
            return []
        }
        let others = 1..<count
        let sizes = others.map { _ in TransferBuffer(byteCount: 8) }
        try wait(
            for: try zip(others, sizes).map { try receive(into: $1, from: $0, tag: .sizes) },
            patience: patience)
        let bodies = try zip(others, sizes).map { try room(for: $1, from: $0) }
        try wait(
            for: try zip(others, bodies).map { try receive(into: $1, from: $0, tag: .values) },
            patience: patience)
        return [own] + bodies.map { Data($0.bytes) }
    }

    /// Computes pieces of work in turn, piece n at process n modulo their number, and takes the results in order at the
    /// first process: the same as one process that computes all of them.
    ///
    /// - Parameters:
    ///   - next: the next piece, nil after the last. Every process asks for all of them.
    ///   - compute: the result of a piece.
    ///   - encode: a result as bytes, for the first process.
    ///   - decode: a result from these bytes; the rank is the one that computed it.
    ///   - take: called at the first process with every piece and its result; false stops all processes.
    /// - Returns: whether all pieces were taken.
    /// - Throws: `ProcessError`, and what the closures throw.
    public func inTurns<Piece, Value>(
        next: () throws -> Piece?, compute: (Piece) throws -> Value, encode: (Value) throws -> Data,
        decode: (Data, Piece, _ rank: Int) throws -> Value, take: (Piece, Value) throws -> Bool
    ) throws -> Bool {
        while true {
            var pieces: [Piece] = []
            while pieces.count < count, let piece = try next() { pieces.append(piece) }
            if pieces.isEmpty { return true }
            let own = rank < pieces.count ? try compute(pieces[rank]) : nil
            let all = isShared ? try collect(own.map(encode) ?? Data()) : []
            var goesOn = true
            if isFirst {
                for (place, piece) in pieces.enumerated() where goesOn {
                    guard let value = place == 0 ? own : try decode(all[place], piece, place) else {
                        continue
                    }
                    goesOn = try take(piece, value)
                }
            }
            if isShared { goesOn = try gather([goesOn ? 1.0 : 0]).allSatisfy { $0 == [1] } }
            if !goesOn { return false }
        }
    }
}

/// Lists of numbers as bytes, for other processes.
public struct NumberEncoder {
    /// What was appended, each list after its count.
    public private(set) var data = Data()

    /// An empty message.
    public init() {}

    /// Appends a list.
    public mutating func append<Number: BitwiseCopyable>(_ numbers: [Number]) {
        var count = UInt64(numbers.count)
        withUnsafeBytes(of: &count) { data.append(contentsOf: $0) }
        numbers.withUnsafeBytes { data.append(contentsOf: $0) }
    }
}

/// Reads what `NumberEncoder` wrote, in the same order.
public struct NumberDecoder {
    private let data: Data
    private let rank: Int
    private var place = 0

    /// - `rank`: the process that sent the bytes, for errors.
    public init(_ data: Data, rank: Int) {
        self.data = data
        self.rank = rank
    }

    /// The next list.
    ///
    /// - Throws: `ProcessError.unexpectedAnswer` if the bytes hold less.
    public mutating func next<Number: BitwiseCopyable>(_ type: Number.Type) throws -> [Number] {
        let size = MemoryLayout<Number>.stride
        let left = data.count - place - 8
        let count =
            left < 0 ? nil : data.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place, as: UInt64.self) }
        guard let count, count <= UInt64(left / size) else {
            throw ProcessError.unexpectedAnswer(
                rank: rank, expected: "a list of numbers", found: "\(max(0, left)) bytes")
        }
        place += 8
        defer { place += Int(count) * size }
        return data.withUnsafeBytes { bytes in
            (0..<Int(count)).map { bytes.loadUnaligned(fromByteOffset: place + $0 * size, as: Number.self) }
        }
    }
}
