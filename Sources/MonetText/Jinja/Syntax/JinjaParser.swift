/// Parses a template's statements.
///
/// Expressions are parsed in `JinjaExpressionParser.swift`.
struct JinjaParser {
    /// Statements inside statements beyond this many levels are refused.
    static let maximumNesting = 25

    private(set) var tokens: [(token: JinjaToken, line: Int)]
    var position = 0
    /// Open brackets and prefix operators of expressions.
    var expressionNesting = 0
    private var nesting = 0
    /// `for` loops that `break` and `continue` reach from here.
    private var loops = 0
    /// All `for` statements around this place, up to the top.
    private var isInsideLoop = false
    /// Names read (false) and written (true) so far, for macros that ask for `varargs`, `kwargs` or `caller`.
    private var uses: [(name: String, isStore: Bool)] = []
    /// Filters and tests that Jinja2 does not have: an error unless inside a condition.
    var unknownNames: [(construct: String, line: Int)] = []

    /// The blocks with variables of their own, and what a first pass found out about them.
    private var frames = JinjaFrames()
    private let hiddenNames: [Int: [String]]
    let environment: JinjaEnvironment

    private init(
        _ tokens: [(token: JinjaToken, line: Int)], _ environment: JinjaEnvironment,
        hiddenNames: [Int: [String]]
    ) {
        self.environment = environment
        self.tokens = tokens
        self.hiddenNames = hiddenNames
    }

    /// The whole template.
    ///
    /// A first pass finds the names that a block hides before it sets them.
    static func parse(
        _ tokens: [(token: JinjaToken, line: Int)], _ environment: JinjaEnvironment = .chat
    ) throws -> JinjaBody {
        var first = JinjaParser(tokens, environment, hiddenNames: [:])
        _ = try first.parse()
        let hidden = first.frames.hiddenNames()
        var second = JinjaParser(tokens, environment, hiddenNames: hidden)
        return try second.parse()
    }

    private mutating func parse() throws -> JinjaBody {
        let frame = frames.open()
        let body = try parseBody(until: [])
        guard current == nil else { throw unexpected() }
        try refuseUnknownNames(from: 0)
        return JinjaBody(statements: body, hiddenNames: hiddenNames[frame] ?? [])
    }

    // MARK: Tokens

    var current: JinjaToken? { position < tokens.count ? tokens[position].token : nil }
    var next: JinjaToken? { position + 1 < tokens.count ? tokens[position + 1].token : nil }
    var line: Int { position < tokens.count ? tokens[position].line : (tokens.last?.line ?? 1) }

    func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }

    func unexpected() -> TextError {
        failure(current.map { "unexpected \($0.description)" } ?? "the template ends too early")
    }

    mutating func take(_ symbol: String) -> Bool {
        guard current == .symbol(symbol) else { return false }
        position += 1
        return true
    }

    mutating func takeName(_ name: String) -> Bool {
        guard current == .name(name) else { return false }
        position += 1
        return true
    }

    mutating func expect(_ symbol: String) throws {
        guard take(symbol) else { throw failure("expected '\(symbol)', not \(found)") }
    }

    private var found: String { current?.description ?? "the end" }

    mutating func expectName(_ what: String) throws -> String {
        guard case .name(let name)? = current else { throw failure("expected \(what), not \(found)") }
        position += 1
        return name
    }

    private mutating func expectBlockEnd() throws {
        guard current == .blockEnd else { throw failure("expected '%}', not \(found)") }
        position += 1
    }

    mutating func noteUse(_ name: String, isStore: Bool) {
        uses.append((name, isStore))
        if !isStore { frames.note(name, isStore: false) }
    }

    /// Notes what an assignment sets, once its value is parsed.
    private mutating func noteStores(_ target: JinjaTarget, isParameter: Bool = false) {
        switch target {
        case .name(let name): frames.note(name, isStore: !isParameter)
        case .attribute(let name, _): frames.note(name, isStore: false)
        case .tuple(let targets): for target in targets { noteStores(target, isParameter: isParameter) }
        }
    }

    /// Refuses what `unknownNames` collected since it had `count` elements.
    private mutating func refuseUnknownNames(from count: Int) throws {
        guard unknownNames.count > count else { return }
        throw TextError.templateFailure(
            reason: "\(unknownNames[count].construct) does not exist", line: unknownNames[count].line)
    }

    // MARK: Bodies

    /// Statements up to a tag of `ends`, whose name is the current token afterwards.
    private mutating func parseBody(until ends: Set<String>) throws -> [any JinjaStatement] {
        nesting += 1
        defer { nesting -= 1 }
        guard nesting <= Self.maximumNesting else {
            throw failure("more than \(Self.maximumNesting) levels of statements")
        }
        var body: [any JinjaStatement] = []
        while let token = current {
            let line = line
            switch token {
            case .data(let text):
                position += 1
                body.append(JinjaTextStatement(text: text))
            case .outputBegin:
                position += 1
                body.append(JinjaOutputStatement(expression: try parseTuple(), line: line))
                guard current == .outputEnd else { throw failure("expected '}}', not \(found)") }
                position += 1
            case .blockBegin:
                position += 1
                if case .name(let name)? = current, ends.contains(name) { return body }
                body += try parseStatement()
                try expectBlockEnd()
            default: throw unexpected()
            }
        }
        if !ends.isEmpty {
            throw failure("the template ends before \(ends.sorted().joined(separator: " or "))")
        }
        return body
    }

    /// The body of a block up to its end tag, in a scope of its own: Jinja2 checks the names of its filters.
    private mutating func parseBlock(
        _ end: String, isFunction: Bool = false, in frame: Int? = nil, parameters: [JinjaTarget] = []
    ) throws -> JinjaBody {
        _ = take(":")
        try expectBlockEnd()
        let index = frame ?? frames.open()
        if frame != nil { frames.reopen(index) }
        for parameter in parameters { noteStores(parameter, isParameter: true) }
        let (outerLoops, known) = (loops, unknownNames.count)
        if isFunction { loops = 0 }
        let body = try parseBody(until: [end])
        position += 1
        loops = outerLoops
        frames.close()
        try refuseUnknownNames(from: known)
        return JinjaBody(statements: body, hiddenNames: hiddenNames[index] ?? [])
    }

    private mutating func parseStatement() throws -> [any JinjaStatement] {
        let line = line
        let tag = try expectName("a tag's name")
        switch tag {
        case "if": return [try parseIf(line)]
        case "for": return [try parseFor(line)]
        case "set": return [try parseSet(line)]
        case "macro": return [try parseMacro(line)]
        case "call": return [try parseCall(line)]
        case "filter":
            guard case .name? = current else { throw unexpected() }
            let filters = try parseFilters()
            return [JinjaFilterBlock(filters: filters, body: try parseBlock("endfilter"), line: line)]
        case "with": return [try parseWith(line)]
        case "generation":
            // transformers calls the body like a macro without arguments.
            let start = uses.count
            let body = try parseBlock("endgeneration", isFunction: true)
            return [
                JinjaGeneration(definition: try definition(tag, [], body, usesSince: start, line), line: line)
            ]
        case "print":
            var outputs: [any JinjaStatement] = []
            while current != .blockEnd {
                if !outputs.isEmpty { try expect(",") }
                outputs.append(JinjaOutputStatement(expression: try parseExpression(), line: line))
            }
            return outputs
        case "break", "continue":
            guard loops > 0 else { throw failure("'\(tag)' outside a loop") }
            return [JinjaLoopControl(flow: tag == "break" ? .leave : .proceed)]
        case "block", "extends", "include", "import", "from", "autoescape", "do", "trans", "debug":
            throw TextError.unsupportedTemplate(construct: "the tag '\(tag)'", line: line)
        default: throw TextError.templateFailure(reason: "unexpected tag '\(tag)'", line: line)
        }
    }

    // MARK: Statements

    private mutating func parseIf(_ line: Int) throws -> any JinjaStatement {
        let known = unknownNames.count
        var branches: [JinjaIfStatement.Branch] = []
        var condition: (any JinjaExpression)? = try parseTuple(withConditions: false)
        while true {
            _ = take(":")
            try expectBlockEnd()
            frames.conditions += 1
            let body = try parseBody(until: condition == nil ? ["endif"] : ["elif", "else", "endif"])
            frames.conditions -= 1
            branches.append(.init(condition: condition, body: body))
            guard case .name(let tag)? = current else { throw unexpected() }
            position += 1
            if tag == "endif" { break }
            condition = tag == "elif" ? try parseTuple(withConditions: false) : nil
        }
        // Inside a condition, Jinja2 looks for a filter only when it is reached; so does its evaluation here.
        unknownNames.removeSubrange(known...)
        return JinjaIfStatement(branches: branches, line: line)
    }

    private mutating func parseFor(_ line: Int) throws -> any JinjaStatement {
        let known = unknownNames.count
        let target = try parseTarget(withAttributes: false, isLoopTarget: true)
        guard takeName("in") else { throw failure("expected 'in', not \(found)") }
        let over = try parseTuple(withConditions: false)
        var filter: (any JinjaExpression)?
        if takeName("if") {
            _ = frames.open()
            noteStores(target, isParameter: true)
            filter = try parseExpression()
            frames.close()
        }
        let isRecursive = takeName("recursive")
        _ = take(":")
        try expectBlockEnd()
        let wasInside = isInsideLoop
        loops += 1
        isInsideLoop = true
        let frame = frames.open()
        noteStores(.tuple([target, .name("loop")]), isParameter: true)
        let statements = try parseBody(until: ["endfor", "else"])
        frames.close()
        let body = JinjaBody(statements: statements, hiddenNames: hiddenNames[frame] ?? [])
        loops -= 1
        var otherwise = JinjaBody(statements: [], hiddenNames: [])
        if takeName("else") {
            _ = take(":")
            try expectBlockEnd()
            let frame = frames.open()
            let statements = try parseBody(until: ["endfor"])
            frames.close()
            otherwise = JinjaBody(statements: statements, hiddenNames: hiddenNames[frame] ?? [])
        }
        position += 1
        isInsideLoop = wasInside
        try refuseUnknownNames(from: known)
        return JinjaForStatement(
            target: target, over: over, filter: filter, isRecursive: isRecursive, body: body,
            otherwise: otherwise, line: line)
    }

    private mutating func parseSet(_ line: Int) throws -> any JinjaStatement {
        let target = try parseTarget(withAttributes: true)
        if take("=") {
            let value = try parseTuple()
            noteStores(target)
            return JinjaSetStatement(target: target, value: value, line: line)
        }
        noteStores(target)
        let filters = current == .symbol("|") ? try parseFilters() : nil
        return JinjaSetBlock(target: target, filters: filters, body: try parseBlock("endset"), line: line)
    }

    /// The filters of a block, applied to its text.
    private mutating func parseFilters() throws -> any JinjaExpression {
        var value: any JinjaExpression = JinjaBlockText(line: line)
        if current != .symbol("|") { value = try parseFilter(of: value) }
        while take("|") { value = try parseFilter(of: value) }
        return value
    }

    private mutating func parseMacro(_ line: Int) throws -> any JinjaStatement {
        let name = try expectTargetName()
        noteStores(.name(name))
        let start = uses.count
        let frame = frames.open()
        let parameters = try parseParameters()
        frames.close()
        let body = try parseBlock("endmacro", isFunction: true, in: frame)
        return JinjaMacroStatement(
            definition: try definition(name, parameters, body, usesSince: start, line), line: line)
    }

    private mutating func parseCall(_ line: Int) throws -> any JinjaStatement {
        let start = uses.count
        let frame = frames.open()
        let parameters = current == .symbol("(") ? try parseParameters() : []
        frames.close()
        guard let call = try parseExpression() as? JinjaCall else {
            throw TextError.templateFailure(reason: "'call' needs a call", line: line)
        }
        let body = try parseBlock("endcall", isFunction: true, in: frame)
        return JinjaCallBlock(
            call: call, definition: try definition("caller", parameters, body, usesSince: start, line),
            line: line)
    }

    private func definition(
        _ name: String, _ parameters: [JinjaMacroDefinition.Parameter], _ body: JinjaBody,
        usesSince start: Int, _ line: Int
    ) throws -> JinjaMacroDefinition {
        let names = parameters.map(\.name)
        guard Set(names).count == names.count else {
            throw TextError.templateFailure(reason: "a parameter's name appears twice", line: line)
        }
        let asked = asked(for: ["caller", "varargs", "kwargs"], since: start, parameters: names)
        if let caller = parameters.first(where: { $0.name == "caller" }),
            caller.fallback == nil || !asked.contains("caller")
        {
            throw TextError.unsupportedTemplate(construct: "a parameter 'caller'", line: line)
        }
        return JinjaMacroDefinition(
            name: name, parameters: parameters, takesCaller: asked.contains("caller"),
            takesVarargs: asked.contains("varargs") && !names.contains("varargs"),
            takesKwargs: asked.contains("kwargs") && !names.contains("kwargs"), body: body, line: line)
    }

    /// Which of the names are read before they are written, in Jinja2's order.
    private func asked(for names: Set<String>, since start: Int, parameters: [String]) -> Set<String> {
        var pending = names
        var result: Set<String> = []
        for use in uses[start...] where pending.contains(use.name) {
            if !use.isStore { result.insert(use.name) }
            pending.remove(use.name)
        }
        return result
    }

    private mutating func parseParameters() throws -> [JinjaMacroDefinition.Parameter] {
        var parameters: [JinjaMacroDefinition.Parameter] = []
        try expect("(")
        while !take(")") {
            if !parameters.isEmpty { try expect(",") }
            let name = try expectTargetName()
            noteStores(.name(name), isParameter: true)
            if take("=") {
                parameters.append(.init(name: name, fallback: try parseExpression()))
            } else if parameters.last?.fallback != nil {
                throw failure("a parameter without a default after one with a default")
            } else {
                parameters.append(.init(name: name, fallback: nil))
            }
        }
        return parameters
    }

    private mutating func parseWith(_ line: Int) throws -> any JinjaStatement {
        var targets: [(JinjaTarget, any JinjaExpression)] = []
        while current != .blockEnd {
            if !targets.isEmpty { try expect(",") }
            let target = try parseTarget(withAttributes: false, isLoopTarget: false)
            try expect("=")
            targets.append((target, try parseExpression()))
        }
        let body = try parseBlock("endwith", parameters: targets.map(\.0))
        return JinjaScopeStatement(targets: targets, body: body, line: line)
    }

    // MARK: Targets of assignments

    private static let constants: Set<String> = ["true", "false", "True", "False", "none", "None"]

    private mutating func expectTargetName() throws -> String {
        let name = try expectName("a name")
        guard !Self.constants.contains(name), !Self.keywords.contains(name) else {
            throw failure("'\(name)' cannot be assigned")
        }
        noteUse(name, isStore: true)
        return name
    }

    private mutating func parseTarget(withAttributes: Bool, isLoopTarget: Bool = false) throws -> JinjaTarget
    {
        var targets: [JinjaTarget] = []
        var isTuple = false
        while true {
            if isAtTupleEnd { break }
            targets.append(try parseSingleTarget(withAttributes, isLoopTarget))
            guard take(",") else { break }
            isTuple = true
        }
        if isTuple { return .tuple(targets) }
        guard let target = targets.first else { throw unexpected() }
        return target
    }

    private mutating func parseSingleTarget(_ withAttributes: Bool, _ isLoopTarget: Bool) throws
        -> JinjaTarget
    {
        if take("(") {
            expressionNesting += 1
            defer { expressionNesting -= 1 }
            try checkNesting()
            let target = try parseTarget(withAttributes: false, isLoopTarget: isLoopTarget)
            try expect(")")
            return target
        }
        let name = try expectTargetName()
        if withAttributes, take(".") { return .attribute(of: name, try expectName("an attribute")) }
        if name == "loop", isLoopTarget || isInsideLoop {
            throw failure("'loop' cannot be assigned in a loop")
        }
        return .name(name)
    }
}
