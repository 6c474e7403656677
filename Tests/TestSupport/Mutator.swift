import Foundation
import MonetFoundation

/// Mutated inputs for readers, each of which must end in a value or a typed error.
///
/// Mutations come from a fixed seed, so that a failure can be repeated. `MONET_FUZZ` multiplies their number, as
/// `make fuzz` does.
public enum Mutator {
    /// How many times as many inputs as in the test suite are tried.
    public static let factor = max(
        1, ProcessInfo.processInfo.environment["MONET_FUZZ"].flatMap { Int($0) } ?? 1)

    /// The files of a folder of `Tests/FuzzCorpus`. A crash found anywhere becomes a file there.
    public static func seeds(_ kind: String) throws -> [[UInt8]] {
        let folder =
            URL(fileURLWithPath: Fixture.root).deletingLastPathComponent().path + "/FuzzCorpus/" + kind
        return try FileManager.default.contentsOfDirectory(atPath: folder).sorted().map {
            [UInt8](try Data(contentsOf: URL(fileURLWithPath: folder + "/" + $0)))
        }
    }

    /// What parsers of JSON and safetensors care about.
    public static let parserTokens = [
        "{", "}", "[", "]", ":", ",", "\"", "\\", "\\u", "\\ud800", "null", "true", "-", "1e999", "-0",
        "NaN", "0.1", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
        "18446744073709551615",
        "99999999", "F32", "BF16", "data_offsets", "shape", "\u{0}", "\u{7f}", " ", "\n",
    ]

    /// Flips, replaces, inserts, removes, repeats and crosses bytes, and drops in tokens that parsers care about.
    public static func mutated(
        _ seeds: [[UInt8]], tokens: [String] = parserTokens, _ random: inout SplitMix64
    ) -> [UInt8] {
        func below(_ limit: Int) -> Int { Int(random.next() % UInt64(max(1, limit))) }
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

    /// A JSON value with a few of its parts replaced by numbers, texts and structures that no one expects there.
    public static func mutated(_ value: JSONValue, _ random: inout SplitMix64) -> JSONValue {
        var places = 0
        count(value, &places)
        var chosen = Set(
            (0...Int(random.next() % 2)).map { _ in Int(random.next() % UInt64(max(1, places))) })
        var place = 0
        return replaced(value, &place, &chosen, &random)
    }

    private static func count(_ value: JSONValue, _ places: inout Int) {
        places += 1
        for member in value.members ?? [] { count(member.value, &places) }
        for element in value.arrayValue ?? [] { count(element, &places) }
    }

    private static func replaced(
        _ value: JSONValue, _ place: inout Int, _ chosen: inout Set<Int>, _ random: inout SplitMix64
    ) -> JSONValue {
        place += 1
        if chosen.contains(place - 1) { return oddValues[Int(random.next() % UInt64(oddValues.count))] }
        if let members = value.members {
            return .object(members.map { .init($0.key, replaced($0.value, &place, &chosen, &random)) })
        }
        if let elements = value.arrayValue {
            return .array(elements.map { replaced($0, &place, &chosen, &random) })
        }
        return value
    }

    private static let oddValues: [JSONValue] = [
        .null, true, 0, -1, 1, 2, .integer(.max), .integer(.min), 99_999_999, 65_536, 16_777_216,
        1_000_000_000_000,
        .number(0.5), .number(-1.5), .number(1e300), .number(1e-300), "", "a", "../x", "1e999", [], [1, 2],
        .object([]),
        ["preset": 2], .string(String(repeating: "x", count: 5000)),
    ]
}
