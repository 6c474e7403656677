/// Reads structures in Thrift's compact protocol, in which Parquet writes its footer and the headers of its pages.
struct ThriftReader {
    private static let maximumDepth = 32

    /// Where the reader is.
    private(set) var cursor: ByteCursor
    private var depth = 0

    /// How a field's value is written.
    enum Kind: UInt8 {
        case yes = 1
        case no, byte, short, int, long, double, binary, list, set, map, structure, identifier
    }

    struct Field {
        let id: Int
        let kind: Kind
    }

    /// A reader of the bytes from `cursor` on.
    init(_ cursor: ByteCursor) { self.cursor = cursor }

    /// Reads a structure: `body` is called for each field and must read or skip its value.
    mutating func structure(_ body: (inout ThriftReader, Field) throws -> Void) throws {
        try nested { reader in
            var id = 0
            while true {
                let header = try reader.cursor.byte("a field")
                if header == 0 { return }
                let step = Int(header >> 4)
                id = step == 0 ? try reader.cursor.signed("a field's number") : id + step
                guard (0...Int(Int16.max)).contains(id) else {
                    throw ParquetFault.malformed("a field has the number \(id)")
                }
                try body(&reader, Field(id: id, kind: try Self.kind(header & 0xf)))
            }
        }
    }

    /// Reads the structure that is a field's value.
    mutating func structure(_ kind: Kind, _ body: (inout ThriftReader, Field) throws -> Void) throws {
        try require(kind, .structure)
        try structure(body)
    }

    /// Reads a list: `body` is called for each element and must read its value.
    mutating func list(_ kind: Kind, _ body: (inout ThriftReader, Kind) throws -> Void) throws {
        guard kind == .list || kind == .set else { throw Self.unexpected(kind, .list) }
        try nested { reader in
            let header = try reader.cursor.byte("a list")
            let short = Int(header >> 4)
            // Every element takes at least one byte.
            let limit = reader.cursor.remaining
            let count = short == 15 ? try reader.cursor.count("a list's length", limit: limit) : short
            guard count <= limit else {
                throw ParquetFault.malformed("a list of \(count) elements, \(limit) bytes are left")
            }
            if count == 0 { return }
            let element = try Self.kind(header & 0xf)
            for _ in 0..<count { try body(&reader, element) }
        }
    }

    mutating func integer(_ kind: Kind) throws -> Int {
        switch kind {
        case .byte: Int(Int8(bitPattern: try cursor.byte("a number")))
        case .short, .int, .long: try cursor.signed("a number")
        default: throw Self.unexpected(kind, .long)
        }
    }

    mutating func flag(_ kind: Kind) throws -> Bool {
        guard kind == .yes || kind == .no else { throw Self.unexpected(kind, .yes) }
        return kind == .yes
    }

    mutating func text(_ kind: Kind) throws -> String {
        try require(kind, .binary)
        let count = try cursor.count("a text's length", limit: cursor.remaining)
        guard let text = String(validating: try cursor.take(count, "a text"), as: UTF8.self) else {
            throw ParquetFault.malformed("a name is not UTF-8 text")
        }
        return text
    }

    /// Passes over a value.
    mutating func skip(_ kind: Kind) throws {
        switch kind {
        case .yes, .no: break
        case .byte: _ = try cursor.byte("a number")
        case .short, .int, .long: _ = try cursor.variableLength("a number")
        case .double: _ = try cursor.take(8, "a number")
        case .identifier: _ = try cursor.take(16, "an identifier")
        case .binary:
            _ = try cursor.take(cursor.count("a text's length", limit: cursor.remaining), "a text")
        case .list, .set: try list(kind) { try $0.skipElement($1) }
        case .map:
            try nested { reader in
                let count = try reader.cursor.count("a map's length", limit: reader.cursor.remaining)
                if count == 0 { return }
                let kinds = try reader.cursor.byte("a map's types")
                let (key, value) = (try Self.kind(kinds >> 4), try Self.kind(kinds & 0xf))
                for _ in 0..<count {
                    try reader.skipElement(key)
                    try reader.skipElement(value)
                }
            }
        case .structure: try structure { try $0.skip($1.kind) }
        }
    }

    /// Booleans take a byte in lists and maps, and none in structures.
    private mutating func skipElement(_ kind: Kind) throws {
        if kind == .yes || kind == .no {
            _ = try cursor.byte("a boolean")
        } else {
            try skip(kind)
        }
    }

    private mutating func nested(_ body: (inout ThriftReader) throws -> Void) throws {
        depth += 1
        defer { depth -= 1 }
        guard depth <= Self.maximumDepth else {
            throw ParquetFault.malformed("more than \(Self.maximumDepth) levels of nesting")
        }
        try body(&self)
    }

    private func require(_ kind: Kind, _ expected: Kind) throws {
        guard kind == expected else { throw Self.unexpected(kind, expected) }
    }

    private static func unexpected(_ found: Kind, _ expected: Kind) -> ParquetFault {
        .malformed("a value is of the kind \(found), expected \(expected)")
    }

    private static func kind(_ code: UInt8) throws -> Kind {
        guard let kind = Kind(rawValue: code) else {
            throw ParquetFault.malformed("a value of the unknown kind \(code)")
        }
        return kind
    }
}
