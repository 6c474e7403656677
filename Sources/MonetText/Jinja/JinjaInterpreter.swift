import Foundation
import MonetFoundation

/// Runs a parsed template.
struct JinjaInterpreter {
    private var scopes: [[String: JinjaValue]]
    private var steps = 0
    /// A template that takes more steps than this is assumed not to end.
    private static let maximumSteps = 1_000_000

    init(variables: [String: JinjaValue]) {
        scopes = [variables]
    }

    mutating func run(_ nodes: [JinjaNode], into out: inout String) throws {
        for node in nodes {
            switch node {
            case .text(let text): out += text
            case .output(let expression): out += try evaluate(expression).text
            case .branch(let branches):
                for branch in branches {
                    if let condition = branch.condition, !(try evaluate(condition).isTrue) { continue }
                    try run(branch.body, into: &out)
                    break
                }
            case .loop(let names, let over, let filter, let body, let otherwise):
                try runLoop(names, over, filter, body, otherwise, into: &out)
            case .set(let name, let attribute, let value, let line):
                let value = try evaluate(value)
                if let attribute {
                    guard case .namespace(let namespace) = lookUp(name) else {
                        throw TextError.templateFailure(reason: "'\(name)' is not a namespace", line: line)
                    }
                    namespace.members[attribute] = value
                } else {
                    scopes[scopes.count - 1][name] = value
                }
            }
        }
    }

    private mutating func runLoop(
        _ names: [String], _ over: JinjaExpression, _ filter: JinjaExpression?, _ body: [JinjaNode],
        _ otherwise: [JinjaNode], into out: inout String
    ) throws {
        let line = over.line
        func bind(_ item: JinjaValue) throws -> [String: JinjaValue] {
            if names.count == 1 { return [names[0]: item] }
            guard case .array(let parts) = item, parts.count == names.count else {
                throw TextError.templateFailure(
                    reason: "an item does not unpack into \(names.count) variables", line: line)
            }
            return Dictionary(zip(names, parts), uniquingKeysWith: { $1 })
        }
        var items = try elements(try evaluate(over), line: line)
        if let filter {
            items = try items.filter { item in
                scopes.append(try bind(item))
                defer { scopes.removeLast() }
                return try evaluate(filter).isTrue
            }
        }
        if items.isEmpty { return try run(otherwise, into: &out) }
        for (index, item) in items.enumerated() {
            var scope = try bind(item)
            scope["loop"] = .object([
                ("index", .int(index + 1)), ("index0", .int(index)), ("first", .bool(index == 0)),
                ("last", .bool(index == items.count - 1)), ("length", .int(items.count)),
                ("revindex", .int(items.count - index)), ("revindex0", .int(items.count - index - 1)),
                ("previtem", index > 0 ? items[index - 1] : .undefined),
                ("nextitem", index + 1 < items.count ? items[index + 1] : .undefined),
            ])
            scopes.append(scope)
            defer { scopes.removeLast() }
            try run(body, into: &out)
        }
    }

    private func lookUp(_ name: String) -> JinjaValue {
        for scope in scopes.reversed() { if let value = scope[name] { return value } }
        return .undefined
    }

    private func elements(_ value: JinjaValue, line: Int) throws -> [JinjaValue] {
        switch value {
        case .array(let values): return values
        case .object(let members): return members.map { .string($0.key) }
        case .string(let text): return text.unicodeScalars.map { .string(String($0)) }
        case .undefined: return []
        default: throw TextError.templateFailure(reason: "a value that cannot be looped over", line: line)
        }
    }

    private mutating func evaluate(_ expression: JinjaExpression) throws -> JinjaValue {
        steps += 1
        let line = expression.line
        func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }
        guard steps < Self.maximumSteps else { throw failure("it does not come to an end") }
        switch expression.kind {
        case .literal(let value): return value
        case .name(let name): return lookUp(name)
        case .list(let items): return .array(try items.map { try evaluate($0) })
        case .dictionary(let pairs):
            return .object(try pairs.map { (try evaluate($0.0).text, try evaluate($0.1)) })
        case .attribute(let base, let name): return try member(try evaluate(base), name, line: line)
        case .item(let base, let index):
            let base = try evaluate(base)
            let index = try evaluate(index)
            if case .string(let key) = index { return try member(base, key, line: line) }
            guard case .int(let place) = index else {
                throw failure("an index that is neither text nor integer")
            }
            let items = try elements(base, line: line)
            let wrapped = place < 0 ? place + items.count : place
            return items.indices.contains(wrapped) ? items[wrapped] : .undefined
        case .slice(let base, let from, let to, let step):
            return try slice(
                evaluate(base), try from.map { try evaluate($0) }, try to.map { try evaluate($0) },
                try step.map { try evaluate($0) }, line: line)
        case .call(let callee, let arguments, let named):
            return try call(callee, arguments, named, line: line)
        case .filter(let base, let name, let arguments):
            return try JinjaFunctions.filter(
                name, try evaluate(base), try arguments.map { try evaluate($0) }, line: line)
        case .test(let base, let name, let arguments, let negated):
            let result = try JinjaFunctions.test(
                name, try evaluate(base), try arguments.map { try evaluate($0) }, line: line)
            return .bool(result != negated)
        case .unary(let name, let operand):
            let value = try evaluate(operand)
            if name == "not" { return .bool(!value.isTrue) }
            if name == "bool" { return .bool(value.isTrue) }
            switch value {
            case .int(let number): return .int(-number)
            case .double(let number): return .double(-number)
            default: throw failure("'-' needs a number")
            }
        case .binary("and", let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? try evaluate(right) : value
        case .binary("or", let left, let right):
            let value = try evaluate(left)
            return value.isTrue ? value : try evaluate(right)
        case .binary(let symbol, let left, let right):
            return try JinjaFunctions.binary(symbol, try evaluate(left), try evaluate(right), line: line)
        case .conditional(let condition, let value, let otherwise):
            if try evaluate(condition).isTrue { return try evaluate(value) }
            return try otherwise.map { try evaluate($0) } ?? .undefined
        }
    }

    private func member(_ base: JinjaValue, _ name: String, line: Int) throws -> JinjaValue {
        switch base {
        case .object(let members): return members.first { $0.key == name }?.value ?? .undefined
        case .namespace(let namespace): return namespace.members[name] ?? .undefined
        case .undefined:
            throw TextError.templateFailure(reason: "'\(name)' of an undefined value", line: line)
        default: return .undefined
        }
    }

    private func slice(
        _ base: JinjaValue, _ from: JinjaValue?, _ to: JinjaValue?, _ step: JinjaValue?, line: Int
    ) throws -> JinjaValue {
        let items = try elements(base, line: line)
        func integer(_ value: JinjaValue?) throws -> Int? {
            switch value {
            case nil, .some(.none): return nil
            case .int(let number): return number
            default: throw TextError.templateFailure(reason: "a slice needs integers", line: line)
            }
        }
        let step = try integer(step) ?? 1
        guard step != 0, abs(step) < 1 << 31 else {
            throw TextError.templateFailure(reason: "a slice with step 0", line: line)
        }
        func clamp(_ value: Int, _ low: Int, _ high: Int) -> Int {
            min(max(value < 0 ? max(value, -items.count - 1) + items.count : value, low), high)
        }
        let (from, to) = (try integer(from), try integer(to))
        let picked: [JinjaValue]
        if step > 0 {
            let start = clamp(from ?? 0, 0, items.count)
            let end = clamp(to ?? items.count, 0, items.count)
            picked = Swift.stride(from: start, to: end, by: step).map { items[$0] }
        } else {
            let start = from.map { clamp($0, -1, items.count - 1) } ?? items.count - 1
            let end = to.map { clamp($0, -1, items.count - 1) } ?? -1
            picked = Swift.stride(from: start, to: end, by: step).map { items[$0] }
        }
        if case .string = base { return .string(picked.map(\.text).joined()) }
        return .array(picked)
    }

    private mutating func call(
        _ callee: JinjaExpression, _ arguments: [JinjaExpression], _ named: [(String, JinjaExpression)],
        line: Int
    ) throws -> JinjaValue {
        let values = try arguments.map { try evaluate($0) }
        let namedValues = try named.map { ($0.0, try evaluate($0.1)) }
        switch callee.kind {
        case .name("raise_exception"):
            throw TextError.templateFailure(reason: values.first?.text ?? "the template refuses", line: line)
        case .name("namespace"):
            return .namespace(JinjaNamespace(Dictionary(namedValues, uniquingKeysWith: { $1 })))
        case .name("dict"): return .object(namedValues.map { ($0.0, $0.1) })
        case .name("range"): return try JinjaFunctions.range(values, line: line)
        case .name(let name):
            throw TextError.unsupportedTemplate(construct: "the function \(name)()", line: line)
        case .attribute(let base, let method):
            guard namedValues.isEmpty else {
                throw TextError.unsupportedTemplate(construct: "named arguments of .\(method)()", line: line)
            }
            return try JinjaFunctions.method(method, try evaluate(base), values, line: line)
        default: throw TextError.unsupportedTemplate(construct: "a call of this kind", line: line)
        }
    }
}
