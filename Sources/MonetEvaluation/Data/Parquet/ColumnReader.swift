import MonetFoundation

/// What a row group has in a column: its values without the nulls, and the levels from which the nulls and lists
/// follow.
struct ColumnContent {
    /// How many values there are with nulls and empty lists.
    fileprivate(set) var count = 0
    fileprivate(set) var values: [JSONValue] = []
    /// The level of each; empty if none is optional or repeated.
    fileprivate(set) var definitions: [UInt8] = []
    /// The level of each; empty if none is repeated.
    fileprivate(set) var repetitions: [UInt8] = []
}

/// Reads the pages of a column in a row group.
struct ColumnReader {
    private let leaf: ParquetLeaf
    private let chunk: ParquetMetadata.ColumnChunk
    private let codec: ParquetCodec
    private let decoder: ValueDecoder
    private var dictionary: [JSONValue]?
    private var content = ColumnContent()

    /// - Throws: `ParquetFault` for a column that is not read.
    init(_ leaf: ParquetLeaf, _ chunk: ParquetMetadata.ColumnChunk) throws {
        if case .other(let name) = leaf.annotation { throw ParquetFault.type(name) }
        (self.leaf, self.chunk) = (leaf, chunk)
        codec = try ParquetCodec.supported(chunk.codec)
        decoder = ValueDecoder(leaf: leaf)
    }

    /// Reads all pages.
    ///
    /// - `bytes`: those of the column in the row group.
    /// - Throws: `ParquetFault`.
    mutating func read(_ bytes: UnsafeRawBufferPointer, budget: inout UnpackingBudget) throws -> ColumnContent
    {
        var cursor = ByteCursor(bytes)
        // The count is the footer's word; memory is taken for as many as there are bytes for.
        content.values.reserveCapacity(min(chunk.valueCount, bytes.count))
        while content.count < chunk.valueCount {
            guard cursor.remaining > 0 else {
                throw ParquetFault.malformed(
                    "the pages end after \(content.count) values, expected \(chunk.valueCount)")
            }
            let header = try PageHeader(&cursor)
            try budget.spend(header.size)
            try readPage(header, cursor.take(header.compressedSize, "a page"), &budget)
        }
        return content
    }

    private mutating func readPage(
        _ header: PageHeader, _ bytes: UnsafeRawBufferPointer, _ budget: inout UnpackingBudget
    ) throws {
        switch header.kind {
        case .dictionary(let count, let encoding):
            guard dictionary == nil, content.count == 0 else {
                throw ParquetFault.malformed("a second dictionary, or one after values")
            }
            guard encoding == .plain || encoding == .plainDictionary, leaf.type != .boolean else {
                throw ParquetFault.encoding("of a dictionary", type: leaf.type.name)
            }
            var values: [JSONValue] = []
            try codec.withDecompressed(bytes, size: header.size) {
                var cursor = ByteCursor($0)
                try decoder.decodePlain(&cursor, count, &values)
            }
            dictionary = values
        case .data(let page):
            try require(page.count)
            try codec.withDecompressed(bytes, size: header.size) {
                try readData(page, ByteCursor($0), &budget)
            }
        case .dataWithPlainLevels(let page):
            try require(page.count)
            var cursor = ByteCursor(bytes)
            let repetitions = try cursor.take(page.repetitionByteCount, "repetition levels")
            let definitions = try cursor.take(page.definitionByteCount, "definition levels")
            if leaf.repetition > 0 {
                _ = try LevelReader.readRuns(
                    repetitions, count: page.count, maximum: leaf.repetition, into: &content.repetitions)
            }
            var valueCount = page.count
            if leaf.definition > 0 {
                valueCount = try LevelReader.readRuns(
                    definitions, count: page.count, maximum: leaf.definition, into: &content.definitions)
            }
            content.count += page.count
            let size = header.size - repetitions.count - definitions.count
            guard valueCount > 0 else { return }
            try (page.isCompressed ? codec : .uncompressed).withDecompressed(cursor.takeRest(), size: size) {
                try decoder.decode(
                    $0, encoding: page.encoding, count: valueCount, dictionary: dictionary, budget: &budget,
                    into: &content.values)
            }
        case .other: break
        }
    }

    /// Checks that a page has no more values than the column has left.
    private func require(_ count: Int) throws {
        let left = chunk.valueCount - content.count
        guard (0...left).contains(count) else {
            throw ParquetFault.malformed("a page of \(count) values, the column has \(left) left")
        }
    }

    /// Reads a page of the first version, whose levels are compressed with the values.
    private mutating func readData(
        _ page: PageHeader.Data, _ start: ByteCursor, _ budget: inout UnpackingBudget
    ) throws {
        var cursor = start
        if leaf.repetition > 0 {
            _ = try Self.readLevels(
                &cursor, page.repetitionEncoding, page.count, leaf.repetition, &content.repetitions)
        }
        var valueCount = page.count
        if leaf.definition > 0 {
            valueCount = try Self.readLevels(
                &cursor, page.definitionEncoding, page.count, leaf.definition, &content.definitions)
        }
        content.count += page.count
        guard valueCount > 0 else { return }
        try decoder.decode(
            cursor.takeRest(), encoding: page.encoding, count: valueCount, dictionary: dictionary,
            budget: &budget, into: &content.values)
    }

    private static func readLevels(
        _ cursor: inout ByteCursor, _ encoding: Int, _ count: Int, _ maximum: Int, _ levels: inout [UInt8]
    ) throws -> Int {
        switch ParquetEncoding(rawValue: encoding) {
        case .runs:
            let bytes = try cursor.take(cursor.size("the levels' size"), "levels")
            return try LevelReader.readRuns(bytes, count: count, maximum: maximum, into: &levels)
        case .bitPacked:
            return try LevelReader.readPacked(&cursor, count: count, maximum: maximum, into: &levels)
        default:
            throw ParquetFault.encoding(ParquetEncoding.name(encoding), type: "levels")
        }
    }
}
