import Foundation

/// A JSON value, with the members of objects in their order.
///
/// The parser is strict where Foundation's is lenient: duplicate keys, NaN and trailing text are
/// errors. Integers beyond 64 bits are kept as `number`.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([Member])

    /// A key and its value.
    public struct Member: Sendable, Equatable {
        public let key: String
        public let value: JSONValue

        /// Joins a key and a value.
        public init(_ key: String, _ value: JSONValue) {
            self.key = key
            self.value = value
        }
    }

    /// Parses UTF-8 JSON text; `source` names it in errors.
    ///
    /// - Throws: `FileError.malformedJSON`.
    public init(parsing bytes: UnsafeRawBufferPointer, source: String) throws {
        var parser = JSONParser(bytes: bytes, source: source)
        self = try parser.parseDocument()
    }

    /// Parses a string.
    public init(parsing text: String, source: String) throws {
        var text = text
        self = try text.withUTF8 { try JSONValue(parsing: UnsafeRawBufferPointer($0), source: source) }
    }

    /// Reads and parses a file.
    ///
    /// - `readsStreams`: whether it may be a pipe.
    public init(contentsOfFile path: String, readsStreams: Bool = false) throws {
        let file = try MappedFile(path: path, readsStreams: readsStreams)
        self = try withExtendedLifetime(file) { try JSONValue(parsing: file.bytes, source: path) }
    }

    /// The member `key` of an object; nil for other values and absent keys.
    public subscript(key: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.key == key }?.value
    }

    public var isNull: Bool { self == .null }
    /// The value if it is a string.
    public var stringValue: String? { if case .string(let value) = self { value } else { nil } }
    /// The value if it is a boolean.
    public var boolValue: Bool? { if case .bool(let value) = self { value } else { nil } }
    /// The value if it is an integer, or a number without a fraction.
    public var intValue: Int? {
        switch self {
        case .integer(let value): value
        case .number(let value): Int(exactly: value)
        default: nil
        }
    }
    /// The value if it is a number.
    public var doubleValue: Double? {
        switch self {
        case .integer(let value): Double(value)
        case .number(let value): value
        default: nil
        }
    }
    /// The elements if it is an array.
    public var arrayValue: [JSONValue]? { if case .array(let value) = self { value } else { nil } }
    /// The members if it is an object.
    public var members: [Member]? { if case .object(let value) = self { value } else { nil } }

    /// What kind of value it is, for messages.
    public var kind: String {
        switch self {
        case .null: "null"
        case .bool: "a boolean"
        case .integer: "an integer"
        case .number: "a number"
        case .string: "a string"
        case .array: "an array"
        case .object: "an object"
        }
    }

    /// JSON text, indented by two spaces per level if `pretty`.
    public func serialized(pretty: Bool = false) -> String {
        var out = ""
        write(to: &out, indent: pretty ? 0 : nil)
        return out
    }

    private func write(to out: inout String, indent: Int?) {
        switch self {
        case .null: out += "null"
        case .bool(let value): out += value ? "true" : "false"
        case .integer(let value): out += String(value)
        case .number(let value):
            // Not representable in JSON; most writers use null.
            out += value.isFinite ? Self.shortest(value) : "null"
        case .string(let value): Self.write(value, to: &out)
        case .array(let values):
            Self.list(values, open: "[", close: "]", indent: indent, to: &out) { value, indent, out in
                value.write(to: &out, indent: indent)
            }
        case .object(let members):
            Self.list(members, open: "{", close: "}", indent: indent, to: &out) { member, indent, out in
                Self.write(member.key, to: &out)
                out += indent == nil ? ":" : ": "
                member.value.write(to: &out, indent: indent)
            }
        }
    }

    private static func shortest(_ value: Double) -> String {
        if let integer = Int(exactly: value), integer.magnitude < 1 << 53 { return "\(integer).0" }
        return "\(value)"
    }

    private static func list<Element>(
        _ elements: [Element], open: String, close: String, indent: Int?, to out: inout String,
        _ body: (Element, Int?, inout String) -> Void
    ) {
        out += open
        for (index, element) in elements.enumerated() {
            if index > 0 { out += indent == nil ? ", " : "," }
            if let indent { out += "\n" + String(repeating: "  ", count: indent + 1) }
            body(element, indent.map { $0 + 1 }, &out)
        }
        if let indent, !elements.isEmpty { out += "\n" + String(repeating: "  ", count: indent) }
        out += close
    }

    private static func write(_ text: String, to out: inout String) {
        out += "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": out += "\\\""
            case "\\": out += "\\\\"
            case "\n": out += "\\n"
            case "\r": out += "\\r"
            case "\t": out += "\\t"
            case _ where scalar.value < 0x20:
                let hex = String(scalar.value, radix: 16)
                out += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: out.unicodeScalars.append(scalar)
            }
        }
        out += "\""
    }
}

extension JSONValue: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByFloatLiteral,
    ExpressibleByBooleanLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    public init(stringLiteral value: String) { self = .string(value) }
    public init(integerLiteral value: Int) { self = .integer(value) }
    public init(floatLiteral value: Double) { self = .number(value) }
    public init(booleanLiteral value: Bool) { self = .bool(value) }
    public init(arrayLiteral elements: JSONValue...) { self = .array(elements) }
    public init(dictionaryLiteral elements: (String, JSONValue)...) {
        self = .object(elements.map { Member($0.0, $0.1) })
    }
}
