import MonetFoundation

/// A mapped Parquet file: a table of named columns, as the Hugging Face hub and data frame libraries store data sets.
///
/// Values become those of JSON: structures become objects, lists and maps become arrays (of objects with `key` and
/// `value` for maps); dates, times and decimal numbers become text. The format is described in
/// https://github.com/apache/parquet-format.
package struct ParquetFile: Sendable {
    /// The names of the columns, in the order of the schema.
    package let columns: [String]
    /// How many rows there are.
    package let rowCount: Int
    private let path: String
    private let mapping: MappedFile
    private let schema: ParquetSchema
    private let rowGroups: [ParquetMetadata.RowGroup]

    /// Four bytes at both ends of a file; others at the end say that the footer is encrypted.
    private static let mark = Array("PAR1".utf8)
    private static let encryptedMark = Array("PARE".utf8)

    /// Maps a file, and reads and checks its footer.
    ///
    /// - Throws: `FileError.unreadable`, `ParquetError`.
    package init(path: String) throws {
        self.path = path
        let mapping = try MappedFile(path: path)
        self.mapping = mapping
        let footer = try Self.footer(mapping.bytes, path: path)
        let metadata: ParquetMetadata
        (metadata, schema) = try ParquetFault.located(path: path, column: nil) {
            let metadata = try ParquetMetadata(UnsafeRawBufferPointer(rebasing: mapping.bytes[footer]))
            return (metadata, try ParquetSchema(metadata.schema))
        }
        columns = schema.columns.map(\.name)
        rowCount = metadata.rowCount
        rowGroups = metadata.rowGroups
        try check(dataEnd: footer.lowerBound)
    }

    /// All rows, each an object with all columns.
    ///
    /// - Throws: `ParquetError`; `FileError.outOfMemory`.
    package func rows() throws -> [JSONValue] {
        try MemoryLimits.require(memory, for: "the \(rowCount.grouped) rows of \(path)")
        return try withExtendedLifetime(mapping) {
            var rows: [JSONValue] = []
            // The count is the footer's word; memory is taken for as many as there are bytes for.
            rows.reserveCapacity(min(rowCount, mapping.bytes.count))
            var budget = UnpackingBudget(fileSize: mapping.bytes.count)
            for group in rowGroups {
                let contents = try zip(schema.leaves, group.chunks).map { leaf, chunk in
                    try ParquetFault.located(path: path, column: leaf.name) {
                        var reader = try ColumnReader(leaf, chunk)
                        return try reader.read(
                            UnsafeRawBufferPointer(
                                rebasing: mapping.bytes[chunk.start..<(chunk.start + chunk.byteCount)]),
                            budget: &budget)
                    }
                }
                var assembly = RecordAssembly(path: path, schema: schema, columns: contents)
                for _ in 0..<group.rowCount { rows.append(try assembly.nextRow()) }
                try assembly.requireEnd()
            }
            return rows
        }
    }

    /// About how many bytes the rows take: an array for each, a place for each value, and what values are made of.
    private var memory: Int {
        let arrayHeader = 32
        var total = rowCount * (arrayHeader + MemoryLayout<JSONValue>.stride)
        for chunk in rowGroups.lazy.flatMap(\.chunks) {
            total += chunk.valueCount * MemoryLayout<JSONValue.Member>.stride
            // As far as it is possible.
            total += min(max(0, chunk.decompressedByteCount), 1024 * chunk.byteCount)
        }
        return total
    }

    /// The range of the footer's bytes.
    private static func footer(_ bytes: UnsafeRawBufferPointer, path: String) throws -> Range<Int> {
        func fail(_ reason: String) -> ParquetError { .notParquet(path: path, reason: reason) }
        // The mark, the footer, its size and the mark again.
        guard bytes.count >= 12 else { throw fail("it has \(bytes.count) bytes, expected at least 12") }
        let end = bytes.suffix(4)
        if end.elementsEqual(encryptedMark) { throw ParquetError.encrypted(path: path, column: nil) }
        guard bytes.starts(with: mark) else {
            throw fail("it begins with the bytes \(bytes.prefix(4).hexadecimal), expected \"PAR1\"")
        }
        guard end.elementsEqual(mark) else {
            throw fail(
                "it ends with the bytes \(end.hexadecimal), expected \"PAR1\"; it may be incomplete")
        }
        let place = bytes.count - 8
        let size = Int(
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self)))
        guard size <= place - 4 else {
            throw ParquetError.malformedFooter(
                path: path, reason: "it takes \(size) bytes, the file has \(place - 4) for it")
        }
        return (place - size)..<place
    }

    /// Checks that what the footer says goes together and lies in the file, whose pages end at `dataEnd`.
    private func check(dataEnd: Int) throws {
        func fail(_ reason: String) -> ParquetError { .malformedFooter(path: path, reason: reason) }
        // A few bytes can stand for a million equal values, but no file that holds data comes close to this.
        let limit = 1 << 20 + 1024 * mapping.bytes.count
        func require(_ count: Int, _ what: String) throws {
            guard count >= 0 else { throw fail("\(count) \(what)") }
            guard count <= limit else {
                throw ParquetError.tooLarge(path: path, what: what, found: count, limit: limit)
            }
        }
        try require(rowCount, "rows")
        var rowsSoFar = 0
        var valuesSoFar = 0
        var bytesSoFar = 0
        for (number, group) in rowGroups.enumerated() {
            guard group.chunks.count == schema.leaves.count else {
                throw fail(
                    "row group \(number) has \(group.chunks.count) columns, expected \(schema.leaves.count)")
            }
            try require(group.rowCount, "rows in a row group")
            rowsSoFar += group.rowCount
            try require(rowsSoFar, "rows in all row groups")
            for (leaf, chunk) in zip(schema.leaves, group.chunks) {
                try require(chunk.valueCount, "values in a column")
                // Every structure and list on the path may be there for one value alone.
                valuesSoFar += chunk.valueCount * leaf.path.count
                try require(valuesSoFar, "values with their structures and lists")
                try check(chunk, leaf, rowCount: group.rowCount, dataEnd: dataEnd)
                bytesSoFar += chunk.byteCount
                // Pages that are shared would be read as often as there are columns and row groups.
                guard bytesSoFar <= dataEnd else {
                    throw fail("the pages take \(bytesSoFar) bytes or more, the file has \(dataEnd)")
                }
            }
        }
        guard rowsSoFar == rowCount else {
            throw fail("\(rowCount) rows, the row groups have \(rowsSoFar)")
        }
    }

    private func check(
        _ chunk: ParquetMetadata.ColumnChunk, _ leaf: ParquetLeaf, rowCount: Int, dataEnd: Int
    ) throws {
        func fail(_ reason: String) -> ParquetError {
            .malformedColumn(path: path, column: leaf.name, reason: reason)
        }
        if chunk.isEncrypted { throw ParquetError.encrypted(path: path, column: leaf.name) }
        if let file = chunk.externalFile {
            throw fail("its pages are in another file, \(file), expected them in this one")
        }
        guard chunk.path == leaf.path else {
            throw fail("a row group has the column \(chunk.path.joined(separator: ".")) in its place")
        }
        guard chunk.type == leaf.type.rawValue else {
            throw fail(
                "a row group stores it as \(PhysicalType(rawValue: chunk.type)?.name ?? "type \(chunk.type)"), expected \(leaf.type.name)"
            )
        }
        guard leaf.repetition > 0 ? chunk.valueCount >= rowCount : chunk.valueCount == rowCount else {
            throw fail("it has \(chunk.valueCount) values in a row group of \(rowCount) rows")
        }
        guard chunk.start >= 0, chunk.byteCount >= 0, chunk.start <= dataEnd,
            chunk.byteCount <= dataEnd - chunk.start
        else {
            throw fail(
                "its pages take \(chunk.byteCount) bytes from byte \(chunk.start), the file has \(dataEnd) before its footer"
            )
        }
    }
}
