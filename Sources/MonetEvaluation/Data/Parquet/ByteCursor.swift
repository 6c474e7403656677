/// Bytes that are read from front to back.
///
/// Every read is checked against the end: the sizes and counts in a file may be anything. What is behind a position
/// is reached through this type and `PackedNumbers` only.
struct ByteCursor {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    /// A cursor at the start of `bytes`, which must outlive it.
    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - position }

    /// The next `count` bytes; `purpose` names them in errors.
    mutating func take(_ count: Int, _ purpose: StaticString) throws -> UnsafeRawBufferPointer {
        guard count >= 0, count <= remaining else {
            throw ParquetFault.malformed("\(purpose) takes \(count) bytes, \(remaining) are left")
        }
        let part = UnsafeRawBufferPointer(rebasing: bytes[position..<(position + count)])
        position += count
        return part
    }

    /// All bytes that are left.
    mutating func takeRest() -> UnsafeRawBufferPointer {
        let part = UnsafeRawBufferPointer(rebasing: bytes[position...])
        position = bytes.count
        return part
    }

    mutating func byte(_ purpose: StaticString) throws -> UInt8 {
        guard position < bytes.count else { throw ParquetFault.malformed("the bytes end before \(purpose)") }
        defer { position += 1 }
        return bytes[position]
    }

    /// Four bytes, the lowest first, as a size.
    mutating func size(_ purpose: StaticString) throws -> Int {
        let part = try take(4, purpose)
        return Int(UInt32(littleEndian: part.loadUnaligned(as: UInt32.self)))
    }

    /// An unsigned number in groups of seven bits, the lowest first (ULEB128).
    mutating func variableLength(_ purpose: StaticString) throws -> UInt64 {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while true {
            let byte = try byte(purpose)
            let bits = UInt64(byte & 0x7f)
            guard shift < 63 || (shift == 63 && bits <= 1) else {
                throw ParquetFault.malformed("\(purpose) has more than 64 bits")
            }
            value |= bits << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
        }
    }

    /// An unsigned number that counts something, at most `limit`.
    mutating func count(_ purpose: StaticString, limit: Int) throws -> Int {
        let value = try variableLength(purpose)
        guard let count = Int(exactly: value), count <= limit else {
            throw ParquetFault.malformed("\(purpose) is \(value), expected at most \(limit)")
        }
        return count
    }

    /// A signed number whose lowest bit is the sign (zigzag).
    mutating func signed(_ purpose: StaticString) throws -> Int {
        let value = try variableLength(purpose)
        return Int(truncatingIfNeeded: value >> 1) ^ -Int(truncatingIfNeeded: value & 1)
    }
}

/// Unsigned numbers of `width` bits each, packed from the lowest bit of each byte up.
struct PackedNumbers: Sequence, IteratorProtocol {
    private let bytes: UnsafeRawBufferPointer
    private let width: Int
    private let mask: UInt64
    private var left: Int
    /// The first bit of the next number.
    private var bit = 0

    /// - Throws: `ParquetFault` unless `bytes` hold `count` numbers of 0 ... 64 bits.
    init(_ bytes: UnsafeRawBufferPointer, width: Int, count: Int) throws {
        guard (0...64).contains(width) else {
            throw ParquetFault.malformed("numbers of \(width) bits, expected at most 64")
        }
        let (bits, overflow) = width.multipliedReportingOverflow(by: count)
        guard count >= 0, !overflow, (bits + 7) / 8 <= bytes.count else {
            throw ParquetFault.malformed(
                "\(count) numbers of \(width) bits do not fit in the \(bytes.count) bytes that are left")
        }
        (self.bytes, self.width, left) = (bytes, width, count)
        mask = width == 64 ? UInt64.max : (1 << UInt64(width)) - 1
    }

    @inline(__always)
    mutating func next() -> UInt64? {
        guard left > 0 else { return nil }
        left -= 1
        let place = bit >> 3
        let shift = UInt64(bit & 7)
        bit += width
        guard place + 8 <= bytes.count else { return lastBytes(place) >> shift & mask }
        var value = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)) >> shift
        // The number's last bits may be in a ninth byte.
        if Int(shift) + width > 64 { value |= UInt64(bytes[place + 8]) << (64 - shift) }
        return value & mask
    }

    /// The bytes from `place` on, of which there are fewer than eight, as a number.
    private func lastBytes(_ place: Int) -> UInt64 {
        var value: UInt64 = 0
        for next in place..<bytes.count { value |= UInt64(bytes[next]) << UInt64(8 * (next - place)) }
        return value
    }
}
