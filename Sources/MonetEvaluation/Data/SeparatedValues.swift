import Foundation
import MonetFoundation

/// A table of values between commas or tabs (RFC 4180).
struct SeparatedValues {
    /// The records, each with the line on which it begins.
    let records: [(line: Int, values: [String])]
    private let path: String

    /// - Throws: `TaskError.malformedData` naming the line.
    init(_ text: String, path: String, separator: Unicode.Scalar = ",") throws {
        self.path = path
        var records: [(line: Int, values: [String])] = []
        var values: [String] = []
        var value = String.UnicodeScalarView()
        var (line, start) = (1, 1)
        var isQuoted = false
        var wasQuoted = false
        var scalars = Substring(text).unicodeScalars
        if scalars.first == "\u{feff}" { scalars.removeFirst() }
        var index = scalars.startIndex
        func finishRecord() {
            values.append(String(value))
            if values.count > 1 || values[0] != "" || wasQuoted { records.append((start, values)) }
            (values, value, wasQuoted) = ([], String.UnicodeScalarView(), false)
        }
        while index < scalars.endIndex {
            let scalar = scalars[index]
            let next = scalars.index(after: index)
            index = next
            if scalar == "\n" { line += 1 }
            if isQuoted {
                if scalar != "\"" {
                    value.append(scalar)
                } else if next < scalars.endIndex, scalars[next] == "\"" {
                    value.append(scalar)
                    index = scalars.index(after: next)
                } else {
                    isQuoted = false
                }
                continue
            }
            switch scalar {
            case "\"" where value.isEmpty: (isQuoted, wasQuoted) = (true, true)
            case separator:
                values.append(String(value))
                value = String.UnicodeScalarView()
            case "\r" where next < scalars.endIndex && scalars[next] == "\n": break
            case "\n", "\r":
                finishRecord()
                start = line
            default: value.append(scalar)
            }
        }
        guard !isQuoted else {
            throw TaskError.malformedData(path: path, line: start, reason: "a quote without its end")
        }
        if !value.isEmpty || !values.isEmpty || wasQuoted { finishRecord() }
        self.records = records
    }

    /// Texts that mean that a value is missing.
    private static let missing: Set<String> = [
        "", " ", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN",
        "<NA>",
        "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
    ]

    /// Objects with the keys of the first record, and with numbers in columns of numbers.
    ///
    /// - Throws: `TaskError.malformedData` for a record of another length.
    func typedRows() throws -> [JSONValue] {
        guard let header = records.first else { return [] }
        let names = header.values
        let rows = records.dropFirst()
        for row in rows where row.values.count != names.count {
            throw TaskError.malformedData(
                path: path, line: row.line,
                reason: "\(row.values.count) values, expected \(names.count) as in the first line")
        }
        let columns = names.indices.map { column in Self.typed(rows.map { $0.values[column] }) }
        return rows.indices.map { row in
            .object(names.indices.map { .init(names[$0], columns[$0][row - rows.startIndex]) })
        }
    }

    private static func typed(_ texts: [String]) -> [JSONValue] {
        let known = texts.filter { !missing.contains($0) }
        let hasAll = known.count == texts.count
        if !known.isEmpty {
            if hasAll, known.allSatisfy({ Int($0) != nil }) { return texts.map { .integer(Int($0) ?? 0) } }
            if hasAll, known.allSatisfy({ ["True", "False", "TRUE", "FALSE", "true", "false"].contains($0) })
            {
                return texts.map { .bool($0.lowercased() == "true") }
            }
            if known.allSatisfy({ Double($0) != nil && !$0.lowercased().hasPrefix("0x") }) {
                return texts.map { missing.contains($0) ? .null : Double($0).map { .number($0) } ?? .null }
            }
        }
        return texts.map { missing.contains($0) ? .null : .string($0) }
    }
}
