import Foundation

extension Communicator {
    /// What every process contributes, at the first process in the order of ranks; empty at the others.
    ///
    /// - `pieceBytes`: contributions travel in pieces of at most so many bytes; a message of MPI holds less than 2 GiB.
    /// - Throws: `ProcessError`.
    public func collect(
        _ own: Data, pieceBytes: Int = 1 << 30, patience: Double = Patience.long
    ) throws -> [Data] {
        guard isShared else { return [own] }
        guard isFirst else {
            let size = TransferBuffer(byteCount: 8)
            size.bytes.storeBytes(of: UInt64(own.count), as: UInt64.self)
            try wait(for: [try send(size, to: 0, tag: .sizes)], patience: patience)
            for start in stride(from: 0, to: own.count, by: pieceBytes) {
                let piece = TransferBuffer(own.dropFirst(start).prefix(pieceBytes))
                try wait(for: [try send(piece, to: 0, tag: .values)], patience: patience)
            }
            return []
        }
        let sizes = (1..<count).map { _ in TransferBuffer(byteCount: 8) }
        try wait(
            for: try sizes.enumerated().map { try receive(into: $1, from: $0 + 1, tag: .sizes) },
            patience: patience)
        let counts = sizes.map { $0.bytes.load(as: UInt64.self) }
        var bodies = counts.map { _ in Data() }
        // Memory is reserved piece by piece as bytes arrive: a process of another version may announce any size.
        while case let open = counts.indices.filter({ UInt64(bodies[$0].count) < counts[$0] }), !open.isEmpty
        {
            let pieces = open.map { place in
                let left = counts[place] - UInt64(bodies[place].count)
                return TransferBuffer(byteCount: Int(min(left, UInt64(pieceBytes))))
            }
            try wait(
                for: try zip(open, pieces).map { try receive(into: $1, from: $0 + 1, tag: .values) },
                patience: patience)
            for (place, piece) in zip(open, pieces) { bodies[place].append(contentsOf: piece.bytes) }
        }
        return [own] + bodies
    }

    /// Computes pieces of work in turn, piece n at process n modulo their number, and takes the results in order at the
    /// first process: the same as one process that computes all of them.
    ///
    /// - Parameters:
    ///   - next: the next piece, nil after the last. Every process asks for all of them.
    ///   - compute: the result of a piece.
    ///   - encode: a result as bytes, for the first process.
    ///   - decode: a result from these bytes; the rank is the one that computed it.
    ///   - isCancelled: asked at every process after its pieces; true stops all processes.
    ///   - take: called at the first process with every piece and its result; false stops all processes.
    /// - Returns: whether all pieces were taken.
    /// - Throws: `ProcessError`, and what the closures throw.
    public func inTurns<Piece, Value>(
        next: () throws -> Piece?, compute: (Piece) throws -> Value, encode: (Value) throws -> Data,
        decode: (Data, Piece, _ rank: Int) throws -> Value, isCancelled: () -> Bool = { false },
        take: (Piece, Value) throws -> Bool
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
            if isCancelled() { goesOn = false }
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
