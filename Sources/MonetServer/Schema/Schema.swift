import MonetFoundation

/// What a value of a request has to be: checked when a request arrives, and written into the OpenAPI document, so
/// that the two cannot differ.
indirect enum Schema: Sendable {
    case string(
        enumeration: [String] = [], lengths: ClosedRange<Int> = 0...Int.max, pattern: TextPattern? = nil)
    case integer(ClosedRange<Int>)
    case number(ClosedRange<Double>)
    case boolean
    /// A value that must be this one.
    case constant(JSONValue)
    case array(Schema, counts: ClosedRange<Int> = 0...Int.max)
    case object(ObjectSchema)
    /// An object with any keys.
    case map(Schema, keys: TextPattern, most: Int)
    /// Any of several kinds.
    case either([Schema])
    case anything

    /// A key of an object.
    struct Field: Sendable {
        let name: String
        let schema: Schema
        let isRequired: Bool
        let description: String

        init(_ name: String, _ schema: Schema, _ description: String, isRequired: Bool = false) {
            (self.name, self.schema, self.description) = (name, schema, description)
            self.isRequired = isRequired
        }
    }

    /// An object with known keys, no others.
    struct ObjectSchema: Sendable {
        let fields: [Field]
        /// Whether other keys are allowed, as in messages for chat templates.
        var isOpen = false
    }

    static func object(_ fields: [Field]) -> Schema { .object(ObjectSchema(fields: fields)) }

    // MARK: Checking

    /// Checks a value at a place of the request.
    ///
    /// - Throws: `APIError` that names the place, what was found and what was expected.
    func check(_ value: JSONValue, at place: String) throws {
        func fail() -> APIError {
            let name = place.isEmpty ? "the body" : place
            return .invalid(place, "\(name) is \(Self.describe(value)), expected \(expectation)")
        }
        switch self {
        case .anything: return
        case .constant(let constant):
            guard value == constant || (value.doubleValue != nil && value.doubleValue == constant.doubleValue)
            else { throw fail() }
        case .string(let enumeration, let lengths, let pattern):
            guard let text = value.stringValue, enumeration.isEmpty || enumeration.contains(text),
                lengths.contains(text.unicodeScalars.count),
                pattern?.matches(text) ?? true
            else { throw fail() }
        case .integer(let range):
            guard let number = value.intValue, range.contains(number) else { throw fail() }
        case .number(let range):
            guard let number = value.doubleValue, range.contains(number) else { throw fail() }
        case .boolean: guard value.boolValue != nil else { throw fail() }
        case .array(let element, let counts):
            guard let values = value.arrayValue, counts.contains(values.count) else { throw fail() }
            for (index, item) in values.enumerated() { try element.check(item, at: "\(place)[\(index)]") }
        case .map(let element, let keys, let most):
            guard let members = value.members, members.count <= most else { throw fail() }
            for member in members {
                guard keys.matches(member.key) else {
                    throw APIError.invalid(
                        place, "\(place) has the key \(Self.quoted(member.key)), expected \(keys.words)")
                }
                try element.check(member.value, at: "\(place).\(member.key)")
            }
        case .object(let object): try object.check(value, at: place, fail)
        case .either(let schemas):
            var errors: [APIError] = []
            for schema in schemas {
                do {
                    try schema.check(value, at: place)
                    return
                } catch let error as APIError {
                    errors.append(error)
                }
            }
            // The one that got furthest says most.
            let deepest = errors.max { ($0.param ?? "").count < ($1.param ?? "").count }
            throw deepest.flatMap { $0.param == place ? nil : $0 } ?? fail()
        }
    }

    /// What a value is, in words.
    var expectation: String {
        switch self {
        case .anything: return "any value"
        case .constant(let value): return value.serialized()
        case .string(let enumeration, let lengths, let pattern):
            if !enumeration.isEmpty {
                return enumeration.count == 1
                    ? Self.quoted(enumeration[0])
                    : "one of " + enumeration.map(Self.quoted).joined(separator: ", ")
            }
            if let pattern { return pattern.words }
            if lengths.upperBound < .max {
                return "a text of \(lengths.lowerBound) to \(lengths.upperBound) characters"
            }
            return lengths.lowerBound > 0 ? "a text that is not empty" : "a text"
        case .integer(let range):
            return range.upperBound == .max
                ? "an integer of \(range.lowerBound) or more"
                : "an integer from \(range.lowerBound) to \(range.upperBound)"
        case .number(let range): return "a number from \(range.lowerBound) to \(range.upperBound)"
        case .boolean: return "true or false"
        case .array(let element, let counts):
            if counts.upperBound < .max {
                return
                    "a list of \(counts.lowerBound) to \(counts.upperBound) items, each \(element.expectation)"
            }
            return (counts.lowerBound > 0 ? "a list, not empty, of " : "a list of ") + element.expectation
        case .object: return "an object"
        case .map(let element, let keys, let most):
            return "an object of at most \(most) keys, each \(keys.words), with \(element.expectation)"
        case .either(let schemas): return schemas.map(\.expectation).joined(separator: ", or ")
        }
    }

    static func describe(_ value: JSONValue) -> String {
        switch value {
        case .string(let text): "the text \(quoted(text))"
        case .array(let values): "a list of \(values.count)"
        case .object: "an object"
        case .null: "null"
        default: value.serialized()
        }
    }

    private static func quoted(_ text: String) -> String {
        JSONValue.string(text.count > 60 ? text.prefix(60) + "…" : text).serialized()
    }

    // MARK: JSON Schema

    /// The schema in JSON Schema's words.
    var json: JSONValue {
        switch self {
        case .anything: return [:]
        case .constant(let value): return ["const": value]
        case .string(let enumeration, let lengths, let pattern):
            var members: [JSONValue.Member] = [.init("type", "string")]
            if !enumeration.isEmpty { members.append(.init("enum", .array(enumeration.map { .string($0) }))) }
            if lengths.lowerBound > 0 { members.append(.init("minLength", .integer(lengths.lowerBound))) }
            if lengths.upperBound < .max { members.append(.init("maxLength", .integer(lengths.upperBound))) }
            if let pattern { members.append(.init("pattern", .string(pattern.expression))) }
            return .object(members)
        case .integer(let range):
            var members: [JSONValue.Member] = [
                .init("type", "integer"), .init("minimum", .integer(range.lowerBound)),
            ]
            if range.upperBound < .max { members.append(.init("maximum", .integer(range.upperBound))) }
            return .object(members)
        case .number(let range):
            return [
                "type": "number", "minimum": .number(range.lowerBound), "maximum": .number(range.upperBound),
            ]
        case .boolean: return ["type": "boolean"]
        case .array(let element, let counts):
            var members: [JSONValue.Member] = [.init("type", "array"), .init("items", element.json)]
            if counts.lowerBound > 0 { members.append(.init("minItems", .integer(counts.lowerBound))) }
            if counts.upperBound < .max { members.append(.init("maxItems", .integer(counts.upperBound))) }
            return .object(members)
        case .map(let element, let keys, let most):
            return [
                "type": "object", "additionalProperties": false, "maxProperties": .integer(most),
                "patternProperties": .object([.init(keys.expression, element.json)]),
            ]
        case .object(let object): return object.json
        case .either(let schemas): return ["anyOf": .array(schemas.map(\.json))]
        }
    }
}

extension Schema.ObjectSchema {
    fileprivate func check(_ value: JSONValue, at place: String, _ fail: () -> APIError) throws {
        guard let members = value.members else { throw fail() }
        let prefix = place.isEmpty ? "" : place + "."
        for member in members {
            guard let field = fields.first(where: { $0.name == member.key }) else {
                if isOpen { continue }
                let known = fields.map(\.name).joined(separator: ", ")
                throw APIError.invalid(
                    prefix + member.key, "\(prefix)\(member.key) is not known here; known are \(known)",
                    code: "unknown_parameter")
            }
            // null stands for a key that is not given.
            if member.value.isNull, !field.isRequired { continue }
            try field.schema.check(member.value, at: prefix + member.key)
        }
        for field in fields where field.isRequired && value[field.name] == nil {
            throw APIError.invalid(
                prefix + field.name,
                "\(prefix)\(field.name) is missing, expected \(field.schema.expectation)",
                code: "missing_required_parameter")
        }
    }

    fileprivate var json: JSONValue {
        let properties = fields.map { field -> JSONValue.Member in
            var members =
                (field.isRequired ? field.schema : .either([field.schema, .constant(.null)])).json.members
                ?? []
            members.append(.init("description", .string(field.description)))
            return .init(field.name, .object(members))
        }
        let required = fields.filter(\.isRequired).map { JSONValue.string($0.name) }
        var members: [JSONValue.Member] = [
            .init("type", "object"), .init("properties", .object(properties)),
            .init("additionalProperties", .bool(isOpen)),
        ]
        if !required.isEmpty { members.append(.init("required", .array(required))) }
        return .object(members)
    }
}
