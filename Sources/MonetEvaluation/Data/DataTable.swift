import Foundation
import MonetFoundation

/// The rows of one file of data, or of several.
struct DataTable: Sendable {
    /// Objects, all with the same keys in the same order.
    let rows: [JSONValue]
    /// The keys.
    let fields: [String]

    /// Gives rows from JSON the types of a table, as the library `datasets` does: keys that a row lacks are null,
    /// and integers among fractions are fractions.
    init(unifying rows: [JSONValue]) {
        var column = Column()
        for row in rows { column.note(row) }
        self.rows = rows.map { column.unified($0) }
        fields = column.keys
    }

    /// Rows that have the types of a table already.
    init(rows: [JSONValue], fields: [String]) {
        self.rows = rows
        self.fields = fields
    }

    /// Reads a file by its extension: JSONL, JSON, CSV, TSV or Parquet, the texts also compressed by gzip.
    ///
    /// - Throws: `TaskError.malformedData`, `TaskError.unreadableTable`, `FileError`.
    init(path: String) throws {
        var name = (path as NSString).lastPathComponent.lowercased()
        if name.hasSuffix(".parquet") {
            do {
                let file = try ParquetFile(path: path)
                self.init(rows: try file.rows(), fields: file.columns)
            } catch let error as ParquetError {
                throw TaskError.unreadableTable(reason: error.description)
            }
            return
        }
        var bytes: [UInt8]
        do {
            let file = try MappedFile(path: path)
            bytes = withExtendedLifetime(file) { Array(file.bytes) }
        }
        if name.hasSuffix(".gz") {
            name.removeLast(3)
            bytes = try Self.inflated(bytes, path: path)
        }
        if name.hasSuffix(".csv") || name.hasSuffix(".tsv") {
            let text = try Self.text(bytes, path)
            self.init(
                unifying: try SeparatedValues(
                    text, path: path, separator: name.hasSuffix(".tsv") ? "\t" : ","
                ).typedRows())
        } else {
            self.init(unifying: try Self.json(bytes, path: path))
        }
    }

    private static func text(_ bytes: [UInt8], _ path: String) throws -> String {
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw TaskError.malformedData(path: path, line: nil, reason: "not UTF-8 text")
        }
        return text
    }

    /// One array of objects, or an object a line.
    private static func json(_ bytes: [UInt8], path: String) throws -> [JSONValue] {
        let start = bytes.starts(with: [0xef, 0xbb, 0xbf]) ? 3 : 0
        let first = bytes[start...].first { ![0x20, 0x09, 0x0a, 0x0d].contains($0) }
        if first == UInt8(ascii: "[") {
            let whole = try bytes[start...].withUnsafeBytes { try JSONValue(parsing: $0, source: path) }
            let rows = whole.arrayValue ?? []
            if let place = rows.firstIndex(where: { $0.members == nil }) {
                throw TaskError.malformedData(
                    path: path, line: nil,
                    reason: "element \(place + 1) is \(rows[place].kind), expected an object")
            }
            return rows
        }
        var rows: [JSONValue] = []
        let lines = bytes[start...].split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (number, line) in lines.enumerated() {
            if line.allSatisfy({ [0x20, 0x09, 0x0d].contains($0) }) { continue }
            do {
                let row = try line.withUnsafeBytes { try JSONValue(parsing: $0, source: path) }
                guard row.members != nil else {
                    throw TaskError.malformedData(
                        path: path, line: number + 1, reason: "\(row.kind), expected an object")
                }
                rows.append(row)
            } catch FileError.malformedJSON(_, let offset, let reason) {
                // A file may hold one object over many lines.
                if rows.isEmpty, number == 0,
                    let whole = try? bytes[start...].withUnsafeBytes({
                        try JSONValue(parsing: $0, source: path)
                    }),
                    let data = whole.members?.first(where: {
                        $0.value.arrayValue?.allSatisfy { $0.members != nil } ?? false
                    })
                {
                    return data.value.arrayValue ?? []
                }
                throw TaskError.malformedData(
                    path: path, line: number + 1,
                    reason: "malformed JSON at byte \(offset) of the line: \(reason)")
            }
        }
        return rows
    }

    private static func inflated(_ bytes: [UInt8], path: String) throws -> [UInt8] {
        do { return try GzipText.inflated(bytes, path: path) } catch FileError.unreadable(_, let reason) {
            throw TaskError.malformedData(path: path, line: nil, reason: reason)
        }
    }
}

/// What kinds of values a column has, at all its levels.
private struct Column {
    private(set) var keys: [String] = []
    private var members: [String: Column] = [:]
    private var elements: [Column] = []
    private var hasFractions = false

    mutating func note(_ value: JSONValue) {
        switch value {
        case .object(let object):
            for member in object {
                if members[member.key] == nil {
                    keys.append(member.key)
                    members[member.key] = Column()
                }
                members[member.key]?.note(member.value)
            }
        case .array(let values):
            if elements.isEmpty { elements = [Column()] }
            for value in values { elements[0].note(value) }
        case .number: hasFractions = true
        default: break
        }
    }

    func unified(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object):
            if object.count == keys.count, zip(object, keys).allSatisfy({ $0.key == $1 }) {
                return .object(object.map { .init($0.key, members[$0.key]?.unified($0.value) ?? $0.value) })
            }
            let known = Dictionary(object.map { ($0.key, $0.value) }) { $1 }
            return .object(
                keys.map { key in
                    let own = known[key]
                    return .init(key, own.map { members[key]?.unified($0) ?? $0 } ?? .null)
                })
        case .array(let values): return .array(values.map { elements.first?.unified($0) ?? $0 })
        case .integer(let number) where hasFractions: return .number(Double(number))
        default: return value
        }
    }
}
