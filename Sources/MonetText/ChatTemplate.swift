import MonetFoundation

/// One turn of a conversation.
public struct ChatMessage: Sendable, Equatable, Codable {
    /// `system`, `user` or `assistant`.
    public var role: String
    /// The text.
    public var content: String

    /// A turn.
    public init(role: String, content: String) {
        self.role = role
        self.content = content
    }
}

/// A chat template of a tokenizer, in the subset of Jinja that published templates use.
///
/// An unsupported construct is an error that names it, never a different prompt.
public struct ChatTemplate: Sendable {
    private let source: String

    /// Parses a template.
    ///
    /// - Throws: `TextError.unsupportedTemplate`, `TextError.templateFailure`.
    public init(_ source: String) throws {
        self.source = source
        _ = try Self.parse(source)
    }

    private static func parse(_ source: String) throws -> [JinjaNode] {
        var lexer = JinjaLexer(source)
        var parser = JinjaParser(try lexer.tokenize())
        return try parser.parse()
    }

    /// The prompt for a conversation.
    ///
    /// - `addGenerationPrompt`: whether to open the assistant's turn.
    /// - `specialTokens`: the tokenizer's `specialTokenTexts`.
    public func render(
        _ messages: [ChatMessage], addGenerationPrompt: Bool = true,
        specialTokens: [String: String] = ["bos_token": "<s>", "eos_token": "</s>"],
        variables: JSONValue = .null
    ) throws -> String {
        var values: [String: JinjaValue] = [
            "messages": .array(
                messages.map { .object([("role", .string($0.role)), ("content", .string($0.content))]) }),
            "add_generation_prompt": .bool(addGenerationPrompt),
        ]
        for (name, text) in specialTokens { values[name] = .string(text) }
        for member in variables.members ?? [] { values[member.key] = JinjaValue(member.value) }
        var interpreter = JinjaInterpreter(variables: values)
        var out = ""
        try interpreter.run(try Self.parse(source), into: &out)
        return out
    }
}
