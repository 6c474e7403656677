import Foundation

/// Reads UTF-8 text.
public enum TextFile {
    /// The text of a file, which must be UTF-8, plain or compressed by gzip; a byte-order mark is dropped.
    ///
    /// - `readsStreams`: whether it may be a pipe.
    /// - Throws: `FileError.unreadable` or `FileError.notUTF8` with the offset of the first invalid byte.
    public static func read(_ path: String, readsStreams: Bool = false) throws -> String {
        let file = try MappedFile(path: path, readsStreams: readsStreams)
        return try withExtendedLifetime(file) {
            // No text in UTF-8 begins so.
            guard file.bytes.starts(with: [0x1f, 0x8b]) else { return try decode(file.bytes, name: path) }
            return try GzipText.inflated(Array(file.bytes), path: path).withUnsafeBytes {
                try decode($0, name: path)
            }
        }
    }

    /// Bytes as text.
    public static func decode(_ bytes: UnsafeRawBufferPointer, name: String) throws -> String {
        let hasMark = bytes.count >= 3 && bytes[0] == 0xef && bytes[1] == 0xbb && bytes[2] == 0xbf
        let body = UnsafeRawBufferPointer(rebasing: bytes[(hasMark ? 3 : 0)...])
        guard let text = String(validating: body, as: UTF8.self) else {
            throw FileError.notUTF8(path: name, offset: firstInvalidByte(body) + (hasMark ? 3 : 0))
        }
        return text
    }

    private static func firstInvalidByte(_ bytes: UnsafeRawBufferPointer) -> Int {
        var low = 0
        var decoder = UTF8()
        var iterator = bytes.makeIterator()
        while true {
            switch decoder.decode(&iterator) {
            case .scalarValue(let scalar): low += UTF8.width(scalar)
            case .emptyInput, .error: return low
            }
        }
    }
}
