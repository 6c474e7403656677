import MonetFoundation

/// How values or levels are written in a page.
enum ParquetEncoding: Int, Sendable {
    case plain = 0
    case plainDictionary = 2
    case runs, bitPacked, deltaBinaryPacked, deltaLengthByteArray, deltaByteArray, dictionary, byteStreamSplit

    /// The name in the format's description.
    static func name(_ code: Int) -> String {
        switch ParquetEncoding(rawValue: code) {
        case .plain: "PLAIN"
        case .plainDictionary: "PLAIN_DICTIONARY"
        case .runs: "RLE"
        case .bitPacked: "BIT_PACKED"
        case .deltaBinaryPacked: "DELTA_BINARY_PACKED"
        case .deltaLengthByteArray: "DELTA_LENGTH_BYTE_ARRAY"
        case .deltaByteArray: "DELTA_BYTE_ARRAY"
        case .dictionary: "RLE_DICTIONARY"
        case .byteStreamSplit: "BYTE_STREAM_SPLIT"
        case nil: "number \(code)"
        }
    }
}

/// How many bytes may still be unpacked from a file.
///
/// Small files can be written that unpack to more than any memory holds. Those that hold data do not come close.
struct UnpackingBudget {
    private let limit: Int
    private var spent = 0

    init(fileSize: Int) { limit = 1 << 24 + 1024 * fileSize }

    mutating func spend(_ count: Int) throws {
        spent += count
        guard spent <= limit else {
            throw ParquetFault.tooLarge(what: "bytes or more unpacked", found: spent, limit: limit)
        }
    }
}

/// Decodes the values of a column, nulls left out.
struct ValueDecoder {
    let leaf: ParquetLeaf

    /// Appends `count` values.
    ///
    /// - `dictionary`: the values of the column's dictionary page, if it has come.
    /// - Throws: `ParquetFault`.
    func decode(
        _ bytes: UnsafeRawBufferPointer, encoding code: Int, count: Int, dictionary: [JSONValue]?,
        budget: inout UnpackingBudget, into values: inout [JSONValue]
    ) throws {
        var cursor = ByteCursor(bytes)
        switch (ParquetEncoding(rawValue: code), leaf.type) {
        case (.plain, _): try decodePlain(&cursor, count, &values)
        case (.dictionary, _), (.plainDictionary, _):
            guard let dictionary else {
                throw ParquetFault.malformed("a page refers to a dictionary, and there is none")
            }
            try decodeReferences(&cursor, count, dictionary, &values)
        case (.runs, .boolean):
            var runs = ByteCursor(try cursor.take(cursor.size("the runs' size"), "the runs"))
            try HybridRuns.read(&runs, width: 1, count: count) { bit, times in
                values.append(contentsOf: repeatElement(leaf.value(bool: bit == 1), count: times))
            }
        case (.deltaBinaryPacked, .int32):
            try DeltaIntegers.read(&cursor, count: count) {
                values.append(try leaf.value(integer: Int(Int32(truncatingIfNeeded: $0))))
            }
        case (.deltaBinaryPacked, .int64):
            try DeltaIntegers.read(&cursor, count: count) { values.append(try leaf.value(integer: $0)) }
        case (.deltaLengthByteArray, .byteArray):
            for length in try DeltaIntegers.readLengths(&cursor, count: count) {
                values.append(try leaf.value(bytes: cursor.take(length, "a value")))
            }
        case (.deltaByteArray, .byteArray), (.deltaByteArray, .fixedLengthByteArray):
            try decodeDeltaBytes(&cursor, count, &budget, &values)
        case (.byteStreamSplit, .int32), (.byteStreamSplit, .int64), (.byteStreamSplit, .float),
            (.byteStreamSplit, .double), (.byteStreamSplit, .fixedLengthByteArray):
            try decodeSplit(&cursor, count, &values)
        default:
            throw ParquetFault.encoding(ParquetEncoding.name(code), type: leaf.type.name)
        }
    }

    /// Appends values that stand one after another.
    func decodePlain(_ cursor: inout ByteCursor, _ count: Int, _ values: inout [JSONValue]) throws {
        switch leaf.type {
        case .boolean:
            for bit in try PackedNumbers(cursor.takeRest(), width: 1, count: count) {
                values.append(leaf.value(bool: bit == 1))
            }
        case .byteArray:
            for _ in 0..<count {
                let length = try cursor.size("a value's length")
                values.append(try leaf.value(bytes: cursor.take(length, "a value")))
            }
        default:
            let bytes = try cursor.take(count * leaf.width, "the values")
            for index in 0..<count { values.append(try value(bytes, at: index * leaf.width)) }
        }
    }

    /// The value of a type of fixed size that begins at `offset`, where there are `leaf.width` bytes.
    @inline(__always)
    private func value(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws -> JSONValue {
        switch leaf.type {
        case .int32:
            try leaf.value(
                integer: Int(Int32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int32.self)))
            )
        case .int64:
            try leaf.value(
                integer: Int(Int64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: Int64.self)))
            )
        case .float:
            leaf.value(
                number: Double(
                    Float(
                        bitPattern: UInt32(
                            littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))))
        case .double:
            leaf.value(
                number: Double(
                    bitPattern: UInt64(
                        littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))))
        default:
            try leaf.value(bytes: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + leaf.width)]))
        }
    }

    /// Appends values of the dictionary: a byte with the references' width, and the references in runs.
    private func decodeReferences(
        _ cursor: inout ByteCursor, _ count: Int, _ dictionary: [JSONValue], _ values: inout [JSONValue]
    ) throws {
        let width = Int(try cursor.byte("the references' width"))
        guard width <= 32 else {
            throw ParquetFault.malformed("references to the dictionary of \(width) bits, expected at most 32")
        }
        try HybridRuns.read(&cursor, width: width, count: count) { place, times in
            guard place < dictionary.count else {
                throw ParquetFault.malformed(
                    "a value refers to place \(place) of the dictionary, which has \(dictionary.count)")
            }
            if times == 1 {
                values.append(dictionary[place])
            } else {
                values.append(contentsOf: repeatElement(dictionary[place], count: times))
            }
        }
    }

    /// Appends byte arrays that begin as the one before (DELTA_BYTE_ARRAY).
    private func decodeDeltaBytes(
        _ cursor: inout ByteCursor, _ count: Int, _ budget: inout UnpackingBudget, _ values: inout [JSONValue]
    ) throws {
        let prefixes = try DeltaIntegers.readLengths(&cursor, count: count)
        let suffixes = try DeltaIntegers.readLengths(&cursor, count: count)
        var current: [UInt8] = []
        var last: JSONValue?
        for (prefix, suffix) in zip(prefixes, suffixes) {
            let end = try cursor.take(suffix, "a value's end")
            guard prefix <= current.count else {
                throw ParquetFault.malformed(
                    "a value repeats \(prefix) bytes of the one before, which has \(current.count)")
            }
            // The same value again shares its memory.
            if suffix == 0, prefix == current.count, let last {
                values.append(last)
                continue
            }
            current.removeSubrange(prefix...)
            current.append(contentsOf: end)
            guard leaf.type == .byteArray || current.count == leaf.width else {
                throw ParquetFault.malformed("a value of \(current.count) bytes, expected \(leaf.width)")
            }
            try budget.spend(current.count)
            let value = try current.withUnsafeBytes { try leaf.value(bytes: $0) }
            values.append(value)
            last = value
        }
    }

    /// Appends values whose first bytes stand together, then their second bytes, and so on (BYTE_STREAM_SPLIT).
    private func decodeSplit(
        _ cursor: inout ByteCursor, _ count: Int, _ values: inout [JSONValue]
    ) throws {
        let width = leaf.width
        let bytes = cursor.takeRest()
        guard bytes.count == count * width else {
            throw ParquetFault.malformed(
                "\(count) values of \(width) bytes in \(bytes.count) bytes, expected \(count * width)")
        }
        var value = [UInt8](repeating: 0, count: width)
        for index in 0..<count {
            for place in 0..<width { value[place] = bytes[place * count + index] }
            values.append(try value.withUnsafeBytes { try self.value($0, at: 0) })
        }
    }
}
