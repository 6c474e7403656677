/// A statement of a template.
indirect enum JinjaNode {
    case text(String)
    case output(JinjaExpression)
    case branch([(condition: JinjaExpression?, body: [JinjaNode])])
    case loop(
        names: [String], over: JinjaExpression, filter: JinjaExpression?, body: [JinjaNode],
        otherwise: [JinjaNode])
    case set(name: String, attribute: String?, value: JinjaExpression, line: Int)
}

/// An expression with its line number.
struct JinjaExpression {
    indirect enum Kind {
        case literal(JinjaValue)
        case name(String)
        case list([JinjaExpression])
        case dictionary([(JinjaExpression, JinjaExpression)])
        case attribute(JinjaExpression, String)
        case item(JinjaExpression, JinjaExpression)
        case slice(JinjaExpression, JinjaExpression?, JinjaExpression?, JinjaExpression?)
        case call(JinjaExpression, [JinjaExpression], [(String, JinjaExpression)])
        case filter(JinjaExpression, String, [JinjaExpression])
        case test(JinjaExpression, String, [JinjaExpression], negated: Bool)
        case unary(String, JinjaExpression)
        case binary(String, JinjaExpression, JinjaExpression)
        case conditional(JinjaExpression, JinjaExpression, JinjaExpression?)
    }
    let kind: Kind
    let line: Int
}

/// Builds the syntax tree of a template. Errors name unsupported constructs.
struct JinjaParser {
    private let tokens: [(token: JinjaToken, line: Int)]
    private var position = 0
    private var depth = 0

    init(_ tokens: [(token: JinjaToken, line: Int)]) {
        self.tokens = tokens
    }

    private var current: JinjaToken? { position < tokens.count ? tokens[position].token : nil }
    private var line: Int { position < tokens.count ? tokens[position].line : tokens.last?.line ?? 1 }

    private func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }

    private mutating func take(_ symbol: String) -> Bool {
        if current == .symbol(symbol) {
            position += 1
            return true
        }
        return false
    }

    private mutating func takeName(_ name: String) -> Bool {
        if current == .name(name) {
            position += 1
            return true
        }
        return false
    }

    private mutating func expect(_ token: JinjaToken, _ what: String) throws {
        guard current == token else { throw failure("expected \(what)") }
        position += 1
    }

    private mutating func name(_ what: String) throws -> String {
        guard case .name(let name) = current else { throw failure("expected \(what)") }
        position += 1
        return name
    }

    mutating func parse() throws -> [JinjaNode] {
        let (nodes, end) = try parseBody(until: [])
        if let end { throw failure("unexpected {% \(end) %}") }
        return nodes
    }

    /// Statements up to one of the given keywords, which is consumed.
    private mutating func parseBody(until ends: Set<String>) throws -> ([JinjaNode], String?) {
        depth += 1
        defer { depth -= 1 }
        guard depth < 64 else { throw failure("more than 64 levels of nesting") }
        var nodes: [JinjaNode] = []
        while let token = current {
            position += 1
            switch token {
            case .text(let text): nodes.append(.text(text))
            case .beginOutput:
                nodes.append(.output(try parseExpression()))
                try expect(.endOutput, "}}")
            case .beginStatement:
                let keyword = try name("a statement")
                if ends.contains(keyword) { return (nodes, keyword) }
                if let node = try parseStatement(keyword) { nodes.append(node) }
            default: throw failure("text outside a tag")
            }
        }
        if !ends.isEmpty { throw failure("expected {% \(ends.sorted().joined(separator: " %} or {% ")) %}") }
        return (nodes, nil)
    }

    private mutating func parseStatement(_ keyword: String) throws -> JinjaNode? {
        switch keyword {
        case "if": return try parseIf()
        case "for": return try parseFor()
        case "set": return try parseSet()
        case "generation", "endgeneration":
            // Hugging Face uses it to mark the assistant's text for training; it prints nothing.
            try expect(.endStatement, "%}")
            return nil
        case "else", "elif", "endif", "endfor", "endset": throw failure("unexpected {% \(keyword) %}")
        default: throw TextError.unsupportedTemplate(construct: "the statement {% \(keyword) %}", line: line)
        }
    }

    private mutating func parseIf() throws -> JinjaNode {
        var branches: [(JinjaExpression?, [JinjaNode])] = []
        var condition: JinjaExpression? = try parseExpression()
        try expect(.endStatement, "%}")
        while true {
            let isElse = condition == nil
            let (body, end) = try parseBody(until: isElse ? ["endif"] : ["elif", "else", "endif"])
            branches.append((condition, body))
            condition = end == "elif" ? try parseExpression() : nil
            try expect(.endStatement, "%}")
            if end == "endif" { return .branch(branches) }
        }
    }

    private mutating func parseFor() throws -> JinjaNode {
        var names = [try name("a loop variable")]
        while take(",") { names.append(try name("a loop variable")) }
        guard takeName("in") else { throw failure("expected 'in'") }
        let sequence = try parseOr()
        let filter = takeName("if") ? try parseOr() : nil
        if takeName("recursive") {
            throw TextError.unsupportedTemplate(construct: "a recursive loop", line: line)
        }
        try expect(.endStatement, "%}")
        var (body, end) = try parseBody(until: ["else", "endfor"])
        try expect(.endStatement, "%}")
        var otherwise: [JinjaNode] = []
        if end == "else" {
            (otherwise, end) = try parseBody(until: ["endfor"])
            try expect(.endStatement, "%}")
        }
        return .loop(names: names, over: sequence, filter: filter, body: body, otherwise: otherwise)
    }

    private mutating func parseSet() throws -> JinjaNode {
        let line = line
        let target = try name("a variable")
        let attribute = take(".") ? try name("an attribute") : nil
        if current == .symbol(",") {
            throw TextError.unsupportedTemplate(construct: "setting several variables", line: line)
        }
        guard take("=") else {
            throw TextError.unsupportedTemplate(construct: "a {% set %} block", line: line)
        }
        let value = try parseExpression()
        try expect(.endStatement, "%}")
        return .set(name: target, attribute: attribute, value: value, line: line)
    }

    // MARK: Expressions, loosest binding first

    private mutating func parseExpression() throws -> JinjaExpression {
        depth += 1
        defer { depth -= 1 }
        guard depth < 64 else { throw failure("more than 64 levels of nesting") }
        let line = line
        let value = try parseOr()
        guard takeName("if") else { return value }
        let condition = try parseOr()
        let otherwise = takeName("else") ? try parseExpression() : nil
        return JinjaExpression(kind: .conditional(condition, value, otherwise), line: line)
    }

    private mutating func parseOr() throws -> JinjaExpression {
        var left = try parseAnd()
        while takeName("or") {
            left = JinjaExpression(kind: .binary("or", left, try parseAnd()), line: left.line)
        }
        return left
    }

    private mutating func parseAnd() throws -> JinjaExpression {
        var left = try parseNot()
        while takeName("and") {
            left = JinjaExpression(kind: .binary("and", left, try parseNot()), line: left.line)
        }
        return left
    }

    private mutating func parseNot() throws -> JinjaExpression {
        let line = line
        var count = 0
        while takeName("not") { count += 1 }
        let operand = try parseComparison()
        return count % 2 == 1
            ? JinjaExpression(kind: .unary("not", operand), line: line)
            : count > 0 ? JinjaExpression(kind: .unary("bool", operand), line: line) : operand
    }

    private mutating func parseComparison() throws -> JinjaExpression {
        var left = try parseSum()
        var previous: JinjaExpression?
        while true {
            var symbol: String?
            if case .symbol(let found) = current, ["==", "!=", "<", ">", "<=", ">="].contains(found) {
                position += 1
                symbol = found
            } else if takeName("in") {
                symbol = "in"
            } else if current == .name("not"), position + 1 < tokens.count,
                tokens[position + 1].token == .name("in")
            {
                position += 2
                symbol = "not in"
            }
            guard let symbol else { return left }
            let right = try parseSum()
            let comparison = JinjaExpression(kind: .binary(symbol, previous ?? left, right), line: left.line)
            // a < b < c means a < b and b < c.
            left =
                previous == nil
                ? comparison : JinjaExpression(kind: .binary("and", left, comparison), line: left.line)
            previous = right
        }
    }

    private mutating func parseSum() throws -> JinjaExpression {
        try parseChain(["+", "-", "~"]) { try $0.parseProduct() }
    }

    private mutating func parseProduct() throws -> JinjaExpression {
        try parseChain(["*", "/", "//", "%"]) { try $0.parseUnary() }
    }

    private mutating func parseChain(
        _ symbols: Set<String>, _ operand: (inout JinjaParser) throws -> JinjaExpression
    ) throws -> JinjaExpression {
        var left = try operand(&self)
        while case .symbol(let symbol) = current, symbols.contains(symbol) {
            position += 1
            left = JinjaExpression(kind: .binary(symbol, left, try operand(&self)), line: left.line)
        }
        return left
    }

    private mutating func parseUnary() throws -> JinjaExpression {
        let line = line
        if take("-") { return JinjaExpression(kind: .unary("-", try parsePostfix()), line: line) }
        _ = take("+")
        return try parsePostfix()
    }

    private mutating func parsePostfix() throws -> JinjaExpression {
        var value = try parsePrimary()
        while true {
            let line = line
            if take(".") {
                value = JinjaExpression(kind: .attribute(value, try name("an attribute")), line: line)
            } else if take("[") {
                value = try parseSubscript(of: value, line: line)
            } else if take("(") {
                let (positional, named) = try parseArguments()
                value = JinjaExpression(kind: .call(value, positional, named), line: line)
            } else if take("|") {
                let filter = try name("a filter")
                let arguments = take("(") ? try parseArguments().positional : []
                value = JinjaExpression(kind: .filter(value, filter, arguments), line: line)
            } else if takeName("is") {
                let negated = takeName("not")
                let test = try name("a test")
                var arguments: [JinjaExpression] = []
                if take("(") { arguments = try parseArguments().positional }
                value = JinjaExpression(kind: .test(value, test, arguments, negated: negated), line: line)
            } else {
                return value
            }
        }
    }

    private mutating func parseSubscript(of value: JinjaExpression, line: Int) throws -> JinjaExpression {
        var parts: [JinjaExpression?] = [nil]
        while !take("]") {
            if take(":") {
                parts.append(nil)
            } else {
                guard parts[parts.count - 1] == nil else { throw failure("expected ']'") }
                parts[parts.count - 1] = try parseExpression()
            }
            guard parts.count <= 3 else { throw failure("expected ']'") }
        }
        if parts.count == 1 {
            guard let index = parts[0] else { throw failure("expected an index") }
            return JinjaExpression(kind: .item(value, index), line: line)
        }
        return JinjaExpression(
            kind: .slice(value, parts[0], parts[1], parts.count > 2 ? parts[2] : nil), line: line)
    }

    private mutating func parseArguments() throws -> (
        positional: [JinjaExpression], named: [(String, JinjaExpression)]
    ) {
        var positional: [JinjaExpression] = []
        var named: [(String, JinjaExpression)] = []
        while !take(")") {
            if case .name(let key) = current, position + 1 < tokens.count,
                tokens[position + 1].token == .symbol("=")
            {
                position += 2
                named.append((key, try parseExpression()))
            } else {
                positional.append(try parseExpression())
            }
            if !take(","), current != .symbol(")") { throw failure("expected ',' or ')'") }
        }
        return (positional, named)
    }

    private mutating func parsePrimary() throws -> JinjaExpression {
        let line = line
        func expression(_ kind: JinjaExpression.Kind) -> JinjaExpression {
            JinjaExpression(kind: kind, line: line)
        }
        guard let token = current else { throw failure("expected a value") }
        position += 1
        switch token {
        case .string(var text):
            // Adjacent strings are concatenated.
            while case .string(let more) = current {
                text += more
                position += 1
            }
            return expression(.literal(.string(text)))
        case .int(let value): return expression(.literal(.int(value)))
        case .double(let value): return expression(.literal(.double(value)))
        case .name("true"), .name("True"): return expression(.literal(.bool(true)))
        case .name("false"), .name("False"): return expression(.literal(.bool(false)))
        case .name("none"), .name("None"): return expression(.literal(.none))
        case .name(let name): return expression(.name(name))
        case .symbol("("):
            let first = try parseExpression()
            if take(")") { return first }
            var items = [first]
            while take(",") {
                if current == .symbol(")") { break }
                items.append(try parseExpression())
            }
            guard take(")") else { throw failure("expected ')'") }
            return expression(.list(items))
        case .symbol("["):
            var items: [JinjaExpression] = []
            while !take("]") {
                items.append(try parseExpression())
                if !take(","), current != .symbol("]") { throw failure("expected ',' or ']'") }
            }
            return expression(.list(items))
        case .symbol("{"):
            var pairs: [(JinjaExpression, JinjaExpression)] = []
            while !take("}") {
                let key = try parseExpression()
                guard take(":") else { throw failure("expected ':'") }
                pairs.append((key, try parseExpression()))
                if !take(","), current != .symbol("}") { throw failure("expected ',' or '}'") }
            }
            return expression(.dictionary(pairs))
        default:
            position -= 1
            throw failure("expected a value")
        }
    }
}
