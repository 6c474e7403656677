import Foundation
import MonetFoundation

/// Two continuations of one beginning, of which people prefer the first.
public struct PreferencePair: Sendable, Equatable {
    /// The conversation with the preferred answer.
    public var chosen: Conversation
    /// The one with the other answer.
    public var rejected: Conversation

    /// The number of messages that both begin with.
    public var commonCount: Int {
        zip(chosen.messages, rejected.messages).prefix { $0.repeats($1) }.count
    }

    /// Reads one in the shapes that `trl` reads: `chosen` and `rejected` as texts or messages, after a `prompt` that is a
    /// text or messages, or with the prompt in both, also as texts of `Human:` and `Assistant:` in turns, as hh-rlhf has
    /// them. A `system` text and `tools` may stand beside them.
    ///
    /// - Throws: `TextError.malformedSource` naming file, line and key.
    public init(json: JSONValue, path: String, line: Int?) throws {
        func fail(_ reason: String) -> TextError {
            .malformedSource(path: path, line: line, reason: reason)
        }
        guard json.members != nil else { throw fail("\(json.kind), expected a preference pair") }
        // Tables have columns for all shapes, which are null where a line has another one.
        func value(_ key: String) -> JSONValue? { json[key].flatMap { $0.isNull ? nil : $0 } }
        func messages(_ key: String, text role: String) throws -> [ChatMessage] {
            guard let value = value(key) else { throw fail("no \"\(key)\"") }
            if let text = value.stringValue { return [ChatMessage(role: role, content: text)] }
            return try Conversation.turns(value.members == nil ? value : .array([value]), key, fail)
        }
        let prompt = value("prompt") == nil ? [] : try messages("prompt", text: "user")
        let tools = try Conversation.tools(of: json, fail)
        func conversation(_ key: String) throws -> (conversation: Conversation, isWhole: Bool) {
            var own = try messages(key, text: "assistant")
            if prompt.isEmpty, let text = value(key)?.stringValue { own = Self.dialogue(text) ?? own }
            // Lists may repeat the prompt, or its last messages.
            let repeated =
                (0...prompt.count).last { own.starts(with: prompt.suffix($0)) { $0.repeats($1) } } ?? 0
            let isWhole =
                repeated == 0 && prompt.last?.role == "user"
                && own.first.map { ["system", "developer", "user"].contains($0.role) } ?? false
            // A text beside whole conversations says again what one of their messages says, as in trl.
            if isWhole, value("prompt")?.stringValue == nil || !own.contains(where: { $0.repeats(prompt[0]) })
            {
                throw fail(
                    "\"\(key)\" begins with a message of the \(own[0].role) and does not repeat \"prompt\"")
            }
            let all = try Conversation.turns(
                isWhole ? own : prompt + own.dropFirst(repeated), afterSystemOf: json, fail)
            guard all.contains(where: { $0.role == "user" }) else {
                throw fail("\"\(key)\" answers nothing: no \"prompt\", and no message of a user")
            }
            guard all.last?.role == "assistant" else {
                throw fail("\"\(key)\" does not end with what the assistant says")
            }
            return (Conversation(all, tools: tools), isWhole)
        }
        let (chosen, rejected) = (try conversation("chosen"), try conversation("rejected"))
        guard chosen.isWhole == rejected.isWhole else {
            throw fail("one of \"chosen\" and \"rejected\" is a whole conversation, expected both or none")
        }
        (self.chosen, self.rejected) = (chosen.conversation, rejected.conversation)
        guard commonCount < max(self.chosen.messages.count, self.rejected.messages.count) else {
            throw fail("\"chosen\" and \"rejected\" are the same")
        }
    }

    /// The turns of a text in which `Human:` and `Assistant:` begin paragraphs; nil if it begins otherwise.
    private static func dialogue(_ text: String) -> [ChatMessage]? {
        let names = ["Human:": "user", "Assistant:": "assistant"]
        var turns: [ChatMessage] = []
        for paragraph in ("\n\n" + text.drop(while: \.isWhitespace)).components(separatedBy: "\n\n")
            .dropFirst()
        {
            // More lines may be empty than one.
            let paragraph = String(paragraph.drop(while: \.isNewline))
            if let (name, role) = names.first(where: { paragraph.hasPrefix($0.key) }) {
                turns.append(ChatMessage(role: role, content: String(paragraph.dropFirst(name.count))))
            } else if turns.isEmpty {
                return nil
            } else {
                turns[turns.count - 1].content += "\n\n" + paragraph
            }
        }
        for place in turns.indices {
            turns[place].content = turns[place].content.trimmingCharacters(in: .whitespacesAndNewlines)
        }
        return turns
    }
}
