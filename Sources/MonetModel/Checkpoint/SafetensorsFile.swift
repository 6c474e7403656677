import Foundation
import MonetCompute
import MonetFoundation

/// A mapped safetensors file: tensors are views of the file, nothing is copied.
///
///     let file = try SafetensorsFile(path: "model.safetensors")
///     let weight = try file.tensor("lm_head.weight")
///
/// The file must follow the format exactly: a header of at most 100 MB that starts with `{`,
/// unique keys, known types, and offsets that cover the data without gaps or overlaps.
public struct SafetensorsFile: Sendable {
    /// The file's path.
    public let path: String
    /// The header's `__metadata__`.
    public let metadata: [String: String]
    /// Name, type and extents of every tensor, in the order of their data.
    public let entries: [Entry]
    private let mapping: MappedFile
    private let dataStart: Int
    private let indexOfName: [String: Int]

    /// One tensor's position, type and shape.
    public struct Entry: Sendable {
        public let name: String
        public let dtype: DType
        public let shape: [Int]
        /// Range of bytes, counted from the end of the header.
        public let range: Range<Int>
    }

    /// Maximum length of a header.
    public static let maximumHeaderLength = 100_000_000

    /// Maps and checks a file.
    ///
    /// - Throws: `FileError.unreadable`, `FileError.malformedJSON` or `ModelError.malformedSafetensors`.
    public init(path: String) throws {
        self.path = path
        mapping = try MappedFile(path: path)
        let header = try Self.parse(mapping.bytes, file: path)
        (metadata, entries, dataStart) = (header.metadata, header.entries, header.dataStart)
        indexOfName = Dictionary(uniqueKeysWithValues: entries.enumerated().map { ($1.name, $0) })
    }

    /// Checks the bytes of a file without mapping one.
    public static func validate(_ bytes: UnsafeRawBufferPointer, file: String) throws {
        _ = try parse(bytes, file: file)
    }

    private static func parse(
        _ bytes: UnsafeRawBufferPointer, file: String
    ) throws -> (metadata: [String: String], entries: [Entry], dataStart: Int) {
        func fail(_ reason: String, tensor: String? = nil) -> ModelError {
            .malformedSafetensors(file: file, tensor: tensor, reason: reason)
        }
        guard bytes.count >= 8 else {
            throw fail("it has \(bytes.count) bytes, too few for a safetensors header")
        }
        let length = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        guard length <= UInt64(maximumHeaderLength) else {
            throw fail("the header's length is \(length) bytes, more than \(maximumHeaderLength)")
        }
        let dataStart = 8 + Int(length)
        guard dataStart <= bytes.count else {
            throw fail("truncated: the header needs \(dataStart) bytes, the file has \(bytes.count)")
        }
        guard length >= 2, bytes[8] == UInt8(ascii: "{") else {
            throw fail("the header does not start with '{'")
        }
        let json = try JSONValue(
            parsing: UnsafeRawBufferPointer(rebasing: bytes[8..<dataStart]), source: "\(file): header")
        var metadata: [String: String] = [:]
        var entries: [Entry] = []
        let dataCount = bytes.count - dataStart
        for member in json.members ?? [] {
            if member.key == "__metadata__" {
                guard let pairs = member.value.members else { throw fail("__metadata__ is not an object") }
                for pair in pairs {
                    guard let text = pair.value.stringValue else {
                        throw fail("__metadata__ \"\(pair.key)\" is not a string")
                    }
                    metadata[pair.key] = text
                }
                continue
            }
            entries.append(try entry(member, dataCount: dataCount, file: file))
        }
        entries.sort {
            ($0.range.lowerBound, $0.range.upperBound, $0.name) < (
                $1.range.lowerBound, $1.range.upperBound, $1.name
            )
        }
        var end = 0
        for entry in entries {
            if entry.range.lowerBound < end {
                throw fail("its data overlaps another tensor's", tensor: entry.name)
            }
            if entry.range.lowerBound > end {
                throw fail(
                    "a gap of \(entry.range.lowerBound - end) bytes lies before its data", tensor: entry.name)
            }
            end = entry.range.upperBound
        }
        guard end == dataCount else {
            throw fail("\(dataCount - end) bytes follow the last tensor's data")
        }
        return (metadata, entries, dataStart)
    }

    private static func entry(_ member: JSONValue.Member, dataCount: Int, file: String) throws -> Entry {
        func fail(_ reason: String) -> ModelError {
            .malformedSafetensors(file: file, tensor: member.key, reason: reason)
        }
        guard let fields = member.value.members else {
            throw fail("its entry is \(member.value.kind), not an object")
        }
        for field in fields where !["dtype", "shape", "data_offsets"].contains(field.key) {
            throw fail("unknown field \"\(field.key)\"")
        }
        guard let dtypeName = member.value["dtype"]?.stringValue else { throw fail("no dtype") }
        guard let dtype = DType(rawValue: dtypeName), dtype.isStorable else {
            let known = DType.allCases.filter(\.isStorable).map(\.rawValue).joined(separator: ", ")
            throw fail("unknown dtype \"\(dtypeName)\"; known are \(known)")
        }
        guard let extents = member.value["shape"]?.arrayValue else { throw fail("no shape") }
        var shape: [Int] = []
        var byteCount = dtype.byteCount
        for extent in extents {
            guard case .integer(let value) = extent, value >= 0 else {
                throw fail("a shape of non-negative integers is expected")
            }
            let (product, overflow) = byteCount.multipliedReportingOverflow(by: value)
            guard !overflow else { throw fail("its shape is absurdly large") }
            byteCount = product
            shape.append(value)
        }
        guard let offsets = member.value["data_offsets"]?.arrayValue, offsets.count == 2,
            case .integer(let start) = offsets[0], case .integer(let end) = offsets[1]
        else { throw fail("data_offsets are not two integers") }
        guard start >= 0, end >= start else { throw fail("data_offsets [\(start), \(end)] are not a range") }
        guard end <= dataCount else {
            throw fail("truncated or out of range: its data ends at byte \(end), the file holds \(dataCount)")
        }
        guard end - start == byteCount else {
            throw fail(
                "shape \(shape) of \(dtypeName) takes \(byteCount) bytes, data_offsets give \(end - start)")
        }
        return Entry(name: member.key, dtype: dtype, shape: shape, range: start..<end)
    }

    /// Whether the file has a tensor of this name.
    public func contains(_ name: String) -> Bool { indexOfName[name] != nil }

    /// A view of a tensor; a copy if it is not aligned in the file.
    ///
    /// - Throws: `ModelError.missingTensor`.
    public func tensor(_ name: String) throws -> Tensor {
        guard let index = indexOfName[name] else { throw ModelError.missingTensor(file: path, tensor: name) }
        let entry = entries[index]
        let range = (dataStart + entry.range.lowerBound)..<(dataStart + entry.range.upperBound)
        let view = Tensor(
            shape: entry.shape, dtype: entry.dtype, mapping: mapping, range: range)
        return range.lowerBound % entry.dtype.byteCount == 0 ? view : view.copy()
    }

    /// A view of bytes as quantized rows of `shape`.
    ///
    /// - Throws: `ModelError.missingTensor`, `.wrongDType`, `.wrongShape`.
    func quantizedRows(_ name: String, _ dtype: DType, shape: [Int]) throws -> Tensor {
        let bytes = try tensor(name)
        guard bytes.dtype == .uint8 else {
            throw ModelError.wrongDType(
                file: path, tensor: name, expected: DType.uint8.rawValue, found: bytes.dtype.rawValue)
        }
        let stored = shape.dropLast() + [dtype.rowByteCount(columns: shape.last ?? 1)]
        guard bytes.shape == Array(stored) else {
            throw ModelError.wrongShape(file: path, tensor: name, expected: Array(stored), found: bytes.shape)
        }
        return Tensor(shape: shape, dtype: dtype, storage: bytes.storage)
    }
}
