import Foundation
import MonetFoundation
import MonetTraining
import TestSupport
import Testing

/// The event files are read back by their format: record framing, CRC-32C, protocol buffer fields.
@Suite struct TensorBoardTests {
    /// CRC-32C bit by bit, unlike the table in the writer.
    private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt32 {
        var crc: UInt32 = 0xffff_ffff
        for byte in bytes {
            crc ^= UInt32(byte)
            for _ in 0..<8 { crc = crc & 1 == 1 ? crc >> 1 ^ 0x82f6_3b78 : crc >> 1 }
        }
        crc = ~crc
        return (crc >> 15 | crc << 17) &+ 0xa282_ead8
    }

    private func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }

    @Test func recordsAndChecksums() throws {
        #expect(
            checksum(Array("123456789".utf8)[...]) == (0xe306_9283 >> 15 | 0xe306_9283 << 17) &+ 0xa282_ead8
                as UInt32)
        try withTemporaryFolder { folder in
            try TrainerTests.train(TrainerTests.settings(in: folder), folder + "/run")
            let name = try #require(
                try FileManager.default.contentsOfDirectory(atPath: folder + "/run").first {
                    $0.hasPrefix("events.out.tfevents.")
                })
            let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder + "/run/" + name)))
            var position = 0
            var records: [ArraySlice<UInt8>] = []
            while position < bytes.count {
                let length = Int(number(bytes[position..<(position + 8)]))
                #expect(
                    UInt32(number(bytes[(position + 8)..<(position + 12)]))
                        == checksum(bytes[position..<(position + 8)]))
                let content = bytes[(position + 12)..<(position + 12 + length)]
                #expect(
                    UInt32(number(bytes[(position + 12 + length)..<(position + 16 + length)]))
                        == checksum(content))
                records.append(content)
                position += 16 + length
            }
            func contains(_ tag: String) -> Int {
                records.count { Data($0).range(of: Data(tag.utf8)) != nil }
            }
            #expect(contains("brain.Event:2") == 1)
            #expect(contains("train/loss") == 12)
            // Before the first step and after steps 4, 8 and 12.
            #expect(contains("eval/loss") == 4)
            #expect(contains("train/selected_per_head") == 12)
        }
    }
}
