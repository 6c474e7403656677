import MonetFoundation
import MonetText

/// A rule of a task, ready for documents with certain fields.
struct CompiledRule: Sendable {
    private enum Form: Sendable {
        case field(String)
        case template(TextTemplate)
        case constant(JSONValue)
        case function(TaskFunction)
    }

    private let form: Form
    private let key: String
    private let origin: TaskOrigin

    /// - `key`: the key of the task file, for messages.
    /// - Throws: `TaskError.malformedFile` for a template with a mistake.
    init(_ rule: TaskDefinition.Rule, key: String, origin: TaskOrigin, fields: [String]) throws {
        self.key = key
        self.origin = origin
        switch rule {
        case .integer(let value): form = .constant(.integer(value))
        case .list(let values): form = .constant(.array(values))
        case .function(let function): form = .function(function)
        case .template(let text):
            if fields.contains(text) {
                form = .field(text)
            } else {
                do {
                    form = .template(try TextTemplate(text))
                } catch let error as TextError {
                    throw TaskError.malformedFile(origin: origin, reason: "\(key): \(error.templateReason)")
                }
            }
        }
    }

    /// A template of which only the text is wanted, such as a description.
    init(template text: String, key: String, origin: TaskOrigin, fields: [String]) throws {
        try self.init(.template(text), key: key, origin: origin, fields: fields)
    }

    private func failure(_ document: String, _ reason: String) -> TaskError {
        .templateFailed(origin: origin, key: key, document: document, reason: reason)
    }

    /// The value, and whether a template wrote it.
    private func value(of document: JSONValue, _ name: String) throws -> (JSONValue, isRendered: Bool) {
        switch form {
        case .field(let field): return (document[field] ?? .null, false)
        case .constant(let value): return (value, false)
        case .function(let function):
            do {
                return (try function.value(of: document), false)
            } catch let error as TaskFunction.Failure {
                throw failure(name, error.description)
            }
        case .template(let template):
            do {
                return (.string(try template.render(document.members ?? [])), true)
            } catch let error as TextError {
                throw failure(name, error.templateReason)
            }
        }
    }

    /// A text, or a number for a task whose choices are in the question.
    func text(of document: JSONValue, _ name: String, hasChoices: Bool) throws -> JSONValue {
        let (value, isRendered) = try value(of: document, name)
        guard isRendered, hasChoices, let text = value.stringValue, PythonText.isDigit(text) else {
            return value
        }
        return try literal(text, name)
    }

    /// The answer: a text, a number or a list.
    func target(of document: JSONValue, _ name: String, hasChoices: Bool) throws -> JSONValue {
        let (value, isRendered) = try value(of: document, name)
        guard isRendered, let text = value.stringValue else { return value }
        if hasChoices, PythonText.isDigit(text) { return try literal(text, name) }
        guard text.unicodeScalars.count >= 2, text.hasPrefix("["), text.hasSuffix("]") else { return value }
        return (try? PythonLiteral.value(of: text)) ?? value
    }

    /// The choices, all texts.
    func choices(of document: JSONValue, _ name: String) throws -> [String] {
        var (value, isRendered) = try value(of: document, name)
        if isRendered, let text = value.stringValue { value = try literal(text, name) }
        guard let list = value.arrayValue else {
            throw failure(name, "the choices are \(value.kind), expected a list of texts")
        }
        return try list.map { item in
            guard let text = item.stringValue else {
                throw failure(name, "a choice is \(item.serialized().prefix(60)), expected a text")
            }
            return text
        }
    }

    /// A plain text.
    func plainText(of document: JSONValue, _ name: String) throws -> String {
        let value = try value(of: document, name).0
        guard let text = value.stringValue else {
            throw failure(name, "the value is \(value.serialized().prefix(60)), expected a text")
        }
        return text
    }

    private func literal(_ text: String, _ name: String) throws -> JSONValue {
        do {
            return try PythonLiteral.value(of: text)
        } catch let error as PythonLiteral.Failure {
            throw failure(name, "\(error) of \"\(text.prefix(80))\"")
        }
    }
}

extension TextError {
    /// What is wrong with a template, and in which of its lines.
    fileprivate var templateReason: String {
        switch self {
        case .templateFailure(let reason, let line): "line \(line) of the template: \(reason)"
        case .unsupportedTemplate(let construct, let line):
            "line \(line) of the template: \(construct) is not supported"
        default: description
        }
    }
}
