import Foundation
import MonetFoundation
import TestSupport
import Testing

@Suite struct TokenizerCommandTests {
    /// Lines of the golden strings go in, the golden ids come out, and back.
    @Test(arguments: ["trained", "llama"])
    func encodesAndDecodesLines(name: String) throws {
        try withTemporaryFolder { folder in
            let golden = try #require(
                try JSONValue(contentsOfFile: Fixture.path("text/tokenizers.json"))[name]?["strings"]?
                    .arrayValue)
            // A line feed ends a line; a carriage return before it would belong to the line's end.
            let cases = golden.filter { !($0["text"]?.stringValue ?? "\n").utf8.contains(0x0a) }
            let lines = cases.map { ($0["text"]?.stringValue ?? "") + "\n" }.joined()
            let model = Fixture.path("text/\(name).model")
            let encoded = try Command.run(
                ["tokenizer", "encode", "--tokenizer", model, "--json"], in: folder, input: lines)
            #expect(encoded.status == 0, "\(encoded.errors)")
            let rows = encoded.output.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            #expect(rows.count == cases.count)
            for (row, item) in zip(rows, cases) {
                #expect(
                    try JSONValue(parsing: String(row), source: "row") == item["ids"],
                    "\(item["text"]?.serialized() ?? "")")
            }
            let decoded = try Command.run(
                ["tokenizer", "decode", "--tokenizer", model], in: folder, input: encoded.output)
            #expect(decoded.output == cases.map { ($0["decoded"]?.stringValue ?? "") + "\n" }.joined())
        }
    }

    @Test func aLastLineWithoutAnEndCounts() throws {
        try withTemporaryFolder { folder in
            let arguments = ["tokenizer", "encode", "--tokenizer", Fixture.path("text/trained.model")]
            let with = try Command.run(arguments, in: folder, input: "The sea\n")
            #expect(with.output == (try Command.run(arguments, in: folder, input: "The sea")).output)
            #expect(try Command.run(arguments, in: folder, input: "").output.isEmpty)
            #expect(try Command.run(arguments, in: folder, input: "\n").output == "\n")
        }
    }
}
