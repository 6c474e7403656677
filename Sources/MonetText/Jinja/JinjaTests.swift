/// The tests of Jinja2, `value is name`.
enum JinjaTests {
    /// The names of all tests.
    static let names: Set<String> = [
        "odd", "even", "divisibleby", "defined", "undefined", "filter", "test", "none", "boolean", "false",
        "true",
        "integer", "float", "lower", "upper", "string", "mapping", "number", "sequence", "iterable",
        "callable",
        "sameas", "escaped", "in", "==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", "ge", ">=",
        "<", "lt",
        "lessthan", "<=", "le",
    ]

    static func test(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> Bool
    {
        if let symbol = comparisons[name] {
            let other = try arguments.bind(["other"], required: 1, run)[0] ?? .none
            return try JinjaOperators.compare(symbol, value, other, run)
        }
        switch name {
        case "divisibleby":
            let divisor = try arguments.bind(["num"], required: 1, run)[0] ?? .none
            return try isRemainder(0, of: value, by: divisor, run)
        case "sameas":
            return try isSame(value, try arguments.bind(["other"], required: 1, run)[0] ?? .none, run)
        case "in":
            return try JinjaOperators.contains(
                try arguments.bind(["seq"], required: 1, run)[0] ?? .none, value, run)
        default: break
        }
        guard arguments.isEmpty else { throw run.failure("the test '\(name)' takes no arguments") }
        switch name {
        case "odd": return try isRemainder(1, of: value, by: .int(2), run)
        case "even": return try isRemainder(0, of: value, by: .int(2), run)
        case "filter": return JinjaFilters.names.contains(try text(value, run))
        case "test": return names.contains(try text(value, run))
        case "lower", "upper":
            let text = try run.text(of: value)
            try run.lookClosely(at: text)
            return name == "lower" ? JinjaText.isLower(text) : JinjaText.isUpper(text)
        default: return try isKind(name, value, run)
        }
    }

    private static let comparisons: [String: JinjaOperator] = [
        "==": .equal, "eq": .equal, "equalto": .equal, "!=": .notEqual, "ne": .notEqual, ">": .greater,
        "gt": .greater, "greaterthan": .greater, ">=": .greaterOrEqual, "ge": .greaterOrEqual, "<": .less,
        "lt": .less, "lessthan": .less, "<=": .lessOrEqual, "le": .lessOrEqual,
    ]

    private static func isKind(_ name: String, _ value: JinjaValue, _ run: JinjaRun) throws -> Bool {
        switch (name, value) {
        case ("undefined", .undefined), ("none", .none), ("boolean", .bool), ("integer", .int),
            ("float", .double),
            ("string", .string), ("string", .markup), ("mapping", .dictionary), ("escaped", .markup):
            return true
        case ("defined", .undefined): return false
        case ("defined", _): return true
        case ("true", .bool(let flag)): return flag
        case ("false", .bool(let flag)): return !flag
        case ("number", .bool), ("number", .int), ("number", .double): return true
        case ("sequence", .string), ("sequence", .markup), ("sequence", .list), ("sequence", .tuple),
            ("sequence", .dictionary), ("sequence", .range), ("sequence", .undefined):
            return true
        case ("iterable", .string), ("iterable", .markup), ("iterable", .list), ("iterable", .tuple),
            ("iterable", .dictionary), ("iterable", .range), ("iterable", .undefined), ("iterable", .view),
            ("iterable", .generator), ("iterable", .loop):
            return true
        case ("callable", .macro), ("callable", .function), ("callable", .method), ("callable", .loop),
            ("callable", .undefined):
            return true
        case ("undefined", _), ("none", _), ("boolean", _), ("integer", _), ("float", _), ("string", _),
            ("mapping", _), ("escaped", _), ("true", _), ("false", _), ("number", _), ("sequence", _),
            ("iterable", _), ("callable", _):
            return false
        default: throw run.failure("the test '\(name)' does not exist")
        }
    }

    private static func text(_ value: JinjaValue, _ run: JinjaRun) throws -> String {
        guard case .string(let text) = value else { throw run.unsupported("a name that is no text") }
        return text
    }

    private static func isRemainder(
        _ wanted: Int, of value: JinjaValue, by divisor: JinjaValue, _ run: JinjaRun
    ) throws
        -> Bool
    {
        if case .string = value { throw run.unsupported("a remainder of a text") }
        let remainder = try JinjaOperators.arithmetic(.remainder, value, divisor, run)
        return try JinjaOperators.equal(remainder, .int(wanted), run)
    }

    /// Python's `is`, where it does not depend on how Python stores values.
    private static func isSame(_ a: JinjaValue, _ b: JinjaValue, _ run: JinjaRun) throws -> Bool {
        switch (a, b) {
        case (.none, .none): return true
        case (.bool(let x), .bool(let y)): return x == y
        case (.none, _), (_, .none), (.bool, _), (_, .bool): return false
        case (.namespace(let x), .namespace(let y)): return x === y
        default: throw run.unsupported("'sameas' with \(a.kind)")
        }
    }
}
