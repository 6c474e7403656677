/// An expression of a template.
///
/// Each kind is a class of its own: evaluation takes one small stack frame per level.
protocol JinjaExpression: AnyObject, Sendable {
    var line: Int { get }
    /// The levels of the tree.
    var depth: Int { get }
    func evaluate(_ run: JinjaRun) throws -> JinjaValue
}

/// An operator of an expression.
enum JinjaOperator: String, Sendable {
    case or, and, not
    case equal = "=="
    case notEqual = "!="
    case less = "<"
    case lessOrEqual = "<="
    case greater = ">"
    case greaterOrEqual = ">="
    case contained = "in"
    case notContained = "not in"
    case add = "+"
    case subtract = "-"
    case concatenate = "~"
    case multiply = "*"
    case divide = "/"
    case divideDown = "//"
    case remainder = "%"
    case power = "**"
}

/// The arguments of a call as written.
struct JinjaArgumentList: Sendable {
    var positional: [any JinjaExpression] = []
    var named: [(String, any JinjaExpression)] = []
    /// After `*`.
    var morePositional: (any JinjaExpression)?
    /// After `**`.
    var moreNamed: (any JinjaExpression)?

    var depth: Int {
        let plain = positional.reduce(0) { max($0, $1.depth) }
        let named = named.reduce(plain) { max($0, $1.1.depth) }
        return max(named, morePositional?.depth ?? 0, moreNamed?.depth ?? 0)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaArguments {
        var result = JinjaArguments()
        for argument in positional { result.positional.append(try argument.evaluate(run)) }
        for (name, argument) in named { result.named.append((name, try argument.evaluate(run))) }
        if let morePositional {
            result.positional += try run.elements(try morePositional.evaluate(run))
        }
        if let moreNamed {
            guard case .dictionary(let members) = try moreNamed.evaluate(run) else {
                throw run.failure("'**' needs a dictionary")
            }
            guard result.named.count + members.count <= 1000 else {
                throw run.failure("more than 1000 named arguments")
            }
            for (key, value) in zip(members.keys, members.values) {
                guard let name = key.text, !result.named.contains(where: { JinjaText.equal($0.name, name) })
                else {
                    throw run.failure("an argument appears twice, or its name is not a text")
                }
                result.named.append((name, value))
            }
        }
        return result
    }
}

/// A constant.
final class JinjaLiteral: JinjaExpression {
    enum Constant: Sendable {
        case none
        case bool(Bool)
        case int(Int)
        case double(Double)
        case string(String)
    }

    let value: Constant
    let line: Int
    let depth = 1

    init(value: Constant, line: Int) {
        (self.value, self.line) = (value, line)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.step(line)
        return switch value {
        case .none: .none
        case .bool(let value): .bool(value)
        case .int(let value): .int(value)
        case .double(let value): .double(value)
        case .string(let value): .string(value)
        }
    }
}

/// A variable.
final class JinjaName: JinjaExpression {
    let name: String
    let line: Int
    let depth = 1

    init(name: String, line: Int) {
        (self.name, self.line) = (name, line)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.step(line)
        return run.scope.value(of: name) ?? .undefined(name)
    }
}

/// The text of a block, to which the block's filters apply.
final class JinjaBlockText: JinjaExpression {
    let line: Int
    let depth = 1

    init(line: Int) { self.line = line }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue { .string(run.blockText) }
}

/// A list or a tuple.
final class JinjaSequence: JinjaExpression {
    let items: [any JinjaExpression]
    let isTuple: Bool
    let line: Int
    let depth: Int

    init(items: [any JinjaExpression], isTuple: Bool, line: Int) {
        (self.items, self.isTuple, self.line) = (items, isTuple, line)
        depth = 1 + items.reduce(0) { max($0, $1.depth) }
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var values: [JinjaValue] = []
        for item in items { values.append(try item.evaluate(run)) }
        run.leave()
        return isTuple ? try run.tuple(values) : try run.list(values)
    }
}

/// A dictionary.
final class JinjaDictionaryLiteral: JinjaExpression {
    let members: [(any JinjaExpression, any JinjaExpression)]
    let line: Int
    let depth: Int

    init(members: [(any JinjaExpression, any JinjaExpression)], line: Int) {
        (self.members, self.line) = (members, line)
        depth = 1 + members.reduce(0) { max($0, $1.0.depth, $1.1.depth) }
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var pairs: [(JinjaValue, JinjaValue)] = []
        for (key, value) in members { pairs.append((try key.evaluate(run), try value.evaluate(run))) }
        run.leave()
        return try run.dictionary(pairs)
    }
}

/// `not`, `-` or `+` before an operand.
final class JinjaUnary: JinjaExpression {
    let symbol: JinjaOperator
    let operand: any JinjaExpression
    let line: Int
    let depth: Int

    init(symbol: JinjaOperator, operand: any JinjaExpression, line: Int) {
        (self.symbol, self.operand, self.line) = (symbol, operand, line)
        depth = operand.depth + 1
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try operand.evaluate(run)
        run.leave()
        if symbol == .not { return .bool(try !run.isTrue(value)) }
        return try JinjaOperators.signed(value, isNegative: symbol == .subtract, run)
    }
}

/// Two operands with an arithmetic operator.
final class JinjaBinary: JinjaExpression {
    let symbol: JinjaOperator
    let left: any JinjaExpression
    let right: any JinjaExpression
    let line: Int
    let depth: Int

    init(symbol: JinjaOperator, left: any JinjaExpression, right: any JinjaExpression, line: Int) {
        (self.symbol, self.left, self.right, self.line) = (symbol, left, right, line)
        depth = max(left.depth, right.depth) + 1
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let a = try left.evaluate(run)
        let b = try right.evaluate(run)
        run.leave()
        run.line = line
        return try JinjaOperators.arithmetic(symbol, a, b, run)
    }
}

/// `and` or `or`, which give one of their operands.
final class JinjaLogic: JinjaExpression {
    let symbol: JinjaOperator
    let left: any JinjaExpression
    let right: any JinjaExpression
    let line: Int
    let depth: Int

    init(symbol: JinjaOperator, left: any JinjaExpression, right: any JinjaExpression, line: Int) {
        (self.symbol, self.left, self.right, self.line) = (symbol, left, right, line)
        depth = max(left.depth, right.depth) + 1
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var value = try left.evaluate(run)
        if try run.isTrue(value) == (symbol == .and) { value = try right.evaluate(run) }
        run.leave()
        return value
    }
}

/// `a ~ b ~ c`
final class JinjaConcatenation: JinjaExpression {
    let operands: [any JinjaExpression]
    let line: Int
    let depth: Int

    init(operands: [any JinjaExpression], line: Int) {
        (self.operands, self.line) = (operands, line)
        depth = 1 + operands.reduce(0) { max($0, $1.depth) }
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var text = ""
        for operand in operands {
            let value = try operand.evaluate(run)
            run.line = line
            text += try run.text(of: value)
        }
        run.leave()
        return .string(text)
    }
}

/// `a < b <= c`
final class JinjaComparison: JinjaExpression {
    let first: any JinjaExpression
    let others: [(JinjaOperator, any JinjaExpression)]
    let line: Int
    let depth: Int

    init(first: any JinjaExpression, others: [(JinjaOperator, any JinjaExpression)], line: Int) {
        (self.first, self.others, self.line) = (first, others, line)
        depth = 1 + others.reduce(first.depth) { max($0, $1.1.depth) }
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var left = try first.evaluate(run)
        var result = true
        for (symbol, operand) in others {
            let right = try operand.evaluate(run)
            run.line = line
            result = try JinjaOperators.compare(symbol, left, right, run)
            if !result { break }
            left = right
        }
        run.leave()
        return .bool(result)
    }
}

/// `value if condition else otherwise`
final class JinjaConditional: JinjaExpression {
    let condition: any JinjaExpression
    let value: any JinjaExpression
    let otherwise: (any JinjaExpression)?
    let line: Int
    let depth: Int

    init(
        condition: any JinjaExpression, value: any JinjaExpression, otherwise: (any JinjaExpression)?,
        line: Int
    ) {
        (self.condition, self.value, self.otherwise, self.line) = (condition, value, otherwise, line)
        depth = 1 + max(condition.depth, value.depth, otherwise?.depth ?? 0)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        var result = JinjaValue.undefined("")
        if try run.isTrue(try condition.evaluate(run)) {
            result = try value.evaluate(run)
        } else if let otherwise {
            result = try otherwise.evaluate(run)
        }
        run.leave()
        return result
    }
}

/// `value.name`
final class JinjaAttribute: JinjaExpression {
    let value: any JinjaExpression
    let name: String
    let line: Int
    let depth: Int

    init(value: any JinjaExpression, name: String, line: Int) {
        (self.value, self.name, self.line) = (value, name, line)
        depth = value.depth + 1
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try value.evaluate(run)
        run.leave()
        run.line = line
        return try JinjaAccess.attribute(name, of: value, run)
    }
}

/// `value[index]`
final class JinjaItem: JinjaExpression {
    let value: any JinjaExpression
    let index: any JinjaExpression
    let line: Int
    let depth: Int

    init(value: any JinjaExpression, index: any JinjaExpression, line: Int) {
        (self.value, self.index, self.line) = (value, index, line)
        depth = max(value.depth, index.depth) + 1
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try value.evaluate(run)
        let index = try index.evaluate(run)
        run.leave()
        run.line = line
        return try JinjaAccess.item(index, of: value, run)
    }
}

/// `value[start:stop:step]`
final class JinjaSlice: JinjaExpression {
    let value: any JinjaExpression
    let start: (any JinjaExpression)?
    let stop: (any JinjaExpression)?
    let step: (any JinjaExpression)?
    let line: Int
    let depth: Int

    init(
        value: any JinjaExpression, start: (any JinjaExpression)?, stop: (any JinjaExpression)?,
        step: (any JinjaExpression)?, line: Int
    ) {
        (self.value, self.start, self.stop, self.step, self.line) = (value, start, stop, step, line)
        depth = 1 + max(value.depth, start?.depth ?? 0, stop?.depth ?? 0, step?.depth ?? 0)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try value.evaluate(run)
        let start = try start?.evaluate(run) ?? .none
        let stop = try stop?.evaluate(run) ?? .none
        let step = try step?.evaluate(run) ?? .none
        run.leave()
        run.line = line
        return try JinjaAccess.slice(value, start, stop, step, run)
    }
}

/// `function(arguments)`
final class JinjaCall: JinjaExpression {
    let function: any JinjaExpression
    let arguments: JinjaArgumentList
    let line: Int
    let depth: Int

    init(function: any JinjaExpression, arguments: JinjaArgumentList, line: Int) {
        (self.function, self.arguments, self.line) = (function, arguments, line)
        depth = 1 + max(function.depth, arguments.depth)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue { try call(run, caller: nil) }

    /// Calls, with the body of a `call` block as `caller`.
    func call(_ run: JinjaRun, caller: JinjaMacro?) throws -> JinjaValue {
        try run.enter(line)
        let function = try function.evaluate(run)
        var arguments = try arguments.evaluate(run)
        if let caller { arguments.named.append(("caller", .macro(caller))) }
        run.line = line
        let result = try run.call(function, arguments)
        run.leave()
        return result
    }
}

/// `value | name(arguments)`
final class JinjaFilter: JinjaExpression {
    let value: any JinjaExpression
    let name: String
    let arguments: JinjaArgumentList
    let line: Int
    let depth: Int

    init(value: any JinjaExpression, name: String, arguments: JinjaArgumentList, line: Int) {
        (self.value, self.name, self.arguments, self.line) = (value, name, arguments, line)
        depth = 1 + max(value.depth, arguments.depth)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try value.evaluate(run)
        let arguments = try arguments.evaluate(run)
        run.line = line
        let result = try JinjaFilters.apply(name, to: value, arguments, run)
        run.leave()
        return result
    }
}

/// `value is name(arguments)`
final class JinjaTest: JinjaExpression {
    let value: any JinjaExpression
    let name: String
    let arguments: JinjaArgumentList
    let line: Int
    let depth: Int

    init(value: any JinjaExpression, name: String, arguments: JinjaArgumentList, line: Int) {
        (self.value, self.name, self.arguments, self.line) = (value, name, arguments, line)
        depth = 1 + max(value.depth, arguments.depth)
    }

    func evaluate(_ run: JinjaRun) throws -> JinjaValue {
        try run.enter(line)
        let value = try value.evaluate(run)
        let arguments = try arguments.evaluate(run)
        run.leave()
        run.line = line
        return .bool(try JinjaTests.test(name, value, arguments, run))
    }
}
