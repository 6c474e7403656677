/// What stands before the bytes of a page.
struct PageHeader {
    /// Bytes after decompression.
    let size: Int
    let compressedSize: Int
    let kind: Kind

    enum Kind {
        case data(Data)
        /// A page of the second version.
        case dataWithPlainLevels(DataWithPlainLevels)
        case dictionary(count: Int, encoding: ParquetEncoding?)
        /// Pages that hold no values, such as indices.
        case other
    }

    /// A page whose levels are compressed with the values.
    struct Data {
        /// Values with nulls and empty lists.
        var count = -1
        var encoding = -1
        var definitionEncoding = -1
        var repetitionEncoding = -1
    }

    /// A page whose levels stand before the compressed values.
    struct DataWithPlainLevels {
        var count = -1
        var encoding = -1
        var definitionByteCount = -1
        var repetitionByteCount = -1
        var isCompressed = true
    }

    /// Reads the header that begins where `cursor` is.
    ///
    /// - Throws: `ParquetFault`.
    init(_ cursor: inout ByteCursor) throws {
        var reader = ThriftReader(cursor)
        defer { cursor = reader.cursor }
        var (type, size, compressedSize) = (-1, -1, -1)
        var data: Data?
        var laterData: DataWithPlainLevels?
        var dictionary: (count: Int, encoding: Int)?
        try reader.structure { reader, field in
            switch field.id {
            case 1: type = try reader.integer(field.kind)
            case 2: size = try reader.integer(field.kind)
            case 3: compressedSize = try reader.integer(field.kind)
            case 5: data = try Self.data(&reader, field.kind)
            case 7:
                var (count, encoding) = (-1, -1)
                try reader.structure(field.kind) { reader, field in
                    switch field.id {
                    case 1: count = try reader.integer(field.kind)
                    case 2: encoding = try reader.integer(field.kind)
                    default: try reader.skip(field.kind)
                    }
                }
                dictionary = (count, encoding)
            case 8: laterData = try Self.dataWithPlainLevels(&reader, field.kind)
            default: try reader.skip(field.kind)
            }
        }
        guard Self.isCount(size), Self.isCount(compressedSize) else {
            throw ParquetFault.malformed(
                "a page's header says \(compressedSize) bytes that decompress to \(size)")
        }
        let kind: Kind
        switch (type, data, laterData, dictionary) {
        case (0, let data?, _, _): kind = .data(data)
        case (1, _, _, _): kind = .other
        case (2, _, _, let dictionary?):
            kind = .dictionary(
                count: dictionary.count, encoding: ParquetEncoding(rawValue: dictionary.encoding))
        case (3, _, let data?, _): kind = .dataWithPlainLevels(data)
        default: throw ParquetFault.malformed("a page of the kind \(type), without what such pages have")
        }
        let count =
            switch kind {
            case .data(let data): data.count
            case .dataWithPlainLevels(let data): data.count
            case .dictionary(let count, _): count
            case .other: 0
            }
        guard Self.isCount(count) else { throw ParquetFault.malformed("a page of \(count) values") }
        (self.size, self.compressedSize, self.kind) = (size, compressedSize, kind)
    }

    /// Whether a number is one that headers have room for.
    private static func isCount(_ value: Int) -> Bool { (0...Int(Int32.max)).contains(value) }

    private static func data(_ reader: inout ThriftReader, _ kind: ThriftReader.Kind) throws -> Data {
        var data = Data()
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: data.count = try reader.integer(field.kind)
            case 2: data.encoding = try reader.integer(field.kind)
            case 3: data.definitionEncoding = try reader.integer(field.kind)
            case 4: data.repetitionEncoding = try reader.integer(field.kind)
            default: try reader.skip(field.kind)
            }
        }
        return data
    }

    private static func dataWithPlainLevels(
        _ reader: inout ThriftReader, _ kind: ThriftReader.Kind
    ) throws -> DataWithPlainLevels {
        var data = DataWithPlainLevels()
        try reader.structure(kind) { reader, field in
            switch field.id {
            case 1: data.count = try reader.integer(field.kind)
            case 4: data.encoding = try reader.integer(field.kind)
            case 5: data.definitionByteCount = try reader.integer(field.kind)
            case 6: data.repetitionByteCount = try reader.integer(field.kind)
            case 7: data.isCompressed = try reader.flag(field.kind)
            default: try reader.skip(field.kind)
            }
        }
        return data
    }
}
