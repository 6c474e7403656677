import MonetFoundation

/// A conversation to learn from.
public struct Conversation: Sendable, Equatable {
    /// The turns, in order.
    public var messages: [ChatMessage]

    /// A conversation of some turns.
    public init(_ messages: [ChatMessage]) { self.messages = messages }

    /// Reads one in any of the usual shapes: `messages` of `role` and `content`; ShareGPT's `conversations` of `from`
    /// and `value`; Alpaca's `instruction`, `input` and `output`.
    ///
    /// - Throws: `TextError.malformedSource` naming file, line and key.
    public init(json: JSONValue, path: String, line: Int) throws {
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
        if let system = try value("system").map({ try text($0, "system") }), !system.isEmpty {
            guard !messages.contains(where: { $0.role == "system" }) else {
                throw fail("\"system\" beside a message of the system, expected one of them")
            }
            messages.insert(ChatMessage(role: "system", content: system), at: 0)
        }
        guard messages.contains(where: { $0.role == "assistant" }) else {
            throw fail("nothing is said by the assistant")
        }
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
            return ChatMessage(
                role: role, content: try text(isShareGPT && turn["content"] == nil ? "value" : "content"))
        }
    }

    /// Names of roles, with what templates call them.
    private static let roles = [
        "system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
        "model": "assistant", "chatgpt": "assistant",
    ]

    /// The conversations of a JSONL file.
    ///
    /// - Throws: `FileError`, `TextError.malformedSource`.
    public static func read(_ path: String) throws -> [Conversation] {
        try readLines(path).map(\.conversation)
    }

    /// The same with the line of each.
    static func readLines(_ path: String) throws -> [(line: Int, conversation: Conversation)] {
        try lines(path, of: "conversations").map { line, json in
            (line, try Conversation(json: json, path: path, line: line))
        }
    }

    /// The values of a JSONL file's lines, one at least.
    static func lines(_ path: String, of content: String) throws -> [(line: Int, json: JSONValue)] {
        var result: [(line: Int, json: JSONValue)] = []
        for (place, text) in try TextFile.read(path).lines.enumerated() where !text.allSatisfy(\.isWhitespace)
        {
            do {
                result.append((place + 1, try JSONValue(parsing: String(text), source: path)))
            } catch FileError.malformedJSON(_, _, let reason) {
                throw TextError.malformedSource(
                    path: path, line: place + 1, reason: "malformed JSON: \(reason)")
            }
        }
        guard !result.isEmpty else {
            throw TextError.malformedSource(path: path, line: nil, reason: "no \(content)")
        }
        return result
    }
}
