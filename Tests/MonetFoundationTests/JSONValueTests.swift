import Foundation
import MonetFoundation
import TestSupport
import Testing

/// JSON as files hold it, against Foundation's reader, which is lenient where this one is strict.
@Suite struct JSONValueTests {
    private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: text, source: "test") }

    @Test func valuesAreThoseOfFoundation() throws {
        let text = #"{"a": [1, -2.5, 1e3, true, false, null], "b": {"c": "é\u0041\n\ud83d\ude00"}, "d": ""}"#
        let value = try parse(text)
        #expect(value["a"]?.arrayValue?.compactMap(\.doubleValue) == [1, -2.5, 1000])
        #expect(value["b"]?["c"]?.stringValue == "éA\n😀")
        #expect(value.members?.map(\.key) == ["a", "b", "d"])
        let foundation = try JSONSerialization.jsonObject(with: Data(text.utf8)) as? NSDictionary
        for pretty in [false, true] {
            let written = value.serialized(pretty: pretty)
            #expect(try parse(written) == value)
            let read = try JSONSerialization.jsonObject(with: Data(written.utf8)) as? NSDictionary
            #expect(read == foundation)
        }
    }

    /// Numbers at the ends of what 64 bits hold; fractions without a fraction are integers where they fit.
    @Test(
        arguments: [
            ("9223372036854775807", Int.max), ("-9223372036854775808", .min), ("-0", 0), ("1e3", 1000),
            ("-9223372036854775808.0", .min), ("9223372036854775808", nil), ("1e300", nil), ("0.5", nil),
            ("-1e19", nil),
        ] as [(String, Int?)])
    func integers(text: String, expected: Int?) throws {
        let value = try parse(text)
        #expect(value.intValue == expected)
        #expect(value.doubleValue == Double(text))
        // Whatever was read can be written and read again.
        #expect(try parse(value.serialized()).doubleValue == value.doubleValue)
        #expect(JSONValue.number(Double(text) ?? 0).serialized().isEmpty == false)
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\":1,\"a\":2}", "NaN", "01", "+1", "1 2", "\"\u{1}\"", "\"\\x\"", "\"\\ud800\"",
        "nul", "[1", "{\"a\"}", "-",
    ])
    func whatIsNotJSONIsRefused(text: String) {
        #expect(throws: FileError.self) { try parse(text) }
    }

    /// Nesting ends in an error, not in a full stack.
    @Test func depthIsLimited() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: FileError.self) { try parse(deep) }
    }
}
