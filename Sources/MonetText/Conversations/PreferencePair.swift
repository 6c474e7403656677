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
        zip(chosen.messages, rejected.messages).prefix { $0 == $1 }.count
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
        func conversation(_ key: String) throws -> Conversation {
            var own = try messages(key, text: "assistant")
            if prompt.isEmpty, let text = value(key)?.stringValue { own = Self.dialogue(text) ?? own }
            // Lists may repeat the prompt, or its last messages.
            let repeated = (0...prompt.count).last { own.starts(with: prompt.suffix($0)) } ?? 0
            var all = prompt + own.dropFirst(repeated)
            if repeated == 0, let first = own.first, ["system", "developer", "user"].contains(first.role),
                prompt.contains(where: { $0.role == "user" })
            {
                // A whole conversation: a text beside it repeats a part, as in trl.
                guard value("prompt")?.stringValue != nil else {
                    throw fail(
                        "\"\(key)\" begins with a message of the \(first.role) that \"prompt\" does not have at its "
                            + "end")
                }
                all = own
            }
            all = try Conversation.turns(all, afterSystemOf: json, fail)
            guard all.contains(where: { $0.role == "user" }) else {
                throw fail("\"\(key)\" answers nothing: no \"prompt\", and no message of a user")
            }
            guard all.last?.role == "assistant" else {
                throw fail("\"\(key)\" does not end with what the assistant says")
            }
            return Conversation(all, tools: tools)
        }
        chosen = try conversation("chosen")
        rejected = try conversation("rejected")
        guard chosen != rejected else { throw fail("\"chosen\" and \"rejected\" are the same") }
    }

    /// The turns of a text in which `Human:` and `Assistant:` begin paragraphs; nil if it begins otherwise.
    private static func dialogue(_ text: String) -> [ChatMessage]? {
        let names = ["Human:": "user", "Assistant:": "assistant"]
        var turns: [ChatMessage] = []
        for paragraph in ("\n\n" + text.drop(while: \.isWhitespace)).components(separatedBy: "\n\n")
            .dropFirst()
        {
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
