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
    @Test func json() throws {
        let seeds = try Mutator.seeds("json")
        var random = SplitMix64(seed: 1)
        var accepted = 0
        for _ in 0..<(600_000 * Mutator.factor) {
            let bytes = Mutator.mutated(seeds, &random)
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
        let seeds = try Mutator.seeds("safetensors")
        var random = SplitMix64(seed: 2)
        var accepted = 0
        for count in 0..<(500_000 * Mutator.factor) {
            var bytes = Mutator.mutated(seeds, &random)
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
        let seeds = try Mutator.seeds("config")
        var random = SplitMix64(seed: 3)
        for _ in 0..<(60_000 * Mutator.factor) {
            let bytes = Mutator.mutated(seeds, &random)
            do {
                let value = try bytes.withUnsafeBytes { try JSONValue(parsing: $0, source: "fuzz") }
                let configuration = try MonetConfiguration(json: value, file: "fuzz")
                // What is accepted is of a size that can be counted.
                #expect(configuration.parameterCount > 0)
            } catch is FileError {} catch is ModelError {}
        }
    }
}
