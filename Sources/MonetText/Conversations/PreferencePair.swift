import MonetFoundation

/// Two continuations of one beginning, of which people prefer the first.
public struct PreferencePair: Sendable, Equatable {
    /// The conversation with the preferred answer.
    public var chosen: Conversation
    /// The one with the other answer.
    public var rejected: Conversation

    /// The number of messages that both begin with.
    public var commonCount: Int {
        zip(chosen.messages, rejected.messages).prefix { $0.role == $1.role && $0.content == $1.content }
            .count
    }

    /// Reads one in the shapes that `trl` reads: `chosen` and `rejected` as texts or lists of messages, after a `prompt`
    /// that is a text or a list, or with the prompt in both. A `system` text may stand beside them.
    ///
    /// - Throws: `TextError.malformedSource` naming file, line and key.
    public init(json: JSONValue, path: String, line: Int?) throws {
        func fail(_ reason: String) -> TextError {
            .malformedSource(path: path, line: line, reason: reason)
        }
        guard json.members != nil else { throw fail("\(json.kind), expected a preference pair") }
        func messages(_ key: String, text role: String) throws -> [ChatMessage] {
            guard let value = json[key] else { throw fail("no \"\(key)\"") }
            if let text = value.stringValue { return [ChatMessage(role: role, content: text)] }
            return try Conversation.turns(value, key, fail)
        }
        let prompt = json["prompt"] == nil ? [] : try messages("prompt", text: "user")
        func conversation(_ key: String) throws -> Conversation {
            let own = try messages(key, text: "assistant")
            // Lists may repeat the prompt, or its last messages.
            let repeated = (0...prompt.count).last { own.starts(with: prompt.suffix($0)) } ?? 0
            let all = try Conversation.turns(
                prompt + own.dropFirst(repeated), afterSystemOf: json, fail)
            guard all.contains(where: { $0.role == "user" }) else {
                throw fail("\"\(key)\" answers nothing: no \"prompt\", and no message of a user")
            }
            guard all.last?.role == "assistant" else {
                throw fail("\"\(key)\" does not end with what the assistant says")
            }
            return Conversation(all)
        }
        chosen = try conversation("chosen")
        rejected = try conversation("rejected")
        guard chosen != rejected else { throw fail("\"chosen\" and \"rejected\" are the same") }
    }
}
