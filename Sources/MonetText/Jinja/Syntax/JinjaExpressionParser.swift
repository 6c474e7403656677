/// Expressions, with the precedence of Jinja2.
extension JinjaParser {
    /// The words of operators, which name no variables here.
    static let keywords: Set<String> = ["and", "or", "not", "in", "is", "if", "else"]
    /// Brackets and prefix operators inside each other beyond this many levels are refused.
    private static let maximumExpressionNesting = 20
    /// Expressions whose tree is deeper than this are refused.
    private static let maximumDepth = 200

    func checkNesting() throws {
        guard expressionNesting <= Self.maximumExpressionNesting else {
            throw failure("more than \(Self.maximumExpressionNesting) levels of brackets")
        }
    }

    /// Refuses trees that are too deep to be evaluated or released.
    private func checked(_ expression: any JinjaExpression) throws -> any JinjaExpression {
        guard expression.depth <= Self.maximumDepth else {
            throw failure("an expression of more than \(Self.maximumDepth) levels")
        }
        return expression
    }

    // MARK: Tuples and conditions

    var isAtTupleEnd: Bool { current == .blockEnd || current == .outputEnd || current == .symbol(")") }

    /// An expression, or a tuple of expressions with commas between them.
    mutating func parseTuple(
        withConditions: Bool = true, inBrackets: Bool = false
    ) throws -> any JinjaExpression {
        let line = line
        var items: [any JinjaExpression] = []
        var isTuple = false
        while true {
            if isAtTupleEnd { break }
            items.append(try parseExpression(withConditions: withConditions))
            guard take(",") else { break }
            isTuple = true
        }
        if !isTuple, let item = items.first { return item }
        guard isTuple || inBrackets else { throw unexpected() }
        return try checked(JinjaSequence(items: items, isTuple: true, line: line))
    }

    /// An expression, with `a if b else c` unless `withConditions` is false.
    mutating func parseExpression(withConditions: Bool = true) throws -> any JinjaExpression {
        expressionNesting += 1
        defer { expressionNesting -= 1 }
        try checkNesting()
        let line = line
        let known = unknownNames.count
        var value = try parseOperators(from: 1)
        guard withConditions else { return value }
        while takeName("if") {
            let condition = try parseOperators(from: 1)
            let otherwise = takeName("else") ? try parseExpression() : nil
            value = try checked(
                JinjaConditional(condition: condition, value: value, otherwise: otherwise, line: line))
            unknownNames.removeSubrange(known...)
        }
        return value
    }

    // MARK: Operators

    private static let operators: [String: (JinjaOperator, level: Int)] = [
        "==": (.equal, 4), "!=": (.notEqual, 4), "<": (.less, 4), "<=": (.lessOrEqual, 4), ">": (.greater, 4),
        ">=": (.greaterOrEqual, 4), "+": (.add, 5), "-": (.subtract, 5), "~": (.concatenate, 6),
        "*": (.multiply, 7), "/": (.divide, 7), "//": (.divideDown, 7), "%": (.remainder, 7),
        "**": (.power, 8),
    ]

    private var currentOperator: (symbol: JinjaOperator, level: Int)? {
        switch current {
        case .symbol(let symbol)?: return Self.operators[symbol]
        case .name("or")?: return (.or, 1)
        case .name("and")?: return (.and, 2)
        case .name("in")?: return (.contained, 4)
        case .name("not")? where next == .name("in"): return (.notContained, 4)
        default: return nil
        }
    }

    private mutating func takeOperator(_ symbol: JinjaOperator) {
        position += symbol == .notContained ? 2 : 1
    }

    /// Operators that bind at least as tightly as `level`: `or`, `and`, `not`, comparisons, `+ -`, `~`,
    /// `* / // %`, `**`.
    private mutating func parseOperators(from level: Int) throws -> any JinjaExpression {
        var left: any JinjaExpression
        if level <= 3, current == .name("not") {
            let line = line
            position += 1
            expressionNesting += 1
            defer { expressionNesting -= 1 }
            try checkNesting()
            left = try checked(JinjaUnary(symbol: .not, operand: try parseOperators(from: 3), line: line))
        } else {
            left = try parseUnary()
        }
        while let (symbol, found) = currentOperator, found >= level {
            left = try checked(try parseRight(of: left, symbol, found))
        }
        return left
    }

    private mutating func parseRight(of left: any JinjaExpression, _ symbol: JinjaOperator, _ level: Int)
        throws
        -> any JinjaExpression
    {
        let line = line
        guard level == 4 || level == 6 else {
            takeOperator(symbol)
            let right = try parseOperators(from: level + 1)
            return symbol == .or || symbol == .and
                ? JinjaLogic(symbol: symbol, left: left, right: right, line: line)
                : JinjaBinary(symbol: symbol, left: left, right: right, line: line)
        }
        // `a < b < c` and `a ~ b ~ c` are one operation each.
        var operands: [(JinjaOperator, any JinjaExpression)] = []
        while let (symbol, found) = currentOperator, found == level {
            takeOperator(symbol)
            operands.append((symbol, try parseOperators(from: level + 1)))
        }
        return level == 4
            ? JinjaComparison(first: left, others: operands, line: line)
            : JinjaConcatenation(operands: [left] + operands.map(\.1), line: line)
    }

    private mutating func parseUnary(withFilters: Bool = true) throws -> any JinjaExpression {
        let line = line
        var value: any JinjaExpression
        if current == .symbol("-") || current == .symbol("+") {
            let symbol: JinjaOperator = current == .symbol("-") ? .subtract : .add
            position += 1
            expressionNesting += 1
            defer { expressionNesting -= 1 }
            try checkNesting()
            value = try checked(
                JinjaUnary(symbol: symbol, operand: try parseUnary(withFilters: false), line: line))
        } else {
            value = try parsePrimary()
        }
        value = try parsePostfix(of: value)
        while withFilters {
            if take("|") {
                value = try parseFilter(of: value)
            } else if current == .name("is") {
                value = try parseTest(of: value)
            } else if current == .symbol("(") {
                value = try parseCall(of: value)
            } else {
                break
            }
        }
        return value
    }

    // MARK: Postfixes

    private mutating func parsePostfix(of value: any JinjaExpression) throws -> any JinjaExpression {
        var value = value
        while true {
            let line = line
            if take(".") {
                if case .int(let index)? = current {
                    position += 1
                    value = JinjaItem(
                        value: value, index: JinjaLiteral(value: .int(index), line: line), line: line)
                } else {
                    value = JinjaAttribute(value: value, name: try expectName("an attribute"), line: line)
                }
            } else if take("[") {
                value = try parseSubscript(of: value, line)
            } else if current == .symbol("(") {
                value = try parseCall(of: value)
            } else {
                return value
            }
            value = try checked(value)
        }
    }

    private mutating func parseCall(of value: any JinjaExpression) throws -> any JinjaExpression {
        let line = line
        return try checked(JinjaCall(function: value, arguments: try parseArguments(), line: line))
    }

    private mutating func parseSubscript(of value: any JinjaExpression, _ line: Int) throws
        -> any JinjaExpression
    {
        var parts: [(any JinjaExpression)?] = []
        var isSlice = false
        if current != .symbol(":") { parts.append(try parseExpression()) }
        if current == .symbol(":") {
            isSlice = true
            if parts.isEmpty { parts.append(nil) }
            while parts.count < 3, take(":") {
                let isEmpty = current == .symbol(":") || current == .symbol("]") || current == .symbol(",")
                parts.append(isEmpty ? nil : try parseExpression())
            }
        }
        if current == .symbol(",") {
            throw TextError.unsupportedTemplate(construct: "an index with a comma", line: line)
        }
        try expect("]")
        if !isSlice, let index = parts[0] { return JinjaItem(value: value, index: index, line: line) }
        return JinjaSlice(
            value: value, start: parts[0], stop: parts.count > 1 ? parts[1] : nil,
            step: parts.count > 2 ? parts[2] : nil, line: line)
    }

    mutating func parseFilter(of value: any JinjaExpression) throws -> any JinjaExpression {
        let line = line
        let name = try expectName("a filter's name")
        if current == .symbol(".") { throw failure("no filter has a point in its name") }
        let isOwn = environment.replacesExpressions && name == JinjaFilters.replacement
        if !isOwn, !JinjaFilters.names.contains(name) { unknownNames.append(("the filter '\(name)'", line)) }
        let arguments = current == .symbol("(") ? try parseArguments() : JinjaArgumentList()
        return try checked(JinjaFilter(value: value, name: name, arguments: arguments, line: line))
    }

    private mutating func parseTest(of value: any JinjaExpression) throws -> any JinjaExpression {
        let line = line
        position += 1
        let isNegated = takeName("not")
        let name = try expectName("a test's name")
        if current == .symbol(".") { throw failure("no test has a point in its name") }
        if !JinjaTests.names.contains(name) { unknownNames.append(("the test '\(name)'", line)) }
        var arguments = JinjaArgumentList()
        switch current {
        case .symbol("(")?: arguments = try parseArguments()
        case .name("else")?, .name("or")?, .name("and")?: break
        case .name("is")?: throw failure("a test of a test")
        case .name(let word)? where Self.keywords.contains(word):
            // Jinja2 takes this word for a variable, the argument of the test.
            throw failure("'\(word)' after a test")
        case .name?, .string?, .int?, .double?, .symbol("[")?, .symbol("{")?:
            arguments.positional = [try parsePostfix(of: try parsePrimary())]
        default: break
        }
        let test = try checked(JinjaTest(value: value, name: name, arguments: arguments, line: line))
        return isNegated ? try checked(JinjaUnary(symbol: .not, operand: test, line: line)) : test
    }

    private mutating func parseArguments() throws -> JinjaArgumentList {
        var arguments = JinjaArgumentList()
        try expect("(")
        var isFirst = true
        while !take(")") {
            if !isFirst {
                try expect(",")
                if take(")") { break }
            }
            isFirst = false
            guard arguments.named.count < 1000 else { throw failure("more than 1000 named arguments") }
            let hasNoStars = arguments.morePositional == nil && arguments.moreNamed == nil
            if take("*") {
                guard hasNoStars else { throw failure("'*' after '*' or '**'") }
                arguments.morePositional = try parseExpression()
            } else if take("**") {
                guard arguments.moreNamed == nil else { throw failure("'**' after '**'") }
                arguments.moreNamed = try parseExpression()
            } else if case .name(let name)? = current, next == .symbol("=") {
                guard arguments.moreNamed == nil else { throw failure("an argument after '**'") }
                guard !arguments.named.contains(where: { $0.0 == name }) else {
                    throw failure("the argument '\(name)' appears twice")
                }
                position += 2
                arguments.named.append((name, try parseExpression()))
            } else {
                guard hasNoStars, arguments.named.isEmpty else {
                    throw failure("an argument after named ones")
                }
                arguments.positional.append(try parseExpression())
            }
        }
        return arguments
    }

    // MARK: Primaries

    private mutating func parsePrimary() throws -> any JinjaExpression {
        let line = line
        guard let token = current else { throw unexpected() }
        position += 1
        switch token {
        case .string(var text):
            // Adjacent strings are one.
            while case .string(let more)? = current {
                text += more
                position += 1
            }
            return JinjaLiteral(value: .string(text), line: line)
        case .int(let value): return JinjaLiteral(value: .int(value), line: line)
        case .double(let value): return JinjaLiteral(value: .double(value), line: line)
        case .name("true"), .name("True"): return JinjaLiteral(value: .bool(true), line: line)
        case .name("false"), .name("False"): return JinjaLiteral(value: .bool(false), line: line)
        case .name("none"), .name("None"): return JinjaLiteral(value: .none, line: line)
        case .name(let name):
            guard !Self.keywords.contains(name) else {
                position -= 1
                throw unexpected()
            }
            guard name != "self" else {
                throw TextError.unsupportedTemplate(construct: "the variable 'self'", line: line)
            }
            noteUse(name, isStore: false)
            return JinjaName(name: name, line: line)
        case .symbol("("):
            let value = try parseTuple(inBrackets: true)
            try expect(")")
            return value
        case .symbol("["): return try parseList(line)
        case .symbol("{"): return try parseDictionary(line)
        default:
            position -= 1
            throw unexpected()
        }
    }

    private mutating func parseList(_ line: Int) throws -> any JinjaExpression {
        var items: [any JinjaExpression] = []
        while !take("]") {
            if !items.isEmpty {
                try expect(",")
                if take("]") { break }
            }
            items.append(try parseExpression())
        }
        return try checked(JinjaSequence(items: items, isTuple: false, line: line))
    }

    private mutating func parseDictionary(_ line: Int) throws -> any JinjaExpression {
        var members: [(any JinjaExpression, any JinjaExpression)] = []
        while !take("}") {
            if !members.isEmpty {
                try expect(",")
                if take("}") { break }
            }
            let key = try parseExpression()
            try expect(":")
            members.append((key, try parseExpression()))
        }
        return try checked(JinjaDictionaryLiteral(members: members, line: line))
    }
}
