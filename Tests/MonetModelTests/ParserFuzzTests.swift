import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// A million and more mutated inputs for the parsers: each must end in a value or a typed error.
///
/// The seeds lie in `Tests/FuzzCorpus`; a crash found anywhere becomes a file there. Mutations come from
/// a fixed seed, so that a failure can be repeated.
@Suite struct ParserFuzzTests {
    private func seeds(_ kind: String) throws -> [[UInt8]] {
        let folder =
            URL(fileURLWithPath: Fixture.root).deletingLastPathComponent().path + "/FuzzCorpus/" + kind
        return try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map {
            [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder + "/" + $0)))
        }
    }

    /// Flips, replaces, inserts, removes, repeats and crosses bytes, and drops in tokens that parsers care about.
    private func mutated(_ seeds: [[UInt8]], _ random: inout SplitMix64) -> [UInt8] {
        func below(_ limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }
        let tokens = [
            "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u", "\\ud800", "null", "true", "-", "1e999", "-0",
            "NaN", "0.1",
            "9223372036854775807", "9223372036854775808", "18446744073709551615", "F32", "BF16",
            "data_offsets", "shape",
            "\u{0}", "\u{7f}", " ", "\n",
        ]
        var bytes = seeds[below(seeds.count)]
        for _ in 0...below(4) {
            let place = below(bytes.count + 1)
            switch below(7) {
            case 0 where place < bytes.count: bytes[place] ^= 1 << UInt8(below(8))
            case 1 where place < bytes.count: bytes[place] = UInt8(below(256))
            case 2: bytes.insert(UInt8(below(256)), at: place)
            case 3 where place < bytes.count:
                bytes.removeSubrange(place..<min(bytes.count, place + 1 + below(8)))
            case 4: bytes.insert(contentsOf: Array(tokens[below(tokens.count)].utf8), at: place)
            case 5 where place < bytes.count:
                bytes.insert(
                    contentsOf: Array(bytes[place..<min(bytes.count, place + 1 + below(16))]), at: place)
            case 6:
                let other = seeds[below(seeds.count)]
                bytes = Array(bytes[..<place]) + other.suffix(below(other.count + 1))
            default: break
            }
        }
        return bytes
    }

    @Test func json() throws {
        let seeds = try seeds("json")
        var random = SplitMix64(seed: 1)
        var accepted = 0
        for _ in 0..<600_000 {
            let bytes = mutated(seeds, &random)
            do {
                let value = try bytes.withUnsafeBytes { try JSONValue(parsing: $0, source: "fuzz") }
                accepted += 1
                // What parses is written back to something that parses to the same.
                #expect(try JSONValue(parsing: value.serialized(), source: "fuzz") == value)
            } catch is FileError {}
        }
        #expect(accepted > 1000)
    }

    @Test func safetensors() throws {
        let seeds = try seeds("safetensors")
        var random = SplitMix64(seed: 2)
        var accepted = 0
        for count in 0..<500_000 {
            var bytes = mutated(seeds, &random)
            // Half of the time the length is right again, so that mutations reach beyond it.
            if count % 2 == 0, bytes.count >= 8, let end = bytes.lastIndex(of: UInt8(ascii: "}")), end >= 8 {
                let length = UInt64(end - 7)
                for byte in 0..<8 { bytes[byte] = UInt8(truncatingIfNeeded: length >> (8 * UInt64(byte))) }
            }
            do {
                try bytes.withUnsafeBytes { try SafetensorsFile.validate($0, file: "fuzz") }
                accepted += 1
            } catch is ModelError {} catch is FileError {}
        }
        #expect(accepted > 100)
    }

    @Test func configuration() throws {
        let seeds = try seeds("config")
        var random = SplitMix64(seed: 3)
        for _ in 0..<60_000 {
            let bytes = mutated(seeds, &random)
            do {
                let value = try bytes.withUnsafeBytes { try JSONValue(parsing: $0, source: "fuzz") }
                let configuration = try MonetConfiguration(json: value, file: "fuzz")
                // What is accepted is of a size that can be counted.
                #expect(configuration.parameterCount > 0)
            } catch is FileError {} catch is ModelError {}
        }
    }
}
