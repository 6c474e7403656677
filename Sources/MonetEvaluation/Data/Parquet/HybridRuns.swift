/// Numbers as runs of one value and groups of packed ones: levels, places in a dictionary, and booleans (RLE).
enum HybridRuns {
    /// Reads `count` numbers of `width` bits: calls `body` with a number and how many times it stands there.
    ///
    /// - Throws: `ParquetFault` if there are fewer.
    @inline(__always)
    static func read(
        _ cursor: inout ByteCursor, width: Int, count: Int,
        _ body: (_ value: Int, _ times: Int) throws -> Void
    ) throws {
        var left = count
        while left > 0 {
            let header = try cursor.variableLength("a run")
            guard header > 1, let length = Int(exactly: header >> 1), length <= Int(Int32.max) else {
                throw ParquetFault.malformed("a run of \(header >> 1) values")
            }
            if header & 1 == 0 {
                let times = min(left, length)
                let bytes = try cursor.take((width + 7) / 8, "a run's value")
                let value = bytes.reversed().reduce(0) { $0 << 8 | Int($1) }
                try body(value, times)
                left -= times
            } else {
                let times = min(left, 8 * length)
                // Some writers leave out what follows the last value.
                let bytes = try cursor.take(min(length * width, cursor.remaining), "packed values")
                for number in try PackedNumbers(bytes, width: width, count: times) {
                    try body(Int(number), 1)
                }
                left -= times
            }
        }
    }
}

/// The levels of a page, which say where values are missing and which lists go on.
enum LevelReader {
    /// How many bits a level up to `maximum` takes.
    static func width(_ maximum: Int) -> Int { Int.bitWidth - maximum.leadingZeroBitCount }

    /// Reads `count` levels in runs and appends them.
    ///
    /// - Returns: how many of them are `maximum`.
    /// - Throws: `ParquetFault` for a level above `maximum`.
    static func readRuns(
        _ bytes: UnsafeRawBufferPointer, count: Int, maximum: Int, into levels: inout [UInt8]
    ) throws -> Int {
        var cursor = ByteCursor(bytes)
        var full = 0
        try HybridRuns.read(&cursor, width: width(maximum), count: count) { level, times in
            guard level <= maximum else { throw outOfRange(level, maximum) }
            if level == maximum { full += times }
            if times == 1 {
                levels.append(UInt8(truncatingIfNeeded: level))
            } else {
                levels.append(contentsOf: repeatElement(UInt8(truncatingIfNeeded: level), count: times))
            }
        }
        return full
    }

    /// Reads levels that old writers packed from the highest bit of each byte down (BIT_PACKED).
    static func readPacked(
        _ cursor: inout ByteCursor, count: Int, maximum: Int, into levels: inout [UInt8]
    ) throws -> Int {
        let width = width(maximum)
        let bytes = try cursor.take((count * width + 7) / 8, "packed levels")
        var full = 0
        var pending = 0
        var pendingBits = 0
        var left = count
        for byte in bytes {
            pending = pending << 8 | Int(byte)
            pendingBits += 8
            while pendingBits >= width, left > 0 {
                pendingBits -= width
                let level = pending >> pendingBits
                pending &= 1 << pendingBits - 1
                guard level <= maximum else { throw outOfRange(level, maximum) }
                if level == maximum { full += 1 }
                levels.append(UInt8(truncatingIfNeeded: level))
                left -= 1
            }
        }
        return full
    }

    private static func outOfRange(_ level: Int, _ maximum: Int) -> ParquetFault {
        .malformed("a level is \(level), expected at most \(maximum)")
    }
}
