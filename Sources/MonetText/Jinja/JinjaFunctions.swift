import Foundation
import MonetFoundation

/// Operators, filters, tests and methods of templates.
enum JinjaFunctions {
    static func binary(_ symbol: String, _ a: JinjaValue, _ b: JinjaValue, line: Int) throws -> JinjaValue {
        func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }
        switch symbol {
        case "==": return .bool(JinjaValue.equal(a, b))
        case "!=": return .bool(!JinjaValue.equal(a, b))
        case "in": return .bool(try contains(b, a, line: line))
        case "not in": return .bool(!(try contains(b, a, line: line)))
        case "~": return .string(a.text + b.text)
        case "<", ">", "<=", ">=":
            let order: (Bool, Bool)
            if case .string(let x) = a, case .string(let y) = b {
                order = (x < y, x == y)
            } else if let x = a.number, let y = b.number {
                order = (x < y, x == y)
            } else {
                throw failure("'\(symbol)' needs two numbers or two texts")
            }
            switch symbol {
            case "<": return .bool(order.0)
            case "<=": return .bool(order.0 || order.1)
            case ">": return .bool(!order.0 && !order.1)
            default: return .bool(!order.0)
            }
        case "+":
            if case .string(let x) = a, case .string(let y) = b { return .string(x + y) }
            if case .array(let x) = a, case .array(let y) = b { return .array(x + y) }
        case "*":
            if case .string(let x) = a, case .int(let n) = b, n < 1 << 16 {
                return .string(String(repeating: x, count: max(0, n)))
            }
        default: break
        }
        if case .int(let x) = a, case .int(let y) = b, symbol != "/" {
            let result: (partialValue: Int, overflow: Bool)
            switch symbol {
            case "+": result = x.addingReportingOverflow(y)
            case "-": result = x.subtractingReportingOverflow(y)
            case "*": result = x.multipliedReportingOverflow(by: y)
            case "//", "%":
                guard y != 0 else { throw failure("division by zero") }
                let (quotient, overflow) = x.dividedReportingOverflow(by: y)
                if overflow { throw failure("a number too large") }
                // Python rounds towards minus infinity.
                let floored = (x % y != 0 && (x < 0) != (y < 0)) ? quotient - 1 : quotient
                result = symbol == "//" ? (floored, false) : (x &- floored &* y, false)
            default: throw failure("unknown operator \(symbol)")
            }
            if result.overflow { throw failure("a number too large") }
            return .int(result.partialValue)
        }
        guard let x = a.number, let y = b.number else {
            throw failure("'\(symbol)' between values that it does not take")
        }
        switch symbol {
        case "+": return .double(x + y)
        case "-": return .double(x - y)
        case "*": return .double(x * y)
        case "/", "//", "%":
            guard y != 0 else { throw failure("division by zero") }
            return .double(
                symbol == "/"
                    ? x / y : symbol == "//" ? (x / y).rounded(.down) : x - (x / y).rounded(.down) * y)
        default: throw failure("unknown operator \(symbol)")
        }
    }

    private static func contains(_ container: JinjaValue, _ item: JinjaValue, line: Int) throws -> Bool {
        switch container {
        case .string(let text): return item.text.isEmpty || text.contains(item.text)
        case .array(let values): return values.contains { JinjaValue.equal($0, item) }
        case .object(let members): return members.contains { $0.key == item.text }
        case .undefined: return false
        default: throw TextError.templateFailure(reason: "'in' needs a text, a list or a mapping", line: line)
        }
    }

    static func range(_ arguments: [JinjaValue], line: Int) throws -> JinjaValue {
        let numbers = arguments.compactMap { if case .int(let value) = $0 { value } else { nil } }
        guard numbers.count == arguments.count, (1...3).contains(numbers.count) else {
            throw TextError.templateFailure(reason: "range() needs one to three integers", line: line)
        }
        let (start, end) = numbers.count == 1 ? (0, numbers[0]) : (numbers[0], numbers[1])
        let step = numbers.count == 3 ? numbers[2] : 1
        guard step != 0, abs(start) < 1 << 24, abs(end) < 1 << 24, abs(step) < 1 << 24 else {
            throw TextError.templateFailure(reason: "range() of that size", line: line)
        }
        return .array(Swift.stride(from: start, to: end, by: step).map { .int($0) })
    }

    static func test(_ name: String, _ value: JinjaValue, _ arguments: [JinjaValue], line: Int) throws -> Bool
    {
        switch (name, value) {
        case ("defined", .undefined): return false
        case ("defined", _): return true
        case ("undefined", .undefined): return true
        case ("undefined", _): return false
        case ("none", .none): return true
        case ("none", _): return false
        case ("string", .string): return true
        case ("string", _): return false
        case ("mapping", .object): return true
        case ("mapping", _): return false
        case ("sequence", .array), ("sequence", .string), ("iterable", .array), ("iterable", .string),
            ("iterable", .object):
            return true
        case ("sequence", _), ("iterable", _): return false
        case ("number", .int), ("number", .double), ("integer", .int), ("boolean", .bool): return true
        case ("number", _), ("integer", _), ("boolean", _): return false
        case ("true", .bool(let flag)): return flag
        case ("false", .bool(let flag)): return !flag
        case ("true", _), ("false", _): return false
        case ("odd", .int(let number)): return number % 2 != 0
        case ("even", .int(let number)): return number % 2 == 0
        case ("divisibleby", .int(let number)):
            if case .int(let divisor)? = arguments.first, divisor != 0, divisor != -1 {
                return number % divisor == 0
            }
        case ("equalto", _), ("eq", _):
            if let other = arguments.first { return JinjaValue.equal(value, other) }
        case ("in", _): if let other = arguments.first { return try contains(other, value, line: line) }
        default: break
        }
        throw TextError.unsupportedTemplate(construct: "the test 'is \(name)'", line: line)
    }

    static func filter(_ name: String, _ value: JinjaValue, _ arguments: [JinjaValue], line: Int) throws
        -> JinjaValue
    {
        switch name {
        case "default", "d":
            if case .undefined = value { return arguments.first ?? .string("") }
            if arguments.count > 1, arguments[1].isTrue, !value.isTrue { return arguments[0] }
            return value
        case "length", "count":
            switch value {
            case .string(let text): return .int(text.unicodeScalars.count)
            case .array(let values): return .int(values.count)
            case .object(let members): return .int(members.count)
            default: break
            }
        case "trim": if arguments.isEmpty { return .string(strip(value.text, both: true)) }
        case "upper", "lower", "capitalize", "title", "replace":
            return try method(name, .string(value.text), arguments, line: line)
        case "string", "safe": return .string(value.text)
        case "list":
            switch value {
            case .array: return value
            case .string(let text): return .array(text.unicodeScalars.map { .string(String($0)) })
            case .object(let members): return .array(members.map { .string($0.key) })
            default: break
            }
        case "int":
            return .int(
                value.number.flatMap { Int(exactly: $0.rounded(.towardZero)) } ?? Int(value.text) ?? 0)
        case "first", "last":
            switch value {
            case .array(let values): return (name == "first" ? values.first : values.last) ?? .undefined
            case .string(let text):
                return (name == "first" ? text.first : text.last).map { .string(String($0)) } ?? .undefined
            default: break
            }
        case "join":
            if case .array(let values) = value {
                return .string(values.map(\.text).joined(separator: arguments.first?.text ?? ""))
            }
        case "reverse": if case .array(let values) = value { return .array(values.reversed()) }
        case "items", "dictsort": if name == "items" { return try method(name, value, arguments, line: line) }
        case "tojson":
            return .string(value.json.serialized(pretty: !arguments.isEmpty))
        default: break
        }
        throw TextError.unsupportedTemplate(construct: "the filter '\(name)' on this value", line: line)
    }

    static func method(_ name: String, _ value: JinjaValue, _ arguments: [JinjaValue], line: Int) throws
        -> JinjaValue
    {
        switch (value, name) {
        case (.string(let text), "strip"), (.string(let text), "lstrip"), (.string(let text), "rstrip"):
            let set = arguments.first?.text
            return .string(
                strip(text, left: name != "rstrip", right: name != "lstrip", characters: set))
        case (.string(let text), "startswith"):
            if let prefix = arguments.first?.text {
                return .bool(text.unicodeScalars.starts(with: prefix.unicodeScalars))
            }
        case (.string(let text), "endswith"):
            if let suffix = arguments.first?.text {
                return .bool(text.unicodeScalars.reversed().starts(with: suffix.unicodeScalars.reversed()))
            }
        case (.string(let text), "upper"): return .string(text.uppercased())
        case (.string(let text), "lower"): return .string(text.lowercased())
        case (.string(let text), "capitalize"):
            return .string(text.prefix(1).uppercased() + text.dropFirst().lowercased())
        case (.string(let text), "title"): return .string(text.capitalized)
        case (.string(let text), "split"):
            guard arguments.count <= 1 else { break }
            if let separator = arguments.first?.text, !separator.isEmpty {
                return .array(text.components(separatedBy: separator).map { .string($0) })
            }
            return .array(text.split(whereSeparator: \.isWhitespace).map { .string(String($0)) })
        case (.string(let text), "replace"):
            if arguments.count == 2, !arguments[0].text.isEmpty {
                return .string(text.replacingOccurrences(of: arguments[0].text, with: arguments[1].text))
            }
        case (.object(let members), "items"):
            return .array(members.map { .array([.string($0.key), $0.value]) })
        case (.object(let members), "keys"): return .array(members.map { .string($0.key) })
        case (.object(let members), "values"): return .array(members.map(\.value))
        case (.object(let members), "get"):
            if let key = arguments.first?.text {
                return members.first { $0.key == key }?.value ?? (arguments.count > 1 ? arguments[1] : .none)
            }
        default: break
        }
        throw TextError.unsupportedTemplate(construct: "the method .\(name)() on this value", line: line)
    }

    private static func strip(_ text: String, both: Bool) -> String {
        strip(text, left: both, right: both, characters: nil)
    }

    private static func strip(_ text: String, left: Bool, right: Bool, characters: String?) -> String {
        let set = characters.map { Set($0.unicodeScalars) }
        func goes(_ scalar: Unicode.Scalar) -> Bool {
            set?.contains(scalar) ?? scalar.properties.isWhitespace
        }
        var scalars = Substring(text).unicodeScalars
        if left { while let first = scalars.first, goes(first) { scalars.removeFirst() } }
        if right { while let last = scalars.last, goes(last) { scalars.removeLast() } }
        return String(Substring(scalars))
    }
}
