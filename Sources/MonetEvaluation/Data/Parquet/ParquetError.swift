import MonetFoundation

/// Why a Parquet file is not read.
package enum ParquetError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The file does not begin and end as Parquet files do.
    case notParquet(path: String, reason: String)
    /// The footer is encrypted, or a column.
    case encrypted(path: String, column: String?)
    /// The footer is damaged, or says what the file does not hold.
    case malformedFooter(path: String, reason: String)
    /// The bytes of a column are damaged, or are not what the footer says.
    case malformedColumn(path: String, column: String, reason: String)
    /// A compression that this package does not read.
    case unsupportedCodec(path: String, column: String, codec: String)
    /// An encoding that does not exist for the column's type, or that this package does not read.
    case unsupportedEncoding(path: String, column: String, encoding: String, type: String)
    /// A type that has no counterpart among the values of JSON.
    case unsupportedType(path: String, column: String, type: String)
    /// Bytes that are not text; `start` is how they begin, in hexadecimal digits.
    case notText(path: String, column: String, start: String)
    /// More than a file of this size may hold.
    case tooLarge(path: String, what: String, found: Int, limit: Int)

    package var description: String {
        switch self {
        case .notParquet(let path, let reason): "\(path): not a Parquet file: \(reason)"
        case .encrypted(let path, let column):
            "\(path): \(column.map { "the column \($0.onOneLine)" } ?? "the footer") is encrypted, expected a file without encryption"
        case .malformedFooter(let path, let reason):
            "\(path): malformed Parquet footer: \(reason.onOneLine)"
        case .malformedColumn(let path, let column, let reason):
            "\(path), column \(column.onOneLine): malformed Parquet data: \(reason.onOneLine)"
        case .unsupportedCodec(let path, let column, let codec):
            """
            \(path), column \(column.onOneLine): compressed with \(codec), expected snappy, gzip, lz4_raw or no \
            compression; write the file with snappy, or convert it to JSONL
            """
        case .unsupportedEncoding(let path, let column, let encoding, let type):
            "\(path), column \(column.onOneLine): values of type \(type) in the encoding \(encoding) are not read"
        case .unsupportedType(let path, let column, let type):
            "\(path), column \(column.onOneLine): values of type \(type) are not read"
        case .notText(let path, let column, let start):
            """
            \(path), column \(column.onOneLine): expected UTF-8 text, found other bytes, which begin with \(start); \
            write the file without this column
            """
        case .tooLarge(let path, let what, let found, let limit):
            "\(path): \(found.grouped) \(what), expected at most \(limit.grouped) in a file of this size"
        }
    }
}

/// What is wrong with bytes, found where their file and column are not known.
enum ParquetFault: Error {
    case malformed(String)
    case codec(String)
    case encoding(String, type: String)
    case type(String)
    case notText([UInt8])
    case tooLarge(what: String, found: Int, limit: Int)

    /// The error with the file and, unless it is about the footer, the column.
    func error(path: String, column: String?) -> ParquetError {
        let name = column ?? "?"
        return switch self {
        case .malformed(let reason):
            if let column {
                .malformedColumn(path: path, column: column, reason: reason)
            } else {
                .malformedFooter(path: path, reason: reason)
            }
        case .codec(let codec): .unsupportedCodec(path: path, column: name, codec: codec)
        case .encoding(let encoding, let type):
            .unsupportedEncoding(path: path, column: name, encoding: encoding, type: type)
        case .type(let type): .unsupportedType(path: path, column: name, type: type)
        case .notText(let bytes):
            .notText(path: path, column: name, start: bytes.hexadecimal)
        case .tooLarge(let what, let found, let limit):
            .tooLarge(path: path, what: what, found: found, limit: limit)
        }
    }

    /// Adds the file and the column to faults that `body` throws.
    static func located<Result>(
        path: String, column: String?, _ body: () throws -> Result
    ) throws -> Result {
        do { return try body() } catch let fault as ParquetFault {
            throw fault.error(path: path, column: column)
        }
    }
}

extension Sequence<UInt8> {
    /// Two lower-case digits per byte.
    var hexadecimal: String {
        map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
