import MonetFoundation

extension JinjaValue {
    /// The value of JSON as Python reads it.
    init(_ json: JSONValue, _ run: JinjaRun, depth: Int = 0) throws {
        try run.check(depth: depth)
        switch json {
        case .null: self = .none
        case .bool(let value): self = .bool(value)
        case .integer(let value): self = .int(value)
        case .number(let value):
            // Of such numbers, JSON's parser does not keep whether they were integers.
            guard value.magnitude < 0x1p63 else {
                throw run.failure("the number \(value) among the variables")
            }
            self = .double(value)
        case .string(let value): self = .string(value)
        case .array(let values):
            self = .list(JinjaList(try values.map { try JinjaValue($0, run, depth: depth + 1) }))
        case .object(let members):
            let dictionary = JinjaDictionary()
            for member in members {
                let key = member.key
                dictionary.set(
                    .string(key), .string(key), try JinjaValue(member.value, run, depth: depth + 1))
            }
            self = .dictionary(dictionary)
        }
    }
}
