import Foundation
import MonetCompute
import MonetFoundation

/// Writes safetensors files, whole or not at all.
public enum SafetensorsWriter {
    /// Writes `tensors` to `path`, replacing a file there only once the new one is complete.
    public static func write(
        _ tensors: [(name: String, tensor: Tensor)], metadata: [String: String] = [:], to path: String
    ) throws {
        // Wide elements first keeps every tensor aligned; equal widths in the given order.
        let ordered = tensors.enumerated().sorted {
            ($1.element.tensor.dtype.byteCount, $0.offset) < ($0.element.tensor.dtype.byteCount, $1.offset)
        }.map(\.element)
        var members: [JSONValue.Member] = []
        if !metadata.isEmpty {
            members.append(
                .init(
                    "__metadata__",
                    .object(metadata.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) })))
        }
        var offset = 0
        for (name, tensor) in ordered {
            members.append(
                .init(
                    name,
                    [
                        "dtype": .string(tensor.dtype.rawValue),
                        "shape": .array(tensor.shape.map { .integer($0) }),
                        "data_offsets": [.integer(offset), .integer(offset + tensor.byteCount)],
                    ]))
            offset += tensor.byteCount
        }
        var header = Array(JSONValue.object(members).serialized().utf8)
        while (header.count + 8) % 64 != 0 { header.append(0x20) }
        try AtomicFile.write(to: path) { writer in
            try writer.write(withUnsafeBytes(of: UInt64(header.count).littleEndian) { [UInt8]($0) })
            try writer.write(header)
            for (_, tensor) in ordered { try tensor.withUnsafeBytes { try writer.write($0) } }
        }
    }
}
