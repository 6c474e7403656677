import CGzip

/// How the pages of a column are compressed.
enum ParquetCodec: Int, Sendable {
    case uncompressed, snappy, gzip, lzo, brotli, lz4, zstd, lz4Raw

    /// The name, in the words of writers' settings.
    static func name(_ code: Int) -> String {
        switch ParquetCodec(rawValue: code) {
        case .uncompressed: "no compression"
        case .snappy: "snappy"
        case .gzip: "gzip"
        case .lzo: "lzo"
        case .brotli: "brotli"
        case .lz4: "lz4 in Hadoop's frames"
        case .zstd: "zstd"
        case .lz4Raw: "lz4_raw"
        case nil: "the unknown codec \(code)"
        }
    }

    /// The codec of a column.
    ///
    /// - Throws: `ParquetFault.codec` for one that is not read.
    static func supported(_ code: Int) throws -> ParquetCodec {
        switch ParquetCodec(rawValue: code) {
        case let codec? where [.uncompressed, .snappy, .gzip, .lz4Raw].contains(codec): codec
        default: throw ParquetFault.codec(name(code))
        }
    }

    /// The most bytes that one compressed byte can become. A larger size is a lie, for which no memory is taken.
    private var maximumExpansion: Int {
        switch self {
        // Three bytes repeat 64.
        case .snappy: 22
        // A byte of 255 makes a repetition as much longer.
        case .lz4Raw: 256
        // Two bits repeat 258 bytes.
        case .gzip: 1033
        default: 1
        }
    }

    /// Calls `body` with the `size` bytes that `bytes` decompress to; nothing is copied if they are not compressed.
    ///
    /// - Throws: `ParquetFault`.
    func withDecompressed<Result>(
        _ bytes: UnsafeRawBufferPointer, size: Int, _ body: (UnsafeRawBufferPointer) throws -> Result
    ) throws -> Result {
        if self == .uncompressed {
            guard bytes.count == size else {
                throw ParquetFault.malformed("a page of \(bytes.count) bytes, its header says \(size)")
            }
            return try body(bytes)
        }
        if size == 0 { return try body(UnsafeRawBufferPointer(start: nil, count: 0)) }
        guard size > 0, size <= bytes.count * maximumExpansion else {
            throw ParquetFault.malformed(
                "\(bytes.count) bytes cannot decompress to the \(size) that the page's header says")
        }
        let content = try [UInt8](unsafeUninitializedCapacity: size) { target, count in
            let target = UnsafeMutableRawBufferPointer(target)
            switch self {
            case .snappy: count = try Snappy.decompress(bytes, into: target)
            case .lz4Raw: count = try LZ4Block.decompress(bytes, into: target)
            default: count = Self.inflate(bytes, into: target)
            }
        }
        guard content.count == size else {
            throw ParquetFault.malformed(
                "a page does not decompress to the \(size) bytes that its header says")
        }
        return try content.withUnsafeBytes(body)
    }

    /// - Returns: the size; 0 for damaged bytes, whose SIZE_MAX is −1 here.
    private static func inflate(
        _ bytes: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
    ) -> Int {
        guard let source = bytes.bindMemory(to: UInt8.self).baseAddress,
            let start = target.bindMemory(to: UInt8.self).baseAddress
        else { return 0 }
        let size = monet_gunzip(source, bytes.count, start, target.count)
        return (0...target.count).contains(size) ? size : 0
    }
}

/// The bytes that a decompressor has written, to which it adds others or earlier ones again.
struct DecompressedBytes {
    private let target: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(_ target: UnsafeMutableRawBufferPointer) { self.target = target }

    /// Adds bytes of the compressed text.
    @inline(__always)
    mutating func append(_ bytes: UnsafeRawBufferPointer) throws {
        guard bytes.count <= target.count - count else { throw Self.overflow }
        if let from = bytes.baseAddress, let start = target.baseAddress {
            (start + count).copyMemory(from: from, byteCount: bytes.count)
        }
        count += bytes.count
    }

    /// Adds `length` bytes again that begin `distance` bytes before the end; they may reach into the new ones.
    @inline(__always)
    mutating func repeatBytes(distance: Int, length: Int) throws {
        guard distance > 0, distance <= count else {
            throw ParquetFault.malformed(
                "compressed bytes repeat what is \(distance) bytes before, after \(count) bytes")
        }
        guard length >= 0, length <= target.count - count else { throw Self.overflow }
        guard let start = target.baseAddress else { return }
        let end = start + count
        count += length
        // Words may be copied beyond the end of the repetition where there is room: what follows overwrites it.
        if distance >= 8, length + 8 <= target.count - (count - length) {
            var done = 0
            while done < length {
                let word = (end - distance).loadUnaligned(fromByteOffset: done, as: UInt64.self)
                end.storeBytes(of: word, toByteOffset: done, as: UInt64.self)
                done += 8
            }
            return
        }
        for offset in 0..<length {
            let byte = (end - distance).load(fromByteOffset: offset, as: UInt8.self)
            end.storeBytes(of: byte, toByteOffset: offset, as: UInt8.self)
        }
    }

    private static var overflow: ParquetFault {
        .malformed("a page decompresses to more bytes than its header says")
    }
}

/// Google's Snappy, whose texts are literals and repetitions of earlier bytes.
enum Snappy {
    /// - Returns: how many bytes there are.
    /// - Throws: `ParquetFault`.
    static func decompress(
        _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
    ) throws -> Int {
        var cursor = ByteCursor(source)
        let size = try cursor.count("the decompressed size", limit: target.count)
        var output = DecompressedBytes(target)
        while cursor.remaining > 0 {
            let tag = Int(try cursor.byte("a tag"))
            switch tag & 3 {
            case 0:
                var length = tag >> 2
                if length >= 60 { length = try number(&cursor, length - 59) }
                try output.append(cursor.take(length + 1, "a literal"))
            case 1:
                let low = Int(try cursor.byte("a distance"))
                try output.repeatBytes(distance: (tag >> 5) << 8 | low, length: tag >> 2 & 7 + 4)
            case 2: try output.repeatBytes(distance: number(&cursor, 2), length: tag >> 2 + 1)
            default: try output.repeatBytes(distance: number(&cursor, 4), length: tag >> 2 + 1)
            }
        }
        guard output.count == size else {
            throw ParquetFault.malformed(
                "compressed bytes become \(output.count) bytes, they say \(size) themselves")
        }
        return size
    }

    /// A number of 1 to 4 bytes, the lowest first.
    @inline(__always)
    private static func number(_ cursor: inout ByteCursor, _ count: Int) throws -> Int {
        var value = 0
        for place in 0..<count { value |= Int(try cursor.byte("a length or distance")) << (8 * place) }
        return value
    }
}

/// The blocks of LZ4, without a frame.
enum LZ4Block {
    /// - Returns: how many bytes there are.
    /// - Throws: `ParquetFault`.
    static func decompress(
        _ source: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer
    ) throws -> Int {
        var cursor = ByteCursor(source)
        var output = DecompressedBytes(target)
        while cursor.remaining > 0 {
            let token = Int(try cursor.byte("a token"))
            try output.append(cursor.take(length(&cursor, token >> 4), "a literal"))
            // The last sequence is a literal alone.
            if cursor.remaining == 0 { break }
            let low = Int(try cursor.byte("a distance"))
            let distance = Int(try cursor.byte("a distance")) << 8 | low
            try output.repeatBytes(distance: distance, length: length(&cursor, token & 15) + 4)
        }
        return output.count
    }

    /// A length of four bits goes on in bytes, up to one that is not 255.
    private static func length(_ cursor: inout ByteCursor, _ start: Int) throws -> Int {
        var length = start
        guard start == 15 else { return length }
        while true {
            let byte = Int(try cursor.byte("a length"))
            length += byte
            if byte != 255 { return length }
        }
    }
}
