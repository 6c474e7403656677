import Foundation
import MonetFoundation

/// A template of a task file, rendered as lm-evaluation-harness renders it with Jinja2: newlines after blocks
/// and at the end stay, and a name that is missing is an error where it is used.
///
///     let template = try TextTemplate("Question: {{question.strip()}}\nAnswer:")
///     print(try template.render([.init("question", " Why? ")]))
public struct TextTemplate: Sendable {
    private let body: JinjaBody

    /// Parses a template.
    ///
    /// - Throws: `TextError.unsupportedTemplate`, `TextError.templateFailure`.
    public init(_ source: String) throws {
        var lexer = try JinjaLexer(source, .task)
        body = try JinjaParser.parse(try lexer.tokenize(), .task)
    }

    /// The text for some variables.
    ///
    /// - Throws: `TextError.unsupportedTemplate`, `TextError.templateFailure`.
    public func render(_ variables: [JSONValue.Member]) throws -> String {
        let run = JinjaRun(date: Date(timeIntervalSince1970: 0), .task)
        for variable in variables { run.scope.set(variable.key, try JinjaValue(variable.value, run)) }
        return try run.render(body)
    }
}
