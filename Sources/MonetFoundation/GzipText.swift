import CGzip

/// Files in gzip's format.
package enum GzipText {
    /// The bytes that were compressed.
    ///
    /// - Throws: `FileError.unreadable` if they are damaged, incomplete or not below 4 GiB, `FileError.outOfMemory`.
    package static func inflated(_ bytes: [UInt8], path: String) throws -> [UInt8] {
        // The file ends with the size of its last member, which a damaged one does not; text is rarely compressed
        // further than this.
        let stated = bytes.suffix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
        var capacity = max(1 << 16, min(stated, 16 * bytes.count))
        while true {
            let available = MemoryLimits.available
            guard capacity <= available else {
                throw FileError.outOfMemory(
                    purpose: "decompressing \(path)", needed: capacity, available: available)
            }
            // SIZE_MAX and MONET_GZIP_IS_LARGER are −1 and −2 here.
            var size = 0
            let result = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
                guard let target = buffer.baseAddress else { return }
                size = monet_gunzip(bytes, bytes.count, target, capacity)
                count = max(0, size)
            }
            if size >= 0 { return result }
            guard size == -2, capacity < Int(UInt32.max) else {
                throw FileError.unreadable(
                    path: path, reason: "not a complete file of gzip with less than 4 GiB")
            }
            capacity = min(Int(UInt32.max), capacity * 2)
        }
    }
}
