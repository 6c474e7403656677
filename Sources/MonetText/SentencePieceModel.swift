import Foundation
import MonetFoundation

/// The settings of a serialized SentencePiece model that decide whether `tokenizers` can do the same: fields of its
/// `ModelProto` (sentencepiece_model.proto).
struct SentencePieceModel {
    /// Whether pieces come from byte-pair encoding.
    private(set) var isBytePair = false
    /// Whether characters without a piece are encoded as bytes.
    private(set) var fallsBackToBytes = false
    /// Whether text is encoded as it is, with one space before it.
    private(set) var keepsText = true
    /// The score of each piece: of two possible pieces, the one with the larger score is joined first.
    private(set) var scores: [Float] = []

    /// Reads the fields of a model that SentencePiece has accepted; nil if they cannot be read.
    init?(_ bytes: UnsafeRawBufferPointer) {
        var model = ProtobufReader(bytes)
        while let (field, value) = model.next() {
            switch (field, value) {
            case (1, .bytes(let piece)):
                var score: Float = 0
                var reader = ProtobufReader(piece)
                while let (field, value) = reader.next() {
                    if case .fixed(let bits) = value, field == 2 { score = Float(bitPattern: bits) }
                }
                guard reader.isAtEnd else { return nil }
                scores.append(score)
            case (2, .bytes(let trainer)):
                var reader = ProtobufReader(trainer)
                while let (field, value) = reader.next() {
                    if case .integer(let number) = value {
                        if field == 3 { isBytePair = number == 2 }
                        if field == 35 { fallsBackToBytes = number != 0 }
                    }
                }
                guard reader.isAtEnd else { return nil }
            case (3, .bytes(let normalizer)):
                var removesSpaces = true
                var reader = ProtobufReader(normalizer)
                while let (field, value) = reader.next() {
                    switch (field, value) {
                    case (2, .bytes(let map)): if !map.isEmpty { keepsText = false }
                    case (3, .integer(let flag)), (5, .integer(let flag)): if flag == 0 { keepsText = false }
                    case (4, .integer(let flag)): removesSpaces = flag != 0
                    default: break
                    }
                }
                guard reader.isAtEnd else { return nil }
                if removesSpaces { keepsText = false }
            default: break
            }
        }
        guard model.isAtEnd else { return nil }
    }
}

/// Reads the fields of one protobuf message, in order.
private struct ProtobufReader {
    enum Value {
        case integer(UInt64)
        case bytes(UnsafeRawBufferPointer)
        /// Four bytes; of eight, the lower ones.
        case fixed(UInt32)
    }

    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { position == bytes.count }

    /// The next field; nil at the end or where the bytes are no message.
    mutating func next() -> (field: UInt64, value: Value)? {
        let start = position
        guard !isAtEnd, let key = varint() else { return nil }
        let value: Value? =
            switch key & 7 {
            case 0: varint().map { .integer($0) }
            case 1: fixed(8)
            case 5: fixed(4)
            case 2: varint().flatMap { field($0) }
            default: nil
            }
        if value == nil { position = start }
        return value.map { (key >> 3, $0) }
    }

    private mutating func varint() -> UInt64? {
        var result: UInt64 = 0
        for shift in stride(from: UInt64(0), to: 64, by: 7) {
            guard position < bytes.count else { return nil }
            let byte = bytes[position]
            position += 1
            result |= UInt64(byte & 0x7f) << shift
            if byte & 0x80 == 0 { return result }
        }
        return nil
    }

    private mutating func fixed(_ count: Int) -> Value? {
        guard bytes.count - position >= count else { return nil }
        defer { position += count }
        return .fixed(
            UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: position, as: UInt32.self)))
    }

    private mutating func field(_ count: UInt64) -> Value? {
        guard let count = Int(exactly: count), bytes.count - position >= count else { return nil }
        defer { position += count }
        return .bytes(UnsafeRawBufferPointer(rebasing: bytes[position..<(position + count)]))
    }
}
