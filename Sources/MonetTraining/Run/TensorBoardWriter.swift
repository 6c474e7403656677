import Foundation
import MonetFoundation

/// Writes scalars as TensorBoard event files: TFRecord framing around `Event` protocol buffers.
final class TensorBoardWriter {
    /// A file and how much of it is valid.
    struct Position: Equatable {
        var name: String
        var bytes: Int
    }

    private let writer: FileWriter
    private let name: String

    /// Continues the file of an earlier process after a checkpoint, or begins one.
    ///
    /// - `step`: the last step of the checkpoint; readers drop what other files say of later ones.
    init(folder: String, continuing earlier: Position?, step: Int) throws {
        if let earlier, Self.isWhole(folder + "/" + earlier.name, earlier.bytes) {
            name = earlier.name
            writer = try FileWriter(path: folder + "/" + name, keeping: earlier.bytes)
            return
        }
        name = "events.out.tfevents.\(Int(Date().timeIntervalSince1970)).\(Self.hostName).\(getpid())"
        writer = try FileWriter(path: folder + "/" + name, appending: true)
        var event = ProtocolBuffer()
        event.double(1, Date().timeIntervalSince1970)
        event.bytes(3, Array("brain.Event:2".utf8))
        try write(event)
        var session = ProtocolBuffer()
        session.varint(1, 1)
        event = ProtocolBuffer()
        event.double(1, Date().timeIntervalSince1970)
        event.varint(2, UInt64(step + 1))
        event.bytes(7, session.content)
        try write(event)
    }

    private static func isWhole(_ path: String, _ bytes: Int) -> Bool {
        var status = stat()
        return bytes > 0 && stat(path, &status) == 0 && Int(status.st_size) >= bytes
    }

    /// The machine's name, without a question to the network.
    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "localhost" }
        return String(decoding: name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Makes what was written durable, and says where it ends.
    func position() throws -> Position {
        try writer.synchronize()
        return Position(name: name, bytes: writer.size)
    }

    /// Records scalars of one step.
    func write(_ scalars: [(tag: String, value: Double)], step: Int) throws {
        var summary = ProtocolBuffer()
        for (tag, value) in scalars {
            var item = ProtocolBuffer()
            item.bytes(1, Array(tag.utf8))
            item.float(2, Float(value))
            summary.bytes(1, item.content)
        }
        var event = ProtocolBuffer()
        event.double(1, Date().timeIntervalSince1970)
        event.varint(2, UInt64(step))
        event.bytes(5, summary.content)
        try write(event)
    }

    private func write(_ event: ProtocolBuffer) throws {
        let length = withUnsafeBytes(of: UInt64(event.content.count).littleEndian) { [UInt8]($0) }
        func masked(_ bytes: [UInt8]) -> [UInt8] {
            let crc = CRC32C.of(bytes)
            let value = (crc >> 15 | crc << 17) &+ 0xa282_ead8
            return withUnsafeBytes(of: value.littleEndian) { [UInt8]($0) }
        }
        try writer.write(length + masked(length) + event.content + masked(event.content))
        try writer.flush()
    }
}

/// The few wire types that events need.
private struct ProtocolBuffer {
    private(set) var content: [UInt8] = []

    private mutating func raw(_ value: UInt64) {
        var value = value
        while value >= 0x80 {
            content.append(UInt8(value & 0x7f) | 0x80)
            value >>= 7
        }
        content.append(UInt8(value))
    }

    mutating func varint(_ field: UInt64, _ value: UInt64) {
        raw(field << 3)
        raw(value)
    }

    mutating func double(_ field: UInt64, _ value: Double) {
        raw(field << 3 | 1)
        withUnsafeBytes(of: value.bitPattern.littleEndian) { content += $0 }
    }

    mutating func float(_ field: UInt64, _ value: Float) {
        raw(field << 3 | 5)
        withUnsafeBytes(of: value.bitPattern.littleEndian) { content += $0 }
    }

    mutating func bytes(_ field: UInt64, _ value: [UInt8]) {
        raw(field << 3 | 2)
        raw(UInt64(value.count))
        content += value
    }
}

/// The Castagnoli cyclic redundancy check.
private enum CRC32C {
    private static let table: [UInt32] = (0..<256).map { index in
        (0..<8).reduce(UInt32(index)) { crc, _ in crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
    }

    static func of(_ bytes: [UInt8]) -> UInt32 {
        ~bytes.reduce(~UInt32(0)) { table[Int(UInt8(truncatingIfNeeded: $0) ^ $1)] ^ $0 >> 8 }
    }
}
