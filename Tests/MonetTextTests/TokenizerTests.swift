import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Agreement with Python's sentencepiece on `Tests/Fixtures/text`; see generate.py there.
@Suite struct TokenizerTests {
    static let names = ["trained", "llama"]

    private func golden(_ name: String) throws -> JSONValue {
        try #require(try JSONValue(contentsOfFile: Fixture.path("text/tokenizers.json"))[name])
    }

    private func tokenizer(_ name: String) throws -> Tokenizer {
        try Tokenizer(path: Fixture.path("text/\(name).model"))
    }

    private func ids(_ value: JSONValue?) throws -> [Int32] {
        try #require(value?.arrayValue).map { Int32(try #require($0.intValue)) }
    }

    @Test(arguments: names)
    func hardStrings(name: String) throws {
        let tokenizer = try tokenizer(name)
        let strings = try #require(try golden(name)["strings"]?.arrayValue)
        #expect(strings.count > 40)
        for item in strings {
            let text = try #require(item["text"]?.stringValue)
            let expected = try ids(item["ids"])
            #expect(try tokenizer.encode(text) == expected, "\(text.debugDescription)")
            #expect(
                try tokenizer.decode(expected) == item["decoded"]?.stringValue, "\(text.debugDescription)")
        }
    }

    @Test(arguments: names)
    func longLines(name: String) throws {
        let tokenizer = try tokenizer(name)
        for item in try #require(try golden(name)["long"]?.arrayValue) {
            let unit = try #require(item["unit"]?.stringValue)
            let encoded = try tokenizer.encode(
                String(repeating: unit, count: try #require(item["repeat"]?.intValue)))
            #expect(encoded.count == item["tokens"]?.intValue)
            #expect(try Array(encoded.prefix(20)) == ids(item["first"]))
            #expect(encoded.reduce(0) { ($0 * 31 + Int($1)) % 1_000_000_007 } == item["checksum"]?.intValue)
        }
    }

    /// A text in parts has the ids that it has as a whole, wherever it is cut.
    @Test(arguments: names)
    func longTextsAreEncodedInParts(name: String) throws {
        let tokenizer = try tokenizer(name)
        let words = [
            "sea", "ship", "the", "a", "9", "\u{e9}t\u{e9}", "\u{2581}", "\u{1f30a}", "\n", "\t", "", "",
            "don't", "x,",
            "<s>", "\u{ff3a}",
        ]
        var random = SplitMix64(seed: 6)
        var cuts = 0
        for _ in 0..<300 {
            let text = (0..<Int(random.next() % 60)).map { _ in
                words[Int(random.next() % UInt64(words.count))]
            }
            .joined(separator: " ")
            let whole = try tokenizer.encodePlain(text, partBytes: .max)
            #expect(try tokenizer.encode(text) == whole)
            for partBytes in [1, 7, 40] {
                #expect(
                    try tokenizer.encodePlain(text, partBytes: partBytes) == whole, "\(text.debugDescription)"
                )
                cuts += text.utf8.count > partBytes ? 1 : 0
            }
        }
        #expect(cuts > 500)
        // A word without end is refused by its size before SentencePiece takes its memory.
        let long = String(repeating: "a", count: 3_000_000)
        #expect(try tokenizer.encode(long) == tokenizer.encodePlain(long, partBytes: .max))
    }

    /// Random ids, bytes of broken UTF-8 among them, decode as in Python; streamed, they give the same text.
    @Test(arguments: names)
    func randomSequences(name: String) throws {
        let tokenizer = try tokenizer(name)
        for item in try #require(try golden(name)["sequences"]?.arrayValue) {
            let ids = try ids(item["ids"])
            let expected = try #require(item["decoded"]?.stringValue)
            #expect(try tokenizer.decode(ids) == expected, "\(ids)")
            var decoder = StreamingDecoder(tokenizer: tokenizer)
            var streamed = ""
            for id in ids { streamed += try decoder.append(id) }
            streamed += decoder.finish()
            #expect(streamed == expected, "\(ids)")
        }
    }

    /// A character of four bytes in four byte tokens appears at once, with its last byte.
    @Test func streamingNeverSplitsACharacter() throws {
        let tokenizer = try tokenizer("trained")
        let ids = try tokenizer.encode("a😀b\u{301}𝔘")
        var decoder = StreamingDecoder(tokenizer: tokenizer)
        let parts = try ids.map { try decoder.append($0) }
        #expect(parts.joined() + decoder.finish() == "a😀b\u{301}𝔘")
        #expect(parts.contains("") && !parts.joined().contains("\u{fffd}"))
        // Bytes that end in the middle of a character are reported when the text ends, not before.
        var broken = StreamingDecoder(tokenizer: tokenizer)
        var text = ""
        for id in ids.prefix(while: { _ in true }).dropLast() { text += try broken.append(id) }
        #expect(!text.contains("\u{fffd}"))
        #expect(broken.finish().contains("\u{fffd}"))
    }

    @Test func badIdsAndFilesAreErrors() throws {
        let tokenizer = try tokenizer("llama")
        #expect(tokenizer.vocabularySize == 32000)
        for id: Int32 in [-1, 32000, .max] {
            #expect(throws: TextError.unknownTokenID(id: Int(id), vocabularySize: 32000)) {
                try tokenizer.decode([5, id])
            }
        }
        try withTemporaryFolder { folder in
            for (name, bytes) in [
                ("empty", Data()), ("noise", Data((0..<500).map { UInt8($0 % 251) })),
                ("text", Data("hello".utf8)),
            ] {
                let path = folder + "/" + name + ".model"
                try bytes.write(to: URL(fileURLWithPath: path))
                do {
                    _ = try Tokenizer(path: path)
                    Issue.record("\(name) was accepted")
                } catch { #expect("\(error)".contains(name + ".model")) }
            }
        }
    }

    @Test func specialTokensArePartOfTemplatesOnly() throws {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(
                atPath: Fixture.path("text/llama.model"), toPath: folder + "/tokenizer.model")
            let config: JSONValue = [
                "bos_token": "<s>", "eos_token": "</s>",
                "added_tokens_decoder": ["5": ["content": "<|im_end|>", "special": true]],
            ]
            try AtomicFile.write(config.serialized(), to: folder + "/tokenizer_config.json")
            let tokenizer = try Tokenizer(folder: folder)
            #expect(try tokenizer.encode("</s>") != [2])
            #expect(try tokenizer.encode("</s>", parsingSpecial: true) == [2])
            #expect(
                try tokenizer.encode("<s>x", addBegin: true, parsingSpecial: true).filter { $0 == 1 }.count
                    == 1)
            #expect(try tokenizer.encode("x<|im_end|>", parsingSpecial: true).last == 5)
        }
    }

    @Test func trainsATokenizerThatKeepsEverything() throws {
        let lines = (0..<400).map { "line \($0) of the text, with  spaces and\ttabs: \($0 * 7919)" }
        let model = try TokenizerTrainer.train(sentences: lines, vocabularySize: 330, threads: 2)
        try withTemporaryFolder { folder in
            let path = folder + "/t.model"
            try AtomicFile.write(to: path) { try $0.write(model) }
            let tokenizer = try Tokenizer(path: path)
            #expect(tokenizer.vocabularySize == 330)
            #expect(tokenizer.beginID == 1 && tokenizer.endID == 2)
            for text in lines.prefix(10) + ["  two spaces", "日本 😀", "tab\tnew\nline"] {
                #expect(try tokenizer.decode(tokenizer.encode(text)) == text)
            }
        }
        // A line and a word longer than SentencePiece takes count like any other.
        let long = [
            String(repeating: "many words of one line ", count: 9000), String(repeating: "é", count: 70_000),
        ]
        let trained = try TokenizerTrainer.train(sentences: long, vocabularySize: 300, threads: 1)
        try withTemporaryFolder { folder in
            try AtomicFile.write(to: folder + "/t.model") { try $0.write(trained) }
            let tokenizer = try Tokenizer(path: folder + "/t.model")
            #expect(try tokenizer.encode("many words of one line").count < 12)
            #expect(try tokenizer.encode("éééé").count < 6)
        }
        for (sentences, size) in [([], 400), ([""], 400), (["text"], 10), (["too little text"], 5000)]
            as [([String], Int)]
        {
            #expect(throws: TextError.self) {
                try TokenizerTrainer.train(sentences: sentences, vocabularySize: size, threads: 1)
            }
        }
    }
}
