import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// Rows against those that pyarrow reads from the same files.
@Suite struct ParquetTests {
    static let folder = Fixture.path("parquet")

    /// The names of the files in a folder, without `.parquet`.
    static func names(in folder: String) -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
        return names.filter { $0.hasSuffix(".parquet") }.map { String($0.dropLast(8)) }.sorted()
    }

    @Test(arguments: names(in: folder))
    func rowsAreThoseOfPyarrow(name: String) throws {
        let file = try ParquetFile(path: "\(Self.folder)/\(name).parquet")
        let rows = try file.rows()
        let base = name.split(separator: ".")[0]
        let expected = try JSONValue(contentsOfFile: "\(Self.folder)/\(base).json").arrayValue ?? []
        #expect(file.rowCount == expected.count)
        #expect(rows.count == expected.count)
        for (number, (found, wanted)) in zip(rows, expected).enumerated() {
            #expect(found.members?.map(\.key) == file.columns)
            let found = Self.comparable(found)
            if found != wanted {
                Issue.record("row \(number):\n\(found.serialized())\n\(wanted.serialized())")
            }
        }
    }

    /// The fixtures' way to write numbers that are not finite; and integers where JSON's text has them, as a fraction
    /// of 0 does not tell the types apart.
    static func comparable(_ value: JSONValue) -> JSONValue {
        switch value {
        case .number(let number) where number.isNaN: ["number": "nan"]
        case .number(let number) where number.isInfinite: ["number": number > 0 ? "inf" : "-inf"]
        case .array(let elements): .array(elements.map(comparable))
        case .object(let members): .object(members.map { .init($0.key, comparable($0.value)) })
        default: value
        }
    }

    @Test func thereAreFixtures() {
        #expect(Self.names(in: Self.folder).count > 60)
        #expect(Self.names(in: Self.folder + "/refused").count > 60)
    }

    private struct Refusal: Sendable, CustomStringConvertible {
        let name: String
        let kind: String
        let text: String
        var description: String { name }
    }

    private static func refusals() -> [Refusal] {
        let errors = try? JSONValue(contentsOfFile: folder + "/refused/errors.json").members
        return (errors ?? []).map {
            Refusal(
                name: $0.key, kind: $0.value.arrayValue?.first?.stringValue ?? "",
                text: $0.value.arrayValue?.last?.stringValue ?? "")
        }
    }

    @Test(arguments: refusals())
    private func damagedFilesAreRefused(_ refusal: Refusal) throws {
        let path = "\(Self.folder)/refused/\(refusal.name).parquet"
        do {
            let rows = try ParquetFile(path: path).rows()
            Issue.record("\(rows.count) rows are read")
        } catch let error as ParquetError {
            #expect("\(error)".hasPrefix(path))
            #expect("\(error)".contains(refusal.text), "\(error)")
            let kind = Mirror(reflecting: error).children.first?.label
            #expect(kind == refusal.kind, "\(error)")
        }
    }

    @Test func folderIsNoFile() {
        #expect(throws: FileError.self) { try ParquetFile(path: Self.folder) }
    }
}
