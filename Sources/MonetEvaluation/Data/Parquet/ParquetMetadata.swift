/// What a Parquet file's footer says: the types of the columns, and where their pages are.
struct ParquetMetadata: Sendable {
    private(set) var schema: [SchemaElement] = []
    private(set) var rowCount = 0
    private(set) var rowGroups: [RowGroup] = []

    /// A number of rows, all columns of which are stored together.
    struct RowGroup: Sendable {
        var rowCount = 0
        /// One for each column without parts, in the order of the schema.
        var chunks: [ColumnChunk] = []
    }

    /// The pages of a column in a row group.
    struct ColumnChunk: Sendable {
        var type = -1
        /// The names from the top-level column down.
        var path: [String] = []
        var codec = 0
        /// Values with nulls and empty lists.
        var valueCount = 0
        /// Bytes of all pages with their headers.
        var byteCount = 0
        /// The same after decompression.
        var decompressedByteCount = 0
        var dataPageOffset = -1
        var dictionaryPageOffset: Int?
        var isEncrypted = false
        /// The other file that holds the pages, which no common writer makes use of.
        var externalFile: String?

        /// Where the first page begins.
        var start: Int {
            // Writers without a dictionary wrote 0.
            guard let dictionaryPageOffset, dictionaryPageOffset > 0 else { return dataPageOffset }
            return min(dictionaryPageOffset, dataPageOffset)
        }
    }

    /// Reads the footer's bytes.
    ///
    /// - Throws: `ParquetFault`.
    init(_ bytes: UnsafeRawBufferPointer) throws {
        var reader = ThriftReader(ByteCursor(bytes))
        try reader.structure { reader, field in
            switch field.id {
            case 2: try reader.list(field.kind) { schema.append(try SchemaElement(&$0, $1)) }
            case 3: rowCount = try reader.integer(field.kind)
            case 4: try reader.list(field.kind) { rowGroups.append(try Self.rowGroup(&$0, $1)) }
            default: try reader.skip(field.kind)
            }
        }
    }

    private static func rowGroup(_ reader: inout ThriftReader, _ kind: ThriftReader.Kind) throws -> RowGroup {
        var group = RowGroup()
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: try reader.list(field.kind) { group.chunks.append(try chunk(&$0, $1)) }
            case 3: group.rowCount = try reader.integer(field.kind)
            default: try reader.skip(field.kind)
            }
        }
        return group
    }

    private static func chunk(_ reader: inout ThriftReader, _ kind: ThriftReader.Kind) throws -> ColumnChunk {
        var chunk = ColumnChunk()
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: chunk.externalFile = try reader.text(field.kind)
            case 3: try readMetadata(&reader, field.kind, into: &chunk)
            case 8, 9:
                chunk.isEncrypted = true
                try reader.skip(field.kind)
            default: try reader.skip(field.kind)
            }
        }
        return chunk
    }

    private static func readMetadata(
        _ reader: inout ThriftReader, _ kind: ThriftReader.Kind, into chunk: inout ColumnChunk
    ) throws {
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: chunk.type = try reader.integer(field.kind)
            case 3: try reader.list(field.kind) { chunk.path.append(try $0.text($1)) }
            case 4: chunk.codec = try reader.integer(field.kind)
            case 5: chunk.valueCount = try reader.integer(field.kind)
            case 6: chunk.decompressedByteCount = try reader.integer(field.kind)
            case 7: chunk.byteCount = try reader.integer(field.kind)
            case 9: chunk.dataPageOffset = try reader.integer(field.kind)
            case 11: chunk.dictionaryPageOffset = try reader.integer(field.kind)
            default: try reader.skip(field.kind)
            }
        }
    }
}

/// A line of the schema as the footer has it: the tree of columns, from the root down.
struct SchemaElement: Sendable {
    private(set) var name = ""
    /// The type of the stored values; nil for a group.
    private(set) var type: Int?
    private(set) var length = 0
    private(set) var repetition = 0
    private(set) var childCount = 0
    /// How values are to be understood; nil if only the stored type says it.
    private(set) var annotation: Annotation?

    /// What the values of a column or the children of a group mean.
    enum Annotation: Sendable, Equatable {
        /// Text, also of an enumeration or of JSON.
        case text
        case list
        case map
        case decimal(scale: Int)
        case date
        case time(TimeUnit)
        case timestamp(TimeUnit, isUTC: Bool)
        case unsigned
        /// Columns of nothing but nulls.
        case null
        case uuid
        case float16
        /// A type without a counterpart in JSON.
        case other(String)
    }

    enum TimeUnit: Int, Sendable {
        case milliseconds = 1
        case microseconds, nanoseconds

        var perSecond: Int {
            switch self {
            case .milliseconds: 1000
            case .microseconds: 1_000_000
            case .nanoseconds: 1_000_000_000
            }
        }
    }

    fileprivate init(_ reader: inout ThriftReader, _ kind: ThriftReader.Kind) throws {
        var convertedType: Int?
        var scale = 0
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: type = try reader.integer(field.kind)
            case 2: length = try reader.integer(field.kind)
            case 3: repetition = try reader.integer(field.kind)
            case 4: name = try reader.text(field.kind)
            case 5: childCount = try reader.integer(field.kind)
            case 6: convertedType = try reader.integer(field.kind)
            case 7: scale = try reader.integer(field.kind)
            case 10: annotation = try Self.logicalType(&reader, field.kind)
            default: try reader.skip(field.kind)
            }
        }
        // Older writers know only the converted type; newer ones write both.
        if annotation == nil, let convertedType {
            annotation = Self.annotation(convertedType: convertedType, scale: scale)
        }
    }

    private static func logicalType(
        _ reader: inout ThriftReader, _ kind: ThriftReader.Kind
    ) throws -> Annotation? {
        var annotation: Annotation?
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1, 4, 12: annotation = .text
            case 2: annotation = .map
            case 3: annotation = .list
            case 6: annotation = .date
            case 11: annotation = .null
            case 14: annotation = .uuid
            case 15: annotation = .float16
            case 5:
                var scale = 0
                try reader.structure(field.kind) { reader, field in
                    if field.id == 1 {
                        scale = try reader.integer(field.kind)
                    } else {
                        try reader.skip(field.kind)
                    }
                }
                annotation = .decimal(scale: scale)
                return
            case 7:
                annotation = .time(try time(&reader, field.kind).unit)
                return
            case 8:
                let (unit, isUTC) = try time(&reader, field.kind)
                annotation = .timestamp(unit, isUTC: isUTC)
                return
            case 10:
                var isSigned = true
                try reader.structure(field.kind) { reader, field in
                    if field.id == 2 {
                        isSigned = try reader.flag(field.kind)
                    } else {
                        try reader.skip(field.kind)
                    }
                }
                annotation = isSigned ? nil : .unsigned
                return
            default: break
            }
            try reader.skip(field.kind)
        }
        return annotation
    }

    /// The parameters of times and timestamps: whether they are in UTC, and their unit.
    private static func time(
        _ reader: inout ThriftReader, _ kind: ThriftReader.Kind
    ) throws -> (unit: TimeUnit, isUTC: Bool) {
        var unit: TimeUnit?
        var isUTC = false
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: isUTC = try reader.flag(field.kind)
            case 2:
                try reader.structure(field.kind) { reader, field in
                    unit = TimeUnit(rawValue: field.id)
                    try reader.skip(field.kind)
                }
            default: try reader.skip(field.kind)
            }
        }
        guard let unit else { throw ParquetFault.malformed("a time or timestamp without a known unit") }
        return (unit, isUTC)
    }

    private static func annotation(convertedType: Int, scale: Int) -> Annotation? {
        switch convertedType {
        case 0, 4, 19: .text
        case 1, 2: .map
        case 3: .list
        case 5: .decimal(scale: scale)
        case 6: .date
        case 7: .time(.milliseconds)
        case 8: .time(.microseconds)
        case 9: .timestamp(.milliseconds, isUTC: true)
        case 10: .timestamp(.microseconds, isUTC: true)
        case 11, 12, 13, 14: .unsigned
        case 21: .other("INTERVAL")
        default: nil
        }
    }
}
