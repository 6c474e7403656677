/// Integers as differences to the one before, packed in blocks (DELTA_BINARY_PACKED).
enum DeltaIntegers {
    /// Reads `count` integers up to the end of their last block.
    ///
    /// Differences wrap around as the writer's did: of INT32 values, the lower 32 bits are right.
    ///
    /// - Throws: `ParquetFault` if there are not exactly as many.
    @inline(__always)
    static func read(_ cursor: inout ByteCursor, count: Int, _ body: (Int) throws -> Void) throws {
        // Writers choose 128 to a few thousand.
        let blockSize = try cursor.count("a block's size", limit: 1 << 20)
        let partCount = try cursor.count("the number of a block's parts", limit: 1 << 16)
        let total = try cursor.count("the number of integers", limit: Int(Int32.max))
        guard total == count else { throw ParquetFault.malformed("\(total) integers, expected \(count)") }
        guard partCount > 0, blockSize > 0, blockSize % partCount == 0, blockSize / partCount % 8 == 0 else {
            throw ParquetFault.malformed("blocks of \(blockSize) integers in \(partCount) parts")
        }
        var value = try cursor.signed("the first integer")
        guard count > 0 else { return }
        try body(value)
        let partSize = blockSize / partCount
        var left = count - 1
        while left > 0 {
            let minimum = try cursor.signed("a block's least difference")
            let widths = try cursor.take(partCount, "a block's widths")
            // Parts after the last value have a width, and no bytes.
            for width in widths where left > 0 {
                let times = min(left, partSize)
                let bytes = try cursor.take(partSize * Int(width) / 8, "a block's part")
                for step in try PackedNumbers(bytes, width: Int(width), count: times) {
                    value = value &+ minimum &+ Int(bitPattern: UInt(step))
                    try body(value)
                }
                left -= times
            }
        }
    }

    /// Reads `count` lengths.
    ///
    /// - Throws: `ParquetFault` for one that no value can have.
    static func readLengths(_ cursor: inout ByteCursor, count: Int) throws -> [Int] {
        var lengths: [Int] = []
        try read(&cursor, count: count) { value in
            guard (0...Int(Int32.max)).contains(value) else {
                throw ParquetFault.malformed("a length is \(value)")
            }
            lengths.append(value)
        }
        return lengths
    }
}
