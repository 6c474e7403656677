import Foundation
import MonetFoundation

/// The state of an unfinished index build: a line of JSON, then the statistics in their memory layout.
struct IndexState {
    let path: String
    /// The settings that a continued build must share.
    let settings: [(key: String, value: String)]

    private static let version = 1
    /// The header's length, padded with spaces.
    private static let headerLength = 4096

    /// Replaces the file.
    func write(_ statistics: [GroupStatistics], next: DocumentReader.Position) throws {
        let header: JSONValue = [
            "version": .integer(Self.version), "document": .integer(next.document),
            "token": .integer(next.token),
            "settings": .object(settings.map { .init($0.key, .string($0.value)) }),
        ]
        let line = header.serialized()
        try AtomicFile.write(to: path) { writer in
            try writer.write(
                line + String(repeating: " ", count: max(0, Self.headerLength - line.utf8.count)))
            for group in statistics { try group.write(to: writer) }
        }
    }

    /// Fills the statistics and returns the position from which to continue.
    ///
    /// - Throws: `InsightError.foreignState`, `InsightError.malformedIndex`.
    func read(into statistics: [GroupStatistics]) throws -> DocumentReader.Position {
        let file = try MappedFile(path: path)
        func fail(_ reason: String) -> InsightError { .malformedIndex(path: path, reason: reason) }
        guard file.bytes.count >= Self.headerLength else { throw fail("the unfinished state is truncated") }
        let json = try JSONValue(
            parsing: UnsafeRawBufferPointer(rebasing: file.bytes[..<Self.headerLength]), source: path)
        guard json["version"]?.intValue == Self.version, let document = json["document"]?.intValue,
            let token = json["token"]?.intValue, document >= 0, token >= 0
        else { throw fail("the unfinished state has another version") }
        for (key, value) in settings {
            let found = json["settings"]?[key]?.stringValue ?? "none"
            guard found == value else {
                throw InsightError.foreignState(path: path, key: key, expected: value, found: found)
            }
        }
        let expected = statistics.reduce(Self.headerLength) { $0 + $1.byteCount }
        guard file.bytes.count == expected else {
            throw fail("the unfinished state has \(file.bytes.count) bytes, expected \(expected)")
        }
        var offset = Self.headerLength
        for group in statistics {
            group.read(file.bytes, from: offset)
            offset += group.byteCount
        }
        return DocumentReader.Position(document: document, token: token)
    }
}
