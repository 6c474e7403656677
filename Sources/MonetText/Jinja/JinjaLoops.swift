/// `for target in over if filter`
final class JinjaForStatement: JinjaStatement {
    let target: JinjaTarget
    let over: any JinjaExpression
    let filter: (any JinjaExpression)?
    let isRecursive: Bool
    let body: JinjaBody
    let otherwise: JinjaBody
    let line: Int

    init(
        target: JinjaTarget, over: any JinjaExpression, filter: (any JinjaExpression)?, isRecursive: Bool,
        body: JinjaBody, otherwise: JinjaBody, line: Int
    ) {
        (self.target, self.over, self.filter, self.isRecursive) = (target, over, filter, isRecursive)
        (self.body, self.otherwise, self.line) = (body, otherwise, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        let loop = JinjaLoop(self, over: try over.evaluate(run), scope: run.scope, level: 0)
        let flow = try loop.run(run)
        run.leave()
        return flow
    }
}

/// A loop as it runs, the variable `loop` of its body.
///
/// Elements are taken one at a time, and looked at ahead only if the body asks, as in Jinja2: the condition
/// after `if` sees what the body has done to a namespace.
final class JinjaLoop {
    let statement: JinjaForStatement
    let depth: Int
    /// The last arguments of `loop.changed`.
    var lastChanged: [JinjaValue]?
    private let source: JinjaValue
    /// All elements, unless they come from a generator.
    private var items: [JinjaValue] = []
    private var position = 0
    /// The scope around the loop; it outlives the loop, and does not hold it.
    private let scope: JinjaScope
    private let level: Int
    private var index0 = -1
    private var previous: JinjaValue?
    private var present: JinjaValue?
    private var following: JinjaValue?
    private var isAhead = false
    private var knownLength: Int?
    /// Elements that passed the filter when the length was asked for.
    private var drained: ArraySlice<JinjaValue>?

    init(_ statement: JinjaForStatement, over source: JinjaValue, scope: JinjaScope, level: Int) {
        (self.statement, self.source, self.scope, self.level) = (statement, source, scope, level)
        depth = source.depth + 1
    }

    /// Runs the body for each element, or the `else` branch if no body came to its end.
    func run(_ run: JinjaRun) throws -> JinjaFlow {
        run.line = statement.line
        try run.check(depth: depth)
        if case .generator = source {} else { items = try run.elements(source) }
        var isFinished = false
        while let item = try takeNext(run) {
            try run.step(statement.line)
            let flow = try run.inScope(of: scope, hiding: statement.body.hiddenNames) { inner in
                inner.set("loop", .loop(self))
                try statement.target.assign(item, in: inner, run)
                return try run.run(statement.body.statements)
            }
            if flow == .next { isFinished = true }
            if flow == .leave { break }
        }
        guard !isFinished, !statement.otherwise.isEmpty else { return .next }
        return try run.inScope(of: scope, hiding: statement.otherwise.hiddenNames) { _ in
            try run.run(statement.otherwise.statements)
        }
    }

    /// Runs the loop over other elements, and gives the text.
    func recurse(into value: JinjaValue, _ run: JinjaRun) throws -> String {
        let outer = run.scope
        defer { run.scope = outer }
        run.scope = scope
        let loop = JinjaLoop(statement, over: value, scope: scope, level: level + 1)
        return try run.capture { _ = try loop.run(run) }
    }

    // MARK: Elements

    private func takeNext(_ run: JinjaRun) throws -> JinjaValue? {
        guard let item = isAhead ? following : try draw(run) else { return nil }
        isAhead = false
        following = nil
        index0 += 1
        previous = present
        present = item
        return item
    }

    /// The next element that passes the filter.
    private func draw(_ run: JinjaRun) throws -> JinjaValue? {
        if drained != nil { return drained?.popFirst() }
        while let item = nextItem() {
            try run.step(statement.line)
            guard let filter = statement.filter else { return item }
            let passes = try run.inScope(of: scope) { inner in
                try statement.target.assign(item, in: inner, run)
                return try run.isTrue(try filter.evaluate(run))
            }
            if passes { return item }
        }
        return nil
    }

    private func nextItem() -> JinjaValue? {
        if case .generator(let generator) = source { return generator.next() }
        guard position < items.count else { return nil }
        position += 1
        return items[position - 1]
    }

    private func lookAhead(_ run: JinjaRun) throws -> JinjaValue? {
        if !isAhead {
            following = try draw(run)
            isAhead = following != nil
        }
        return following
    }

    private func length(_ run: JinjaRun) throws -> Int {
        if let knownLength { return knownLength }
        var length = items.count
        var isSized = statement.filter == nil
        if case .generator = source { isSized = false }
        if !isSized { length = try drainedLength(run) }
        knownLength = length
        return length
    }

    /// The length of what only iteration tells.
    private func drainedLength(_ run: JinjaRun) throws -> Int {
        var rest: [JinjaValue] = []
        while let item = try draw(run) { rest.append(item) }
        let length = rest.count + index0 + 1 + (isAhead ? 1 : 0)
        drained = rest[...]
        return length
    }

    // MARK: Attributes

    func attribute(_ name: String, _ run: JinjaRun) throws -> JinjaValue {
        switch name {
        case "index": return .int(index0 + 1)
        case "index0": return .int(index0)
        case "first": return .bool(index0 == 0)
        case "last": return .bool(try lookAhead(run) == nil)
        case "length": return .int(try length(run))
        case "revindex": return .int(try length(run) - index0)
        case "revindex0": return .int(try length(run) - index0 - 1)
        case "depth": return .int(level + 1)
        case "depth0": return .int(level)
        case "previtem": return previous ?? .undefined("previtem")
        case "nextitem": return try lookAhead(run) ?? .undefined("nextitem")
        case "cycle", "changed": return .method(JinjaMethod(.loop(self), name))
        default:
            if name.hasPrefix("_") { throw run.unsupported("the attribute '\(name)' of a loop") }
            return .undefined(name)
        }
    }

    func call(_ name: String, _ arguments: JinjaArguments, _ run: JinjaRun) throws -> JinjaValue {
        let values = arguments.positional
        guard arguments.named.isEmpty else { throw run.failure("loop.\(name)() takes no named arguments") }
        if name == "cycle" {
            guard !values.isEmpty else { throw run.failure("no items for cycling given") }
            return values[index0 % values.count]
        }
        if let lastChanged, lastChanged.count == values.count,
            try zip(lastChanged, values).allSatisfy({ try JinjaOperators.equal($0, $1, run) })
        {
            return .bool(false)
        }
        try run.make(bytes: 64 + 24 * values.count)
        if lastChanged == nil { run.noteChanged(self) }
        lastChanged = values
        return .bool(true)
    }
}

/// A macro, or the body of a `call` block, as written.
final class JinjaMacroDefinition: Sendable {
    struct Parameter: Sendable {
        let name: String
        let fallback: (any JinjaExpression)?
    }

    let name: String
    let parameters: [Parameter]
    let takesCaller: Bool
    let takesVarargs: Bool
    let takesKwargs: Bool
    let body: JinjaBody
    let line: Int

    init(
        name: String, parameters: [Parameter], takesCaller: Bool, takesVarargs: Bool, takesKwargs: Bool,
        body: JinjaBody, line: Int
    ) {
        (self.name, self.parameters, self.body, self.line) = (name, parameters, body, line)
        (self.takesCaller, self.takesVarargs, self.takesKwargs) = (takesCaller, takesVarargs, takesKwargs)
    }
}

/// `macro name(parameters)`
final class JinjaMacroStatement: JinjaStatement {
    let definition: JinjaMacroDefinition
    let line: Int

    init(definition: JinjaMacroDefinition, line: Int) {
        (self.definition, self.line) = (definition, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.step(line)
        run.scope.set(definition.name, .macro(try run.macro(definition)))
        return .next
    }
}

/// `call` with a body
final class JinjaCallBlock: JinjaStatement {
    let call: JinjaCall
    let definition: JinjaMacroDefinition
    let line: Int

    init(call: JinjaCall, definition: JinjaMacroDefinition, line: Int) {
        (self.call, self.definition, self.line) = (call, definition, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        let value = try call.call(run, caller: try run.macro(definition))
        run.leave()
        try run.write(try run.text(of: value))
        return .next
    }
}

/// `generation`, with which transformers marks what the assistant says.
final class JinjaGeneration: JinjaStatement {
    let definition: JinjaMacroDefinition
    let line: Int

    init(definition: JinjaMacroDefinition, line: Int) {
        (self.definition, self.line) = (definition, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        let value = try run.call(.macro(try run.macro(definition)), JinjaArguments())
        run.leave()
        try run.writeGenerated(try run.text(of: value))
        return .next
    }
}

/// A macro with the variables of the place that defined it.
final class JinjaMacro {
    let definition: JinjaMacroDefinition
    let scope: JinjaScope

    init(definition: JinjaMacroDefinition, scope: JinjaScope) {
        (self.definition, self.scope) = (definition, scope)
    }

    /// The text of the body.
    func call(_ arguments: JinjaArguments, _ run: JinjaRun) throws -> JinjaValue {
        guard scope.isActive else {
            throw run.unsupported("a macro after the end of the block that defined it")
        }
        let line = run.line
        let text = try run.inScope(of: scope, hiding: definition.body.hiddenNames) { inner in
            try bind(arguments, in: inner, run)
            return try run.capture { _ = try run.run(definition.body.statements) }
        }
        run.line = line
        return .string(text)
    }

    private func bind(_ arguments: JinjaArguments, in inner: JinjaScope, _ run: JinjaRun) throws {
        let parameters = definition.parameters
        var named = arguments.named
        try run.work(parameters.count * (1 + named.count >> 3))
        // A default sees the parameters before it, and never a variable of the same name outside.
        for parameter in parameters { inner.set(parameter.name, .undefined(parameter.name)) }
        var isGiven = parameters.map { _ in false }
        for (index, parameter) in parameters.enumerated() {
            if index < arguments.positional.count {
                inner.set(parameter.name, arguments.positional[index])
                isGiven[index] = true
            } else if let match = named.firstIndex(where: { $0.name == parameter.name }) {
                inner.set(parameter.name, named.remove(at: match).value)
                isGiven[index] = true
            }
        }
        let takesCaller = definition.takesCaller && !parameters.contains { $0.name == "caller" }
        if takesCaller {
            let match = named.firstIndex { $0.name == "caller" }
            inner.set("caller", match.map { named.remove(at: $0).value } ?? .undefined("caller"))
        }
        if definition.takesKwargs {
            inner.set("kwargs", try run.dictionary(named.map { (.string($0.name), $0.value) }))
        } else if let extra = named.first {
            throw run.failure("the macro '\(definition.name)' takes no argument '\(extra.name)'")
        }
        let rest = Array(arguments.positional.dropFirst(parameters.count))
        if definition.takesVarargs {
            inner.set("varargs", try run.tuple(rest))
        } else if !rest.isEmpty {
            throw run.failure("the macro '\(definition.name)' takes \(parameters.count) arguments")
        }
        for (index, parameter) in parameters.enumerated() where !isGiven[index] {
            if let fallback = parameter.fallback { inner.set(parameter.name, try fallback.evaluate(run)) }
        }
    }
}
