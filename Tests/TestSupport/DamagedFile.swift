import Foundation
import MonetFoundation

/// Files that writers of this package refuse to write.
public enum DamagedFile {
    /// Overwrites bytes of a tensor in a safetensors file.
    public static func write(_ bytes: [UInt8], toTensor name: String, at offset: Int, of path: String) throws
    {
        var content = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
        let length = content[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        let header = try content[8..<(8 + length)].withUnsafeBytes {
            try JSONValue(parsing: $0, source: path)
        }
        guard let start = header[name]?["data_offsets"]?.arrayValue?.first?.intValue else {
            throw FileError.unreadable(path: path, reason: "no tensor \(name)")
        }
        content.replaceSubrange(
            (8 + length + start + offset)..<(8 + length + start + offset + bytes.count), with: bytes)
        try Data(content).write(to: URL(fileURLWithPath: path))
    }

    /// Overwrites one float32 of a tensor.
    public static func write(_ value: Float, toTensor name: String, element: Int, of path: String) throws {
        try write(
            withUnsafeBytes(of: value.bitPattern.littleEndian) { [UInt8]($0) }, toTensor: name,
            at: 4 * element,
            of: path)
    }
}
