import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// What the assistant says, token by token, as transformers' `return_assistant_tokens_mask` marks it.
@Suite struct ConversationTests {
    private func encoder(_ template: String, in folder: String) throws -> ConversationEncoder {
        let model = folder + "/tokenizer.model"
        if !FileManager.default.fileExists(atPath: model) {
            try FileManager.default.copyItem(atPath: Fixture.path("text/trained.model"), toPath: model)
        }
        try AtomicFile.write(template, to: folder + "/chat_template.jinja")
        return try ConversationEncoder(Tokenizer(folder: folder))
    }

    /// Writes 200 conversations into big.jsonl and 40 into small.jsonl.
    private func mixture(in folder: String) throws -> ConversationEncoder {
        for (name, count) in [("big", 200), ("small", 40)] {
            let lines = (0..<count).map { #"{"instruction": "\#(name) \#($0)", "output": "x"}"# }
            try AtomicFile.write(lines.joined(separator: "\n"), to: "\(folder)/\(name).jsonl")
        }
        return try encoder("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", in: folder)
    }

    @Test func masksAreThoseOfTransformers() throws {
        let cases = try #require(
            JSONValue(contentsOfFile: Fixture.path("text/conversations-golden.json")).arrayValue)
        #expect(cases.count == 20)
        try withTemporaryFolder { folder in
            for entry in cases {
                let name = try #require(entry["name"]?.stringValue)
                let ids = try #require(entry["ids"]?.arrayValue).compactMap { $0.intValue.map(Int32.init) }
                let mask = try #require(entry["mask"]?.arrayValue).map { $0.intValue == 1 }
                let conversation = try Conversation(json: entry, path: "golden", line: 1)
                let marked = try encoder(#require(entry["template"]?.stringValue), in: folder)(conversation)
                #expect(marked.ids == ids, "\(name)")
                #expect(marked.isAssistant == mask, "\(name)")
                let plain = try encoder(#require(entry["plain"]?.stringValue), in: folder)(conversation)
                try #require(plain.ids == ids, "\(name)")
                // Without marks, white space that a template writes after a turn belongs to it.
                let tokenizer = try Tokenizer(folder: folder)
                for (place, isAssistant) in plain.isAssistant.enumerated() where isAssistant != mask[place] {
                    let text = try tokenizer.displayText(ids[place])
                    #expect(isAssistant && ["zephyr", "alpaca"].contains(name), "\(name): \(text)")
                    #expect(text == "<0x0A>", "\(name): \(text)")
                }
            }
        }
    }

    @Test func shapesOfConversations() throws {
        func read(_ text: String) throws -> [ChatMessage] {
            try Conversation(json: JSONValue(parsing: text, source: "s"), path: "f", line: 3).messages
        }
        let plain = [ChatMessage(role: "user", content: "a"), ChatMessage(role: "assistant", content: "b")]
        #expect(
            try read(
                #"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#)
                == plain)
        #expect(
            try read(#"{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#)
                == plain)
        #expect(try read(#"{"instruction": "a", "input": "", "output": "b"}"#) == plain)
        #expect(try read(#"{"instruction": "a", "output": "b"}"#) == plain)
        #expect(try read(#"{"instruction": "a", "input": "x", "output": "b"}"#)[0].content == "a\n\nx")
        // A system's text of its own, and columns of other shapes that are null.
        let instructed = [ChatMessage(role: "system", content: "s")] + plain
        #expect(try read(#"{"system": "s", "instruction": "a", "output": "b"}"#) == instructed)
        #expect(
            try read(
                #"{"system": "s", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}"#
            ) == instructed)
        #expect(
            try read(
                #"{"messages": null, "system": null, "input": null, "instruction": "a", "output": "b"}"#)
                == plain)
    }

    @Test(
        arguments: [
            (#"{"messages": 3}"#, "\"messages\" is"),
            (#"{"messages": [{"role": "user"}]}"#, "messages[0].content"),
            (#"{"messages": [{"role": "wizard", "content": "x"}]}"#, "\"wizard\""),
            (#"{"conversations": [{"from": "human", "value": 3}]}"#, "conversations[0].value"),
            (#"{"messages": [{"role": "user", "content": "x"}]}"#, "nothing is said by the assistant"),
            (#"{"instruction": "x"}"#, "\"output\""), (#"{"text": "x"}"#, "no \"messages\""),
            ("[]", "expected a"), (#"{"system": 3, "instruction": "a", "output": "b"}"#, "\"system\" is"),
            (
                #"{"system": "s", "messages": [{"role": "system", "content": "t"}, {"role": "assistant", "content": "x"}]}"#,
                "\"system\" beside another"
            ),
            (#"{"messages": "#, "malformed JSON"),
        ])
    func badConversationsNameFileLineAndKey(line: String, words: String) throws {
        try withTemporaryFolder { folder in
            let path = folder + "/chat.jsonl"
            let good = #"{"instruction": "a", "output": "b"}"#
            try AtomicFile.write("\(good)\n\n\(line)\n", to: path)
            do {
                _ = try Conversation.read(path)
                Issue.record("\(line) was read")
            } catch let error as TextError {
                let text = "\(error)"
                #expect(text.contains(path) && text.contains("3") && text.contains(words), "\(text)")
            }
        }
    }

    /// Lines may end as on Windows.
    @Test func linesEndWithEither() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/chat.jsonl"
            let line = #"{"instruction": "a", "output": "b"}"#
            try AtomicFile.write("\(line)\r\n\r\n\(line)\r\n", to: path)
            #expect(try Conversation.read(path).count == 2)
            try AtomicFile.write("\(line)\r\n{\r\n", to: path)
            do {
                _ = try Conversation.read(path)
                Issue.record("the second line was read")
            } catch let error as TextError { #expect("\(error)".contains("\(path), line 2")) }
        }
    }

    /// Files as Alpaca and ShareGPT are distributed: one list, on one line or many.
    @Test func listsAreRead() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/alpaca.json"
            let entry = #"{"instruction": "a", "output": "b"}"#
            for list in ["[\(entry),\(entry)]", "\n[\n  \(entry),\n  \(entry)\n]\n"] {
                try AtomicFile.write(list, to: path)
                #expect(try Conversation.read(path).count == 2)
            }
            for (list, words) in [
                ("[\(entry), {}]", "\(path)[1]: no \"messages\""), ("[\(entry), 3]", "\(path)[1]: "),
                ("[]", "no conversations"), ("[\(entry)", path),
            ] {
                try AtomicFile.write(list, to: path)
                do {
                    _ = try Conversation.read(path)
                    Issue.record("\(list) was read")
                } catch { #expect("\(error)".contains(words), "\(error)") }
            }
        }
    }

    /// A template that writes the date writes that of the run.
    @Test func datesAreThoseOfTheRun() throws {
        try withTemporaryFolder { folder in
            _ = try encoder(
                "{{ strftime_now('%Y %j') }}{% for m in messages %}{{ m.content }}{% endfor %}", in: folder)
            let tokenizer = try Tokenizer(folder: folder)
            let conversation = Conversation([ChatMessage(role: "assistant", content: "x")])
            let years = try [0.0, 400 * 86400].map { seconds in
                let encoder = try ConversationEncoder(
                    tokenizer, date: Date(timeIntervalSince1970: seconds + 43200))
                return try String(tokenizer.decode(encoder(conversation).ids).prefix(8))
            }
            #expect(years == ["1970 001", "1971 036"])
        }
    }

    /// What is marked from a message on, whether templates mark every answer, the last one, or none.
    @Test(
        arguments: [
            "{% for m in messages %}<{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}>{% endfor %}",
            "{% for m in messages %}<{{ m.content }}>{% endfor %}",
            "{% for m in messages %}<{% if m.role == 'assistant' and loop.last %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}>{% endfor %}",
        ])
    func marksFromAMessageOn(template: String) throws {
        try withTemporaryFolder { folder in
            let encoder = try encoder(template, in: folder)
            let conversation = Conversation([
                ChatMessage(role: "user", content: "one"), ChatMessage(role: "assistant", content: "two"),
                ChatMessage(role: "user", content: "three"), ChatMessage(role: "assistant", content: "four"),
            ])
            let tokenizer = try Tokenizer(folder: folder)
            let encoded = try encoder(conversation, markingFrom: 3)
            let said = zip(encoded.ids, encoded.isAssistant).filter(\.1).map(\.0)
            #expect(try tokenizer.decode(said).contains("four"))
            #expect(try !tokenizer.decode(said).contains("two"))
        }
    }

    /// Texts in which tokens do not spell what is written: U+2581, which SentencePiece writes for a space, and added
    /// tokens that take the white space around them.
    @Test(arguments: [
        "\u{1F600}", "\u{FFFF} \u{1F600}x", "a \u{2581} b", "\u{2581}", "a\u{2581}\u{2581}b \u{2581}c",
    ])
    func oddSpacesFindTheirPlace(text: String) throws {
        try withTemporaryFolder { folder in
            let pieces = try Tokenizer(path: Fixture.path("text/trained.model")).pieceCount
            try AtomicFile.write(
                #"{"added_tokens_decoder": {"\#(pieces)": {"content": "<|turn|>", "lstrip": true, "rstrip": true, "special": true}}}"#,
                to: folder + "/tokenizer_config.json")
            let encoder = try encoder(
                "{% for m in messages %}{{ m.content }} \n <|turn|> \n {% endfor %}", in: folder)
            let encoded = try encoder(
                Conversation([
                    ChatMessage(role: "user", content: text), ChatMessage(role: "assistant", content: text),
                    ChatMessage(role: "user", content: text),
                ]))
            let turn = Int32(pieces)
            #expect(encoded.ids.count { $0 == turn } == 3)
            let parts = encoded.ids.indices.split { encoded.ids[$0] == turn }
            #expect(parts.count == 3)
            // The first token may be the space that SentencePiece puts before a text, which is nowhere in it.
            #expect(parts[1].dropFirst().allSatisfy { encoded.isAssistant[$0] })
            #expect(!parts[0].contains { encoded.isAssistant[$0] })
            #expect(!parts[2].contains { encoded.isAssistant[$0] })
        }
    }

    /// Held-out conversations come from all files, and a file of little weight gives few of them.
    @Test func allFilesAreHeldOut() throws {
        try withTemporaryFolder { folder in
            let encoder = try mixture(in: folder)
            let tokenizer = try Tokenizer(folder: folder)
            func held(_ weight: Double, first: Int) throws -> [String] {
                let stream = try ConversationStream(
                    [
                        .init(path: folder + "/big.jsonl"),
                        .init(path: folder + "/small.jsonl", weight: weight),
                    ],
                    encoder: encoder, length: 16, batchSize: 1, validationShare: 0.25, seed: 3)
                return try stream.validationBatches(limit: first).flatMap(\.inputs).map(tokenizer.decode)
            }
            #expect(try held(1, first: 1000).count { $0.contains("small") } == 10)
            #expect(try held(0.1, first: 1000).count { $0.contains("small") } == 1)
            let some = try held(1, first: 30)
            #expect(some.contains { $0.contains("small") } && some.contains { $0.contains("big") })
        }
    }

    /// Another text, another part held out, or another length is another stream; the same files are the same.
    @Test func streamsHaveFingerprints() throws {
        try withTemporaryFolder { folder in
            let encoder = try encoder(
                "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", in: folder)
            let path = folder + "/chat.jsonl"
            func write(_ count: Int) throws {
                let lines = (0..<count).map { #"{"instruction": "\#($0)", "output": "x"}"# }
                try AtomicFile.write(lines.joined(separator: "\n"), to: path)
            }
            func fingerprint(share: Double = 0.25, seed: UInt64 = 3, weight: Double = 1, length: Int = 16)
                throws
                -> String
            {
                try ConversationStream(
                    [.init(path: path, weight: weight)], encoder: encoder, length: length, batchSize: 1,
                    validationShare: share, seed: seed
                ).fingerprint
            }
            try write(40)
            let first = try fingerprint()
            #expect(try fingerprint() == first)
            var all = try [
                first, fingerprint(share: 0.5), fingerprint(seed: 4), fingerprint(weight: 0.5),
                fingerprint(length: 8),
            ]
            try write(41)
            all.append(try fingerprint())
            #expect(Set(all).count == all.count)
        }
    }

    /// A weight that leaves nothing of a file is an error, not a file that goes missing.
    @Test func weightsThatUseNothingAreRefused() throws {
        try withTemporaryFolder { folder in
            let encoder = try mixture(in: folder)
            func files(_ weight: Double) throws -> [UsedFile] {
                try ConversationStream(
                    [
                        .init(path: folder + "/big.jsonl"),
                        .init(path: folder + "/small.jsonl", weight: weight),
                    ],
                    encoder: encoder, length: 16, batchSize: 1, validationShare: 0.1, seed: 3
                ).files
            }
            do {
                _ = try files(0.01)
                Issue.record("it was read")
            } catch let error as TextError {
                #expect(
                    "\(error)".contains(
                        "small.jsonl: a weight of 0.01 with a validation share of 0.1 leaves none of its 40"),
                    "\(error)")
            }
            // Of the 20 that half of it holds, two are held out.
            let half = try files(0.5)
            #expect(half.map(\.used) == [180, 19] && half.map(\.heldOut) == [20, 2])
        }
    }

    @Test func templatesThatRewriteWhatCameBeforeAreRefused() throws {
        try withTemporaryFolder { folder in
            // Counts the messages first: the text before a turn changes with every turn.
            let encoder = try encoder(
                "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}", in: folder)
            let conversation = Conversation([
                ChatMessage(role: "user", content: "a"), ChatMessage(role: "assistant", content: "b"),
            ])
            #expect(throws: TextError.self) { try encoder(conversation) }
        }
    }

    @Test func rowsHoldWholeConversationsOfEveryEpoch() throws {
        try withTemporaryFolder { folder in
            let encoder = try encoder(
                "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", in: folder)
            let path = folder + "/chat.jsonl"
            let lines = (0..<40).map {
                #"{"instruction": "question \#($0)", "output": "\#(String(repeating: "word ", count: $0 % 7 + 1))"}"#
            }
            try AtomicFile.write(lines.joined(separator: "\n"), to: path)
            func stream(_ weight: Double, length: Int = 48, held: Double = 0.1) throws -> ConversationStream {
                try ConversationStream(
                    [.init(path: path, weight: weight)], encoder: encoder, length: length, batchSize: 1,
                    validationShare: held, seed: 5)
            }
            let whole = try stream(1)
            #expect(whole.conversationCount == 36 && whole.skipped == 0)
            func sequences(_ epoch: Int) -> [[Int32]] {
                (0..<whole.rowCount).flatMap { whole.batch(from: epoch * whole.rowCount + $0).inputs }
            }
            let (first, second) = (sequences(0), sequences(1))
            #expect(first != second && first.count == 36)
            let order = { (a: [Int32], b: [Int32]) in a.lexicographicallyPrecedes(b) }
            #expect(first.sorted(by: order) == second.sorted(by: order))
            for row in 0..<whole.rowCount {
                let batch = whole.batch(from: row)
                #expect(batch.inputs.reduce(0) { $0 + $1.count } <= 48)
                #expect(batch.targets.count == batch.inputs.reduce(0) { $0 + $1.count })
                #expect(batch.targets.contains { $0 >= 0 } && batch.targets.contains(-1))
            }
            let held = Set(whole.validationBatches(limit: 100).flatMap(\.inputs))
            #expect(held.count == 4 && held.isDisjoint(with: first))
            #expect(try stream(0.5).conversationCount == 19 && stream(2).conversationCount == 72)
            let short = try stream(1, length: 6)
            #expect(short.truncated > 0 && short.conversationCount + short.skipped <= 40)
            #expect(throws: TextError.self) { try stream(1, length: 1) }
        }
    }
}
