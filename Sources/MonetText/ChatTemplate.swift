import Foundation
import MonetFoundation

/// One turn of a conversation.
public struct ChatMessage: Sendable, Equatable {
    /// `system`, `user` or `assistant`; templates may know more, such as `tool`.
    public var role: String
    /// The text.
    public var content: String
    /// What else a template may read of it, such as `tool_calls` or `reasoning_content`.
    public var fields: [JSONValue.Member]

    /// A turn.
    public init(role: String, content: String, fields: [JSONValue.Member] = []) {
        self.role = role
        self.content = content
        self.fields = fields
    }

    /// Whether another message says the same, whatever else is noted of it, such as a number or a score.
    func repeats(_ other: ChatMessage) -> Bool {
        let said = ["tool_calls", "reasoning_content", "reasoning", "thinking"]
        return role == other.role && content == other.content
            && said.allSatisfy { key in
                fields.first { $0.key == key }?.value == other.fields.first { $0.key == key }?.value
            }
    }

    /// The message as templates read it.
    var json: JSONValue {
        .object([.init("role", .string(role)), .init("content", .string(content))] + fields)
    }
}

/// A chat template of a tokenizer, rendered as transformers renders it with Jinja2.
///
/// The text is that of Jinja2, or an error says which construct of which line stands in the way. Templates come
/// from strangers: their size, nesting, steps and memory are limited, with an error as well.
public struct ChatTemplate: Sendable {
    private let body: JinjaBody

    /// Parses a template.
    ///
    /// - Throws: `TextError.unsupportedTemplate`, `TextError.templateFailure`.
    public init(_ source: String) throws {
        var lexer = try JinjaLexer(source)
        body = try JinjaParser.parse(try lexer.tokenize())
    }

    /// The prompt for a conversation.
    ///
    /// - `addGenerationPrompt`: whether to open the assistant's turn.
    /// - `specialTokens`: the tokenizer's `specialTokenTexts`.
    /// - `variables`: an object of further variables, such as `tools`.
    /// - `date`: what `strftime_now` takes for now.
    public func render(
        _ messages: [ChatMessage], addGenerationPrompt: Bool = true,
        specialTokens: [String: String] = ["bos_token": "<s>", "eos_token": "</s>"],
        variables: JSONValue = .null, date: Date = Date()
    ) throws -> String {
        try render(
            messages: .array(messages.map(\.json)), addGenerationPrompt: addGenerationPrompt,
            specialTokens: specialTokens, variables: variables, date: date)
    }

    /// The prompt for a conversation whose messages have members of any kind, such as `tool_calls`.
    public func render(
        messages: JSONValue, addGenerationPrompt: Bool = true,
        specialTokens: [String: String] = ["bos_token": "<s>", "eos_token": "</s>"],
        variables: JSONValue = .null, date: Date = Date()
    ) throws -> String {
        try rendering(
            messages: messages, addGenerationPrompt: addGenerationPrompt, specialTokens: specialTokens,
            variables: variables, date: date
        ).text
    }

    /// What the template writes after each thing that the assistant says, such as `<|im_end|>`: an answer ends there, also
    /// where it is no token of the model. Nil if it is not in angle or square brackets, or cannot be told.
    ///
    /// - `specialTokens`: the tokenizer's `specialTokenTexts`.
    public func endOfTurn(specialTokens: [String: String]) -> String? {
        let said = "7316459280"
        let messages = [
            ChatMessage(role: "user", content: "x"), ChatMessage(role: "assistant", content: said),
        ]
        guard
            let text = try? render(messages, addGenerationPrompt: false, specialTokens: specialTokens),
            let place = text.range(of: said, options: .backwards)
        else { return nil }
        let mark = text[place.upperBound...].drop(while: \.isWhitespace).prefix { !$0.isWhitespace }
        // Anything else may well stand within an answer.
        let isMark = [("<", ">"), ("[", "]")].contains { mark.hasPrefix($0.0) && mark.hasSuffix($0.1) }
        return isMark ? String(mark) : nil
    }

    /// The same with the bytes of the text that the template marks with `{% generation %}` as the assistant's.
    func rendering(
        messages: JSONValue, addGenerationPrompt: Bool, specialTokens: [String: String],
        variables: JSONValue = .null, date: Date = Date(), timeZone: TimeZone = .current
    ) throws -> (text: String, generated: [Range<Int>]) {
        let run = JinjaRun(date: date, timeZone: timeZone)
        // transformers always passes these two.
        var values: [(String, JSONValue)] = [("tools", .null), ("documents", .null)]
        values += specialTokens.map { ($0.key, .string($0.value)) }
        values += [("messages", messages), ("add_generation_prompt", .bool(addGenerationPrompt))]
        values += (variables.members ?? []).map { ($0.key, $0.value) }
        for (name, value) in values { run.scope.set(name, try JinjaValue(value, run)) }
        return (try run.render(body), run.generated)
    }
}
