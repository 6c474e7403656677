import CGzip

/// Files in gzip's format.
package enum GzipText {
    /// The bytes that were compressed; nil if they are not complete.
    package static func inflated(_ bytes: [UInt8]) -> [UInt8]? {
        // The file ends with the size of its last member.
        let stated = bytes.suffix(4).reversed().reduce(0) { $0 << 8 | Int($1) }
        // Text is rarely compressed further than this, and a lie must not take all memory.
        let limit = max(1 << 20, bytes.count * 1100)
        var capacity = min(limit, max(1 << 16, stated))
        while true {
            var size = Int.max
            let result = [UInt8](unsafeUninitializedCapacity: capacity) { buffer, count in
                guard let target = buffer.baseAddress else { return }
                let made = monet_gunzip(bytes, bytes.count, target, capacity)
                // SIZE_MAX, for what could not be decompressed, is −1 here.
                size = made >= 0 ? made : .max
                count = size <= capacity ? size : 0
            }
            if size <= capacity { return result }
            guard capacity < limit else { return nil }
            capacity = min(limit, capacity * 2)
        }
    }
}
