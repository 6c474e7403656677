import MonetFoundation

/// A conversation to learn from.
public struct Conversation: Sendable, Equatable {
    /// The turns, in order.
    public var messages: [ChatMessage]
    /// The tools that the assistant may call, for templates that describe them.
    public var tools: JSONValue

    /// A conversation of some turns.
    public init(_ messages: [ChatMessage], tools: JSONValue = .null) {
        self.messages = messages
        self.tools = tools
    }

    /// Reads one in any of the usual shapes: `messages` of `role` and `content`; ShareGPT's `conversations` of `from`
    /// and `value`; Alpaca's `instruction`, `input` and `output`. What else a message has, such as `tool_calls`, and the
    /// list of `tools` are kept for the template.
    ///
    /// - Throws: `TextError.malformedSource` naming file, line and key.
    public init(json: JSONValue, path: String, line: Int?) throws {
        func fail(_ reason: String) -> TextError {
            .malformedSource(path: path, line: line, reason: reason)
        }
        func text(_ value: JSONValue?, _ key: String) throws -> String {
            guard let text = value?.stringValue else {
                throw fail("\"\(key)\" is \(value?.kind ?? "absent"), expected a text")
            }
            return text
        }
        guard json.members != nil else { throw fail("\(json.kind), expected a conversation") }
        tools = try Self.tools(of: json, fail)
        // Tables have columns for all shapes, which are null where a line has another one.
        func value(_ key: String) -> JSONValue? { json[key].flatMap { $0.isNull ? nil : $0 } }
        if let key = ["messages", "conversations"].first(where: { value($0) != nil }), let turns = value(key)
        {
            messages = try Self.turns(turns, key, fail)
        } else if let given = value("instruction") {
            let input = try value("input").map { try text($0, "input") } ?? ""
            let instruction = try text(given, "instruction")
            messages = [
                ChatMessage(
                    role: "user", content: input.isEmpty ? instruction : instruction + "\n\n" + input),
                ChatMessage(role: "assistant", content: try text(json["output"], "output")),
            ]
        } else {
            throw fail("no \"messages\", \"conversations\" or \"instruction\"")
        }
        messages = try Self.turns(messages, afterSystemOf: json, fail)
        guard messages.contains(where: { $0.role == "assistant" }) else {
            throw fail("nothing is said by the assistant")
        }
    }

    /// The tools beside turns: a list, or its text, which columns of tables hold.
    static func tools(of json: JSONValue, _ fail: (String) -> TextError) throws -> JSONValue {
        guard let given = json["tools"], !given.isNull, given.stringValue != "" else { return .null }
        let list = given.stringValue.flatMap { try? JSONValue(parsing: $0, source: "tools") } ?? given
        if list.isNull { return .null }
        guard list.arrayValue != nil else { throw fail("\"tools\" is \(given.kind), expected a list") }
        return list
    }

    /// Turns, after the text of the system that may stand beside them.
    static func turns(_ turns: [ChatMessage], afterSystemOf json: JSONValue, _ fail: (String) -> TextError)
        throws -> [ChatMessage]
    {
        guard let value = json["system"], !value.isNull, value.stringValue != "" else { return turns }
        guard let text = value.stringValue else {
            throw fail("\"system\" is \(value.kind), expected a text")
        }
        if turns.first?.role == "system", turns.first?.content == text { return turns }
        guard !turns.contains(where: { $0.role == "system" }) else {
            throw fail("\"system\" beside another message of the system, expected one of them")
        }
        return [ChatMessage(role: "system", content: text)] + turns
    }

    /// A list of turns under a key, each of `role` and `content` or `from` and `value`.
    static func turns(_ turns: JSONValue, _ key: String, _ fail: (String) -> TextError) throws
        -> [ChatMessage]
    {
        guard let turns = turns.arrayValue else {
            throw fail("\"\(key)\" is \(turns.kind), expected a list")
        }
        return try turns.enumerated().map { place, turn in
            func text(_ part: String) throws -> String {
                guard let text = turn[part]?.stringValue else {
                    throw fail(
                        "\"\(key)[\(place)].\(part)\" is \(turn[part]?.kind ?? "absent"), expected a text")
                }
                return text
            }
            let isShareGPT = turn["role"] == nil
            let part = isShareGPT ? "from" : "role"
            let given = try text(part)
            guard let role = roles[given] else {
                throw fail(
                    "\"\(key)[\(place)].\(part)\" is \"\(given)\", expected one of "
                        + roles.keys.sorted().joined(separator: ", "))
            }
            // Tables have columns for the members of all messages, which are null or empty where a message has none.
            let fields = (turn.members ?? []).filter {
                !$0.value.isNull && $0.value != .array([])
                    && !["role", "content", "from", "value"].contains($0.key)
            }
            let name = isShareGPT && turn["content"] == nil ? "value" : "content"
            let calls = fields.contains { $0.key == "tool_calls" }
            let isEmpty = calls && (turn[name]?.isNull ?? true)
            return ChatMessage(
                role: role, content: try isEmpty ? "" : said(turn[name]) ?? text(name), fields: fields)
        }
    }

    /// A text, or the texts of a list of parts.
    private static func said(_ content: JSONValue?) -> String? {
        guard let parts = content?.arrayValue else { return content?.stringValue }
        let texts = parts.compactMap { part in
            part["type"]?.stringValue == "text" ? part["text"]?.stringValue : nil
        }
        return texts.count == parts.count ? texts.joined() : nil
    }

    /// Names of roles, with what templates call them.
    private static let roles = [
        "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
        "model": "assistant", "chatgpt": "assistant", "developer": "developer", "tool": "tool",
        "observation": "tool",
    ]

    /// The conversations of a file.
    ///
    /// - Throws: `FileError`, `TextError.malformedSource`.
    public static func read(_ path: String) throws -> [Conversation] {
        try entries(path, of: "conversations").map {
            try Conversation(json: $0.json, path: $0.path, line: $0.line)
        }
    }

    /// A value of a file, with how errors name its place.
    struct Entry {
        let path: String
        let line: Int?
        let json: JSONValue
    }

    /// The values of a file, one at least: those of a JSONL file's lines, or of one list.
    static func entries(_ path: String, of content: String) throws -> [Entry] {
        let text = try TextFile.read(path)
        var result: [Entry] = []
        if text.first(where: { !$0.isWhitespace }) == "[" {
            guard let values = try JSONValue(parsing: text, source: path).arrayValue else { return [] }
            result = values.enumerated().map { Entry(path: "\(path)[\($0)]", line: nil, json: $1) }
        } else {
            for (place, line) in text.lines.enumerated() where !line.allSatisfy(\.isWhitespace) {
                do {
                    let json = try JSONValue(parsing: String(line), source: path)
                    result.append(Entry(path: path, line: place + 1, json: json))
                } catch FileError.malformedJSON(_, _, let reason) {
                    throw TextError.malformedSource(
                        path: path, line: place + 1, reason: "malformed JSON: \(reason)")
                }
            }
        }
        guard !result.isEmpty else {
            throw TextError.malformedSource(path: path, line: nil, reason: "no \(content)")
        }
        return result
    }
}
