import Foundation
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
        let values = messages.map {
            JSONValue.object([.init("role", .string($0.role)), .init("content", .string($0.content))])
        }
        return try render(
            messages: .array(values), addGenerationPrompt: addGenerationPrompt, specialTokens: specialTokens,
            variables: variables, date: date)
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
