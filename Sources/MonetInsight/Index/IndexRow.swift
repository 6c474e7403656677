import Foundation
import GRDB
import MonetFoundation

/// A row of an index with checked values: an index is a file that people share, and SQLite stores values of
/// any type in any column.
struct IndexRow {
    private let row: Row
    private let path: String

    init(_ row: Row, path: String) {
        self.row = row
        self.path = path
    }

    private func unexpected(_ column: String, _ expected: String) -> InsightError {
        let value: DatabaseValue = row[column]
        let found =
            switch value.storage {
            case .null: "empty"
            case .int64(let number): "\(number)"
            case .double(let number): "\(number)"
            case .string(let text): "'\(text.prefix(40))'"
            case .blob(let data): "\(data.count) bytes"
            }
        return .malformedIndex(path: path, reason: "column \(column) holds \(found), expected \(expected)")
    }

    private func storage(_ column: String) -> DatabaseValue.Storage {
        (row[column] as DatabaseValue).storage
    }

    /// A whole number in a range.
    func integer(_ column: String, _ range: Range<Int>) throws -> Int {
        guard case .int64(let value) = storage(column), range.contains(Int(value)) else {
            throw unexpected(column, "a whole number from \(range.lowerBound) to \(range.upperBound - 1)")
        }
        return Int(value)
    }

    /// A finite number in a range.
    func number(_ column: String, _ range: ClosedRange<Double> = 0...Double.greatestFiniteMagnitude) throws
        -> Double
    {
        let value: Double =
            switch storage(column) {
            case .int64(let number): Double(number)
            case .double(let number): number
            default: .nan
            }
        guard value.isFinite, range.contains(value) else {
            throw unexpected(
                column,
                range.upperBound < .greatestFiniteMagnitude
                    ? "a number from \(range.lowerBound) to \(range.upperBound)" : "a number of 0 or more")
        }
        return value
    }

    /// A share from 0 to 1.
    func share(_ column: String) throws -> Double {
        // Rounded quotients of sums may exceed 1 in the last digit.
        try number(column, 0...1.000001)
    }

    func text(_ column: String) throws -> String {
        guard case .string(let text) = storage(column) else { throw unexpected(column, "text") }
        return text
    }

    /// Words of four bytes in little-endian order; `count` of them, or a multiple of `multiple`.
    func words(_ column: String, count: Int? = nil, multiple: Int = 1) throws -> [UInt32] {
        guard case .blob(let data) = storage(column) else { throw unexpected(column, "bytes") }
        if let count, data.count != 4 * count { throw unexpected(column, "\(4 * count) bytes") }
        guard data.count % (4 * multiple) == 0 else {
            throw unexpected(column, "a multiple of \(4 * multiple) bytes")
        }
        return data.littleEndianWords
    }

    /// Scores in words: finite and 0 or more.
    func scores(_ column: String, count: Int) throws -> [Double] {
        try words(column, count: count).map { word in
            let score = Float(bitPattern: word)
            guard score.isFinite, score >= 0 else { throw unexpected(column, "scores of 0 or more") }
            return Double(score)
        }
    }

    /// The firing tokens that a column records.
    func firings(_ column: String, documents: Int) throws -> [IndexedFiring] {
        let words = try words(column, multiple: IndexedFiring.words)
        return try stride(from: 0, to: words.count, by: IndexedFiring.words).map { place in
            let score = Float(bitPattern: words[place])
            guard score.isFinite, score > 0, words[place + 1] < UInt32(clamping: documents) else {
                throw unexpected(column, "scores above 0 with documents below \(documents)")
            }
            return IndexedFiring(
                score: score, document: Int(words[place + 1]), position: Int(words[place + 2]))
        }
    }
}

/// A token that fires an expert: its score, document, and position in the document.
struct IndexedFiring: Equatable {
    static let words = 3

    let score: Float
    let document: Int
    let position: Int

    /// The stored form: float32, uint32, uint32.
    var stored: [UInt32] { [score.bitPattern, UInt32(document), UInt32(position)] }
}

extension ExpertIndex {
    /// All rows of a query.
    func rows(_ database: Database, sql: String, _ arguments: StatementArguments = StatementArguments())
        throws -> [IndexRow]
    {
        try Row.fetchAll(database, sql: sql, arguments: arguments).map { IndexRow($0, path: path) }
    }

    /// The first row of a query.
    func row(_ database: Database, sql: String, _ arguments: StatementArguments = StatementArguments())
        throws -> IndexRow?
    {
        let statement = try database.cachedStatement(sql: sql)
        return try Row.fetchOne(statement, arguments: arguments).map { IndexRow($0, path: path) }
    }

    /// The expert that a row names.
    func expert(_ row: IndexRow, group: Int? = nil) throws -> UnitID {
        UnitID(
            group: try group ?? row.integer("router_group", 0..<units.groups),
            index: try row.integer("expert", 0..<units.unitsPerGroup))
    }

    /// The token ids of a document from `first` on, at most `count`.
    func tokens(_ database: Database, document: Int, from first: Int, count: Int) throws -> [Int32] {
        let row = try row(
            database, sql: "SELECT substr(tokens, ?, ?) AS tokens FROM document WHERE id = ?",
            [4 * first + 1, 4 * count, document])
        guard let row else {
            throw InsightError.malformedIndex(path: path, reason: "document \(document) is missing")
        }
        return try row.words("tokens").map { word in
            guard word < UInt32(clamping: vocabularySize) else {
                throw InsightError.malformedIndex(
                    path: path,
                    reason: "document \(document) has token \(word), the vocabulary \(vocabularySize)")
            }
            return Int32(bitPattern: word)
        }
    }

    /// A token's text.
    func text(_ database: Database, of token: Int) throws -> String {
        try row(database, sql: "SELECT text FROM token WHERE id = ?", [token])?.text("text") ?? ""
    }
}
