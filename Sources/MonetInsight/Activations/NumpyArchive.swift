import MonetCompute
import MonetFoundation

/// Writes arrays as NumPy's `.npz`, completely or not at all: a zip archive of `.npy` files, not compressed.
public enum NumpyArchive {
    /// Writes tensors of plain numbers; bfloat16, which NumPy does not have, becomes float32.
    ///
    /// - Throws: `FileError.unwritable`; `InsightError.invalidSetting` beyond the 4 GiB of a plain zip archive.
    public static func write(_ tensors: [(name: String, tensor: Tensor)], to path: String) throws {
        let entries = tensors.map { entry -> (name: String, tensor: Tensor, header: [UInt8]) in
            let tensor = entry.tensor.dtype == .bfloat16 ? entry.tensor.converted(to: .float32) : entry.tensor
            return (entry.name + ".npy", tensor, header(tensor))
        }
        let size = entries.reduce(0) {
            $0 + $1.tensor.byteCount + $1.header.count + 2 * $1.name.utf8.count + 200
        }
        guard size < Int(UInt32.max) else {
            throw InsightError.invalidSetting(
                name: "the size of \(path)", found: "\(size)",
                expected: "less than 4 GiB; write smaller shards")
        }
        try AtomicFile.write(to: path) { writer in
            var directory: [UInt8] = []
            var offset = 0
            for (name, tensor, header) in entries {
                var checksum = CyclicChecksum()
                header.withUnsafeBytes { checksum.update($0) }
                tensor.withUnsafeBytes { checksum.update($0) }
                let length = header.count + tensor.byteCount
                // Version, flags, method, time and date, checksum, sizes, lengths of name and extra field.
                let common: [UInt8] =
                    bytes(UInt16(20)) + bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt16(0))
                    + bytes(UInt16(0x21))
                    + bytes(checksum.value) + bytes(UInt32(length)) + bytes(UInt32(length))
                    + bytes(UInt16(name.utf8.count)) + bytes(UInt16(0))
                let local = bytes(UInt32(0x0403_4b50)) + common + Array(name.utf8)
                directory += bytes(UInt32(0x0201_4b50)) + bytes(UInt16(20)) + common
                // Comment, disk, attributes, and where the file begins.
                directory += bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(UInt32(0))
                directory += bytes(UInt32(offset)) + Array(name.utf8)
                try writer.write(local)
                try writer.write(header)
                try tensor.withUnsafeBytes { try writer.write($0) }
                offset += local.count + length
            }
            try writer.write(directory)
            let count = UInt16(entries.count)
            try writer.write(
                bytes(UInt32(0x0605_4b50)) + bytes(UInt16(0)) + bytes(UInt16(0)) + bytes(count) + bytes(count)
                    + bytes(UInt32(directory.count)) + bytes(UInt32(offset)) + bytes(UInt16(0)))
        }
    }

    private static func bytes(_ value: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: value.littleEndian) { Array($0) }
    }

    /// The header of an `.npy` file, version 1.0.
    private static func header(_ tensor: Tensor) -> [UInt8] {
        let type =
            switch tensor.dtype {
            case .float16: "<f2"
            case .int32: "<i4"
            case .int64: "<i8"
            case .uint8: "|u1"
            default: "<f4"
            }
        let shape = tensor.shape.map { "\($0)," }.joined(separator: " ")
        var text = "{'descr': '\(type)', 'fortran_order': False, 'shape': (\(shape)), }"
        while (10 + text.utf8.count + 1) % 64 != 0 { text += " " }
        text += "\n"
        return [0x93] + Array("NUMPY".utf8) + [1, 0] + bytes(UInt16(text.utf8.count)) + Array(text.utf8)
    }
}

/// CRC-32 as zip archives use it (ISO 3309).
private struct CyclicChecksum {
    private var state: UInt32 = 0xffff_ffff

    private static let table: [UInt32] = (0..<256).map { byte in
        (0..<8).reduce(UInt32(byte)) { value, _ in value & 1 == 1 ? 0xedb8_8320 ^ (value >> 1) : value >> 1 }
    }

    var value: UInt32 { ~state }

    mutating func update(_ bytes: UnsafeRawBufferPointer) {
        Self.table.withUnsafeBufferPointer { table in
            for byte in bytes { state = table[Int((state ^ UInt32(byte)) & 0xff)] ^ (state >> 8) }
        }
    }
}
