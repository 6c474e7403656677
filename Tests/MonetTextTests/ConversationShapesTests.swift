import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Conversations with more than texts of users and assistants, and templates that only some of them suit.
@Suite struct ConversationShapesTests {
    private func encoder(_ template: String) throws -> ConversationEncoder {
        try ConversationEncoder(Tokenizer(path: Fixture.path("text/trained.model")), template: template)
    }

    private func conversation(_ text: String) throws -> Conversation {
        try Conversation(json: JSONValue(parsing: text, source: "s"), path: "f", line: 3)
    }

    private func turns(_ texts: String..., first: String = "user") -> Conversation {
        let roles = first == "user" ? ["user", "assistant"] : ["assistant", "user"]
        return Conversation(
            texts.enumerated().map { ChatMessage(role: roles[$0.offset % 2], content: $0.element) })
    }

    /// What the assistant says by an encoding, and all of it.
    private func said(_ encoder: ConversationEncoder, _ conversation: Conversation) throws -> (
        assistant: [String], all: String
    ) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        let encoded = try encoder(conversation)
        let parts = encoded.ids.indices.split { !encoded.isAssistant[$0] }
        return (
            try parts.map { try tokenizer.decode($0.map { encoded.ids[$0] }) },
            try tokenizer.decode(encoded.ids)
        )
    }

    /// What a template may read of messages reaches it; columns that are null do not.
    @Test func membersReachTheTemplate() throws {
        let called = try conversation(
            #"""
            {"tools": "[{\"name\": \"add\"}]", "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]},
                {"role": "user", "content": "2+2", "tool_calls": [], "name": "Ann"},
                {"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "add"}}]},
                {"role": "tool", "content": "4"},
                {"role": "assistant", "content": "four", "reasoning_content": "sure"}]}
            """#)
        #expect(called.messages.map(\.content) == ["be brief", "2+2", "", "4", "four"])
        #expect(
            called.messages.map { $0.fields.map(\.key) } == [
                [], ["name"], ["tool_calls"], [], ["reasoning_content"],
            ])
        try withTemporaryFolder { folder in
            let template = """
                {% for t in tools %}({{ t.name }}){% endfor %}{% for m in messages %}\
                {% if m.role == 'assistant' %}{% generation %}{% for c in m.tool_calls %}call {{ c.function.name }}\
                {% endfor %}{{ m.reasoning_content }}{{ m.content }}{% endgeneration %}{% else %}<{{ m.name }}{{ m.content }}>\
                {% endif %}{% endfor %}
                """
            let found = try said(encoder(template), called)
            #expect(found.all == "(add)<be brief><Ann2+2>call add<4>surefour", "\(found.all)")
            #expect(found.assistant == ["call add", "surefour"], "\(found.assistant)")
        }
        for (text, words) in [
            (#"{"messages": [{"role": "assistant", "content": null}]}"#, "messages[0].content"),
            (
                #"{"messages": [{"role": "assistant", "content": [{"type": "image"}]}]}"#,
                "messages[0].content"
            ),
            (#"{"tools": 3, "messages": [{"role": "assistant", "content": "x"}]}"#, "\"tools\" is"),
        ] {
            do {
                _ = try conversation(text)
                Issue.record("\(text) was read")
            } catch { #expect("\(error)".contains(words), "\(error)") }
        }
    }

    /// Templates that end a conversation with a mark, as that of Phi-3 does.
    @Test func marksAtTheEndOfAll() throws {
        let encoder = try encoder(
            "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
                + "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}")
        let found = try said(encoder, turns("one", "two", "three", "four"))
        #expect(found.assistant == ["two<|end|>\n", "four<|end|>\n<|endoftext|>"], "\(found.assistant)")
    }

    /// Where a turn's end cannot be told from what follows, nothing is guessed.
    @Test(arguments: [
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if not add_generation_prompt %}<all>{% endif %}",
            "ok \n"
        ),
        (
            "{% for m in messages %}### {{ m.role }}\n{{ m.content }}\n{% endfor %}{% if not add_generation_prompt %}### End{% endif %}",
            "two"
        ),
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }} a b<end>{% endfor %}{% if not add_generation_prompt %}<all>{% endif %}",
            ""
        ),
    ])
    func endsAreNotGuessed(template: String, text: String) throws {
        let encoder = try encoder(template)
        #expect(throws: TextError.self) { try encoder(turns("one", text, "three", "four")) }
    }

    /// Conversations that the assistant begins, in templates that look at the first message or want one.
    @Test(arguments: [
        "{% if messages[0]['role'] == 'system' %}s{% endif %}{% for m in messages %}<{{ m.role }}>\n{{ m.content | trim }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}",
        "{{ bos_token }}{% for m in messages %}<{{ m.role }}>\n{{ m.content }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}",
    ])
    func theAssistantMayBegin(template: String) throws {
        try withTemporaryFolder { folder in
            let found = try said(encoder(template), turns("two", "three", "four", first: "assistant"))
            #expect(found.assistant.count == 2, "\(found.assistant)")
            #expect(found.assistant.first == "two</>\n", "\(found.assistant)")
            #expect(found.assistant.last?.hasPrefix("four</>") ?? false, "\(found.assistant)")
        }
    }

    /// Where an answer ends, by templates of several families.
    @Test(
        arguments: [
            (
                "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
                "<|im_end|>"
            ),
            ("{% for m in messages %}{{ m.content }}<|end|>\n{% endfor %}<|endoftext|>", "<|end|>"),
            ("{% for m in messages %}[INST] {{ m.content }} {{ eos_token }}{% endfor %}", "</s>"),
            ("{% for m in messages %}### {{ m.role }}: {{ m.content }}\n{% endfor %}", nil),
            ("{% for m in messages %}{{ m.content }} Over.\n{% endfor %}", nil),
            ("{{ raise_exception('no') }}", nil), ("nothing", nil),
        ] as [(String, String?)])
    func answersEnd(template: String, mark: String?) throws {
        #expect(try ChatTemplate(template).endOfTurn(specialTokens: ["eos_token": "</s>"]) == mark)
    }

    /// Files compressed by gzip, which gzip itself writes.
    @Test func compressedFilesAreRead() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/chat.jsonl"
            let line = #"{"instruction": "a", "output": "é"}"#
            try AtomicFile.write("\(line)\n\(line)\n", to: path)
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
            process.arguments = ["gzip", path]
            try process.run()
            process.waitUntilExit()
            let read = try Conversation.read(path + ".gz")
            #expect(read.count == 2 && read[1].messages[1].content == "é")
            // Several files one after another, and more text than a file of its size usually holds.
            let long = #"{"instruction": "\#(String(repeating: "a", count: 3_000_000))", "output": "b"}"#
            try AtomicFile.write(long, to: folder + "/long")
            let script =
                "gzip -c '\(folder)/long' > '\(folder)/all.gz'; cat '\(path).gz' >> '\(folder)/all.gz'"
            let joining = Process()
            joining.executableURL = URL(fileURLWithPath: "/bin/sh")
            joining.arguments = ["-c", "printf '\\n' >> '\(folder)/long'; " + script]
            try joining.run()
            joining.waitUntilExit()
            let all = try Conversation.read(folder + "/all.gz")
            #expect(all.count == 3 && all[0].messages[0].content.utf8.count == 3_000_000)
            let whole = try Data(contentsOf: URL(fileURLWithPath: path + ".gz"))
            try whole.dropLast(9).write(to: URL(fileURLWithPath: path + ".gz"))
            #expect(
                throws: FileError.unreadable(
                    path: path + ".gz", reason: "not a complete file of gzip with less than 4 GiB")
            ) {
                try Conversation.read(path + ".gz")
            }
        }
    }

    /// What cannot be learned stops a run, or is counted.
    @Test func unusableLinesAreCounted() throws {
        try withTemporaryFolder { folder in
            let encoder = try encoder(
                "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                    + "{{ m.content }}{{ eos_token }}{% endfor %}")
            let good = #"{"instruction": "a", "output": "b"}"#
            let lines = [
                good, #"{"messages": []}"#, #"{"system": "s", "instruction": "a", "output": "b"}"#, good,
            ]
            let path = folder + "/chat.jsonl"
            func stream(skips: Bool) throws -> ConversationStream {
                try ConversationStream(
                    [.init(path: path)], encoder: encoder, length: 16, batchSize: 1, validationShare: 0,
                    seed: 1, skipsUnusable: skips)
            }
            try AtomicFile.write(lines.joined(separator: "\n"), to: path)
            #expect(throws: TextError.self) { try stream(skips: false) }
            let some = try stream(skips: true)
            #expect(some.conversationCount == 2 && some.unusable.count == 2)
            #expect("\(try #require(some.unusable.first))".contains("line 2: nothing is said"))
            try AtomicFile.write(lines[1], to: path)
            do {
                _ = try stream(skips: true)
                Issue.record("nothing was learned")
            } catch { #expect("\(error)".contains("line 1: nothing is said"), "\(error)") }
            // A file that is not JSON is none.
            try AtomicFile.write("\(good)\n{\n", to: path)
            #expect(throws: TextError.self) { try stream(skips: true) }
        }
    }
}
