import Foundation
import MonetFoundation

/// The state of an unfinished index build: a line of JSON, then the statistics in their memory layout.
struct IndexState {
    let path: String
    /// The settings that a continued build must share.
    let settings: [(key: String, value: String)]

    private static let version = 2
    /// The header's length, padded with spaces.
    private static let headerLength = 4096

    /// Replaces the file.
    func write(_ statistics: [GroupStatistics], next: DocumentReader.Position) throws {
        var checksum = Checksum()
        for group in statistics { checksum.update(group.bytes) }
        let header: JSONValue = [
            "version": .integer(Self.version), "document": .integer(next.document),
            "token": .integer(next.token), "checksum": .string(checksum.text),
            "settings": .object(settings.map { .init($0.key, .string($0.value)) }),
        ]
        let line = header.serialized()
        guard line.utf8.count <= Self.headerLength else {
            throw InsightError.unwritableIndex(path: path, reason: "the settings of the build are too long")
        }
        try AtomicFile.write(to: path) { writer in
            try writer.write(line + String(repeating: " ", count: Self.headerLength - line.utf8.count))
            for group in statistics { try writer.write(group.bytes) }
        }
    }

    /// Fills the statistics and returns the position from which to continue.
    ///
    /// - `documents`: those that are read, among which the state must end.
    /// - Throws: `InsightError.foreignState`, `InsightError.malformedIndex`.
    func read(into statistics: [GroupStatistics], documents: LabelledDocuments) throws
        -> DocumentReader.Position
    {
        let file = try MappedFile(path: path)
        func fail(_ reason: String) -> InsightError {
            .malformedIndex(path: path, reason: "the unfinished state \(reason)")
        }
        guard file.bytes.count >= Self.headerLength else { throw fail("is truncated") }
        let json = try JSONValue(
            parsing: UnsafeRawBufferPointer(rebasing: file.bytes[..<Self.headerLength]), source: path)
        guard json["version"]?.intValue == Self.version else { throw fail("has another version") }
        guard let document = json["document"]?.intValue, (0...documents.count).contains(document),
            let token = json["token"]?.intValue,
            token == 0 || document < documents.count && (0..<documents.tokenCount(document)).contains(token)
        else { throw fail("ends at a place that the documents do not have") }
        for (key, value) in settings {
            let found = json["settings"]?[key]?.stringValue ?? "none"
            guard found == value else {
                throw InsightError.foreignState(path: path, key: key, expected: value, found: found)
            }
        }
        let expected = statistics.reduce(Self.headerLength) { $0 + $1.byteCount }
        guard file.bytes.count == expected else {
            throw fail("has \(file.bytes.count) bytes, expected \(expected)")
        }
        let content = UnsafeRawBufferPointer(rebasing: file.bytes[Self.headerLength...])
        guard Checksum(of: content).text == json["checksum"]?.stringValue else {
            throw fail("is damaged: its checksum is another")
        }
        var offset = Self.headerLength
        for group in statistics {
            group.read(file.bytes, from: offset)
            offset += group.byteCount
        }
        return DocumentReader.Position(document: document, token: token)
    }
}
