import MonetFoundation

/// A value inside a template.
enum JinjaValue {
    case undefined
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    case array([JinjaValue])
    case object([(key: String, value: JinjaValue)])
    /// A mutable record made by `namespace()`.
    case namespace(JinjaNamespace)

    init(_ json: JSONValue) {
        switch json {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .int(value)
        case .number(let value): self = .double(value)
        case .string(let value): self = .string(value)
        case .array(let values): self = .array(values.map { JinjaValue($0) })
        case .object(let members): self = .object(members.map { ($0.key, JinjaValue($0.value)) })
        }
    }

    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .string(let value): !value.isEmpty
        case .array(let values): !values.isEmpty
        case .object(let members): !members.isEmpty
        case .namespace: true
        }
    }

    /// What `{{ value }}` prints.
    var text: String {
        switch self {
        case .undefined: ""
        case .none: "None"
        case .bool(let value): value ? "True" : "False"
        case .int(let value): String(value)
        case .double(let value): String(value)
        case .string(let value): value
        case .array, .object, .namespace: representation
        }
    }

    /// Python's repr, which nested values print.
    private var representation: String {
        switch self {
        case .string(let value):
            "'"
                + value.replacingOccurrences("\\", "\\\\").replacingOccurrences("'", "\\'")
                .replacingOccurrences("\n", "\\n") + "'"
        case .array(let values): "[" + values.map(\.representation).joined(separator: ", ") + "]"
        case .object(let members):
            "{" + members.map { "'\($0.key)': \($0.value.representation)" }.joined(separator: ", ") + "}"
        case .namespace: "<Namespace>"
        default: text
        }
    }

    var json: JSONValue {
        switch self {
        case .undefined, .none, .namespace: .null
        case .bool(let value): .bool(value)
        case .int(let value): .integer(value)
        case .double(let value): .number(value)
        case .string(let value): .string(value)
        case .array(let values): .array(values.map(\.json))
        case .object(let members): .object(members.map { .init($0.key, $0.value.json) })
        }
    }

    var number: Double? {
        switch self {
        case .int(let value): Double(value)
        case .double(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    static func equal(_ a: JinjaValue, _ b: JinjaValue) -> Bool {
        switch (a, b) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let x), .string(let y)): return x == y
        case (.array(let x), .array(let y)):
            return x.count == y.count && zip(x, y).allSatisfy { equal($0, $1) }
        case (.object(let x), .object(let y)):
            return x.count == y.count
                && x.allSatisfy { member in
                    y.contains { $0.key == member.key && equal($0.value, member.value) }
                }
        default:
            guard let x = a.number, let y = b.number else { return false }
            return x == y
        }
    }
}

final class JinjaNamespace {
    var members: [String: JinjaValue]

    init(_ members: [String: JinjaValue]) {
        self.members = members
    }
}

extension String {
    fileprivate func replacingOccurrences(_ old: String, _ new: String) -> String {
        split(separator: old, omittingEmptySubsequences: false).joined(separator: new)
    }
}
