import Foundation
import MonetCompute
import MonetFoundation

/// Writes safetensors files, completely or not at all.
public enum SafetensorsWriter {
    /// A tensor and the type to store it as; quantized rows are stored as bytes.
    struct Entry {
        let name: String
        let source: Tensor
        let dtype: DType
        /// The name under which NaN and infinities are reported; nil if they may occur.
        var checkedName: String?

        var storedType: DType { dtype.isQuantized ? .uint8 : dtype }
        var shape: [Int] {
            dtype.isQuantized
                ? source.shape.dropLast() + [dtype.rowByteCount(columns: source.columnCount)] : source.shape
        }
        var byteCount: Int { shape.reduce(storedType.byteCount, *) }
    }

    /// Writes `tensors` to `path`, replacing a file there only once the new one is complete.
    public static func write(
        _ tensors: [(name: String, tensor: Tensor)], metadata: [String: String] = [:], to path: String
    ) throws {
        try write(
            tensors.map { Entry(name: $0.name, source: $0.tensor, dtype: $0.tensor.dtype) },
            metadata: metadata, to: path)
    }

    /// Writes tensors. Each is converted only when it is written, so that one is in memory at a time.
    static func write(_ entries: [Entry], metadata: [String: String] = [:], to path: String) throws {
        // Wide elements come first, which keeps every tensor aligned; equal widths keep the given order.
        let ordered = entries.enumerated().sorted {
            ($1.element.storedType.byteCount, $0.offset) < ($0.element.storedType.byteCount, $1.offset)
        }.map(\.element)
        let header = header(
            ordered.map { ($0.name, $0.storedType.rawValue, $0.shape, $0.byteCount) }, metadata)
        try AtomicFile.write(to: path) { writer in
            try writer.write(header)
            for entry in ordered {
                // Before quantizing, which takes finite numbers, and after narrowing, which can overflow.
                let target = entry.dtype.isQuantized ? entry.source : entry.source.converted(to: entry.dtype)
                if let name = entry.checkedName {
                    if let error = entry.source.nonFinite(named: name, in: "the model") { throw error }
                    if let error = target.nonFinite(named: name, in: "the model in \(target.dtype.torchName)")
                    {
                        throw error
                    }
                }
                try target.converted(to: entry.dtype).withUnsafeBytes { try writer.write($0) }
            }
        }
    }

    /// Numbers of a type that tensors do not have here, as they are stored.
    package struct RawEntry {
        let name: String
        let type: String
        let shape: [Int]
        let bytes: [UInt8]

        /// Whole numbers.
        package init(name: String, _ values: [some FixedWidthInteger], shape: [Int]) {
            (self.name, self.shape) = (name, shape)
            type = (values is [UInt16] ? "U16" : values is [UInt32] ? "U32" : "I64")
            bytes = values.withUnsafeBytes { Array($0) }
        }

        /// A tensor's elements.
        package init(name: String, _ tensor: Tensor) {
            (self.name, type, shape) = (name, tensor.dtype.rawValue, tensor.shape)
            bytes = tensor.withUnsafeBytes { Array($0) }
        }
    }

    /// Writes entries in their order.
    package static func write(_ entries: [RawEntry], to path: String) throws {
        let header = header(entries.map { ($0.name, $0.type, $0.shape, $0.bytes.count) }, [:])
        try AtomicFile.write(to: path) { writer in
            try writer.write(header)
            for entry in entries { try writer.write(entry.bytes) }
        }
    }

    /// The length of the description and the description, padded so that tensors are aligned.
    private static func header(
        _ entries: [(name: String, type: String, shape: [Int], byteCount: Int)], _ metadata: [String: String]
    ) -> [UInt8] {
        var members: [JSONValue.Member] = []
        if !metadata.isEmpty {
            members.append(
                .init(
                    "__metadata__",
                    .object(metadata.sorted { $0.key < $1.key }.map { .init($0.key, .string($0.value)) })))
        }
        var offset = 0
        for entry in entries {
            members.append(
                .init(
                    entry.name,
                    [
                        "dtype": .string(entry.type), "shape": .array(entry.shape.map { .integer($0) }),
                        "data_offsets": [.integer(offset), .integer(offset + entry.byteCount)],
                    ]))
            offset += entry.byteCount
        }
        var text = Array(JSONValue.object(members).serialized().utf8)
        while (text.count + 8) % 64 != 0 { text.append(0x20) }
        return withUnsafeBytes(of: UInt64(text.count).littleEndian) { [UInt8]($0) } + text
    }
}
