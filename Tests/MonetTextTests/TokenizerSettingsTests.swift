import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Tokens and templates from the files beside `tokenizer.model`.
@Suite struct TokenizerSettingsTests {
    private func tokenizer(_ files: [String: JSONValue], text: [String: String] = [:]) throws -> Tokenizer {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(
                atPath: Fixture.path("text/trained.model"), toPath: folder + "/tokenizer.model")
            for (name, json) in files { try AtomicFile.write(json.serialized(), to: folder + "/" + name) }
            for (name, text) in text { try AtomicFile.write(text, to: folder + "/" + name) }
            return try Tokenizer(folder: folder)
        }
    }

    private func token(_ text: String, special: Bool = true, rstrip: Bool = false) -> JSONValue {
        ["content": .string(text), "special": .bool(special), "lstrip": false, "rstrip": .bool(rstrip)]
    }

    @Test func addedTokens() throws {
        let pieces = try Tokenizer(path: Fixture.path("text/trained.model")).pieceCount
        let (first, second, third) = (Int32(pieces), Int32(pieces + 1), Int32(pieces + 2))
        let files: [[String: JSONValue]] = [
            [
                "tokenizer_config.json": [
                    "added_tokens_decoder": .object([
                        .init("\(first)", token("<|im_start|>", rstrip: true)),
                        .init("\(second)", token("<|im_end|>")),
                        .init("\(third)", token("<tool>", special: false)),
                    ])
                ]
            ],
            [
                "tokenizer.json": [
                    "added_tokens": [
                        [
                            "id": .integer(Int(first)), "content": "<|im_start|>", "special": true,
                            "rstrip": true,
                        ],
                        ["id": .integer(Int(second)), "content": "<|im_end|>", "special": true],
                    ]
                ], "added_tokens.json": ["<tool>": .integer(Int(third))],
            ],
        ]
        for files in files {
            let tokenizer = try tokenizer(
                files.merging(["config.json": ["vocab_size": .integer(pieces + 9)]]) { $1 })
            #expect(tokenizer.pieceCount == pieces && tokenizer.vocabularySize == pieces + 3)
            let a = try tokenizer.encode("a")
            #expect(
                try tokenizer.encode("<|im_start|> \na<|im_end|>", parsingSpecial: true)
                    == [first] + a + [second])
            // Special tokens are text to a plain encoding; others stand for themselves.
            #expect(try !tokenizer.encode("<|im_end|>").contains(second))
            #expect(try tokenizer.encode("a<tool>") == a + [third])
            #expect(try tokenizer.decode(a + [second, third] + a) == "a<tool> a")
            #expect(try tokenizer.piece(first) == "<|im_start|>" && tokenizer.kind(first) == .control)
            // Ids of the model without a name are nothing, and no error.
            #expect(try tokenizer.decode([Int32(pieces + 8)] + a) == "a")
            var decoder = StreamingDecoder(tokenizer: tokenizer)
            #expect(
                try (a + [Int32(pieces + 8), second, third]).map { try decoder.append($0) }.joined()
                    + decoder.finish() == "a<tool>")
            #expect(throws: TextError.self) { try tokenizer.decode([Int32(pieces + 9)]) }
        }
    }

    @Test func partsOfTokens() throws {
        let plain = try tokenizer([:])
        #expect(plain.specialTokenTexts == ["bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"])
        let pieces = Int32(plain.pieceCount)
        let named = try tokenizer([
            "tokenizer_config.json": [
                "bos_token": ["__type": "AddedToken", "content": "<|im_start|>"], "eos_token": "<|im_end|>",
                "unk_token": .null, "pad_token": "</s>",
                "added_tokens_decoder": .object([
                    .init("\(pieces)", token("<|im_start|>")), .init("\(pieces + 1)", token("<|im_end|>")),
                ]),
            ], "special_tokens_map.json": ["eos_token": "</s>", "sep_token": "<s>"],
        ])
        #expect(named.beginID == pieces && named.endID == pieces + 1 && named.unknownID == nil)
        #expect(
            named.specialTokenTexts == [
                "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "</s>",
                "sep_token": "<s>",
            ])
        let template = try ChatTemplate("{{ bos_token }}{{ unk_token is defined }}{{ pad_token }}")
        #expect(try template.render([], specialTokens: named.specialTokenTexts) == "<|im_start|>False</s>")
    }

    /// Byte-pair encoding by the pieces and merges of a written `tokenizer.json` against SentencePiece in Python.
    @Test(arguments: ["trained", "llama"])
    func tokenizerJSONEncodesAsSentencePieceDoes(name: String) throws {
        try withTemporaryFolder { folder in
            try TokenizerFiles.install(
                from: Fixture.path("text/\(name).model"), into: folder, contextLength: 64)
            let model = try #require(JSONValue(contentsOfFile: folder + "/tokenizer.json")["model"])
            let ids = Dictionary(
                uniqueKeysWithValues: try #require(model["vocab"]?.members).map {
                    (Array($0.key.utf8), $0.value.intValue ?? -1)
                })
            let ranks = Dictionary(
                uniqueKeysWithValues: try #require(model["merges"]?.arrayValue).enumerated().map {
                    (Array(($1.stringValue ?? "").utf8), $0)
                })
            func encode(_ text: String) -> [Int] {
                var parts = ("\u{2581}" + text.replacingOccurrences(of: " ", with: "\u{2581}"))
                    .unicodeScalars.flatMap { scalar -> [[UInt8]] in
                        let bytes = Array(String(scalar).utf8)
                        if ids[bytes] != nil { return [bytes] }
                        return bytes.map { Array(String(format: "<0x%02X>", $0).utf8) }
                    }
                while true {
                    let pairs = parts.indices.dropLast().compactMap { place in
                        ranks[parts[place] + [0x20] + parts[place + 1]].map { (rank: $0, place: place) }
                    }
                    guard let best = pairs.min(by: { ($0.rank, $0.place) < ($1.rank, $1.place) }) else {
                        break
                    }
                    parts[best.place] += parts.remove(at: best.place + 1)
                }
                return parts.map { ids[$0] ?? 0 }
            }
            let golden = try JSONValue(contentsOfFile: Fixture.path("text/tokenizers.json"))
            let strings = try #require(golden[name]?["strings"]?.arrayValue)
            var count = 0
            for item in strings {
                let text = try #require(item["text"]?.stringValue)
                // SentencePiece gives nothing for nothing.
                if text.isEmpty || text.utf8.count > 400 { continue }
                count += 1
                #expect(encode(text) == item["ids"]?.arrayValue?.compactMap(\.intValue), "\(text)")
            }
            #expect(count > 30)
        }
    }

    @Test func templateFiles() throws {
        let old: JSONValue = ["chat_template": "old"]
        #expect(try tokenizer(["tokenizer_config.json": old]).chatTemplate == "old")
        let new = try tokenizer(
            ["tokenizer_config.json": old], text: ["chat_template.jinja": "\u{feff}new\n"])
        #expect(new.chatTemplate == "new\n" && new.chatTemplatePath.hasSuffix("chat_template.jinja"))
        let list: JSONValue = [
            "chat_template": [["name": "tool_use", "template": "t"], ["name": "default", "template": "d"]]
        ]
        #expect(try tokenizer(["tokenizer_config.json": list]).chatTemplate == "d")
    }

    @Test(arguments: [
        ("tokenizer_config.json", #"{"add_bos_token": "yes"}"#, "add_bos_token"),
        ("tokenizer_config.json", #"{"bos_token": 5}"#, "bos_token"),
        ("tokenizer_config.json", #"{"chat_template": 5}"#, "chat_template"),
        (
            "tokenizer_config.json", #"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
            "added_tokens_decoder"
        ),
        (
            "tokenizer_config.json", #"{"added_tokens_decoder": {"-1": {"content": "a"}}}"#,
            "added_tokens_decoder"
        ),
        ("tokenizer_config.json", #"{"added_tokens_decoder": {"99999999999": {"content": "a"}}}"#, "added"),
        ("added_tokens.json", #"{"<a>": "b"}"#, "<a>"),
        ("tokenizer.json", #"{"added_tokens": [{"id": 1}]}"#, "added"),
        ("special_tokens_map.json", "7", "object"), ("added_tokens.json", "[", "malformed"),
    ])
    func faultsNameFileAndKey(file: String, text: String, part: String) throws {
        let error = #expect(throws: (any Error).self) { try tokenizer([:], text: [file: text]) }
        let message = "\(try #require(error))"
        #expect(message.contains(file) && message.contains(part), "\(message)")
    }
}
