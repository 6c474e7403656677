import CGzip
import MonetFoundation

/// Files in gzip's format.
enum GzipFile {
    /// Writes a text, compressed.
    ///
    /// - Throws: `FileError.unwritable`.
    static func write(_ text: String, to path: String) throws {
        let source = Array(text.utf8)
        let bytes = [UInt8](unsafeUninitializedCapacity: monet_gzip_bound(source.count)) { buffer, count in
            count = source.withUnsafeBufferPointer {
                // Neither is empty: a compressed empty text has a header.
                guard let base = buffer.baseAddress, let from = $0.baseAddress else { return 0 }
                return monet_gzip(from, $0.count, base, buffer.count)
            }
        }
        guard !bytes.isEmpty else {
            throw FileError.unwritable(path: path, reason: "\(source.count) bytes cannot be compressed")
        }
        try AtomicFile.write(to: path) { try $0.write(bytes) }
    }
}
