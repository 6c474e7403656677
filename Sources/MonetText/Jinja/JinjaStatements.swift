/// A statement of a template.
protocol JinjaStatement: AnyObject, Sendable {
    func run(_ run: JinjaRun) throws -> JinjaFlow
}

/// The statements of a block with variables of its own.
struct JinjaBody: Sendable {
    let statements: [any JinjaStatement]
    /// Names that the block sets later, and that are undefined until then.
    let hiddenNames: [String]

    var isEmpty: Bool { statements.isEmpty }
}

/// What runs after a statement.
enum JinjaFlow: Sendable {
    /// The next statement.
    case next
    /// The next element of the loop.
    case proceed
    /// What follows the loop.
    case leave
}

/// Text outside tags.
final class JinjaTextStatement: JinjaStatement {
    let text: String

    init(text: String) { self.text = text }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.work(1)
        try run.write(text)
        return .next
    }
}

/// `{{ expression }}`
final class JinjaOutputStatement: JinjaStatement {
    let expression: any JinjaExpression
    let line: Int

    init(expression: any JinjaExpression, line: Int) {
        (self.expression, self.line) = (expression, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        let value = try expression.evaluate(run)
        run.leave()
        run.line = line
        if case .string(let text) = value {
            try run.write(text)
        } else {
            try run.write(try run.text(of: value))
        }
        return .next
    }
}

/// `break` or `continue`
final class JinjaLoopControl: JinjaStatement {
    let flow: JinjaFlow

    init(flow: JinjaFlow) { self.flow = flow }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.work(1)
        return flow
    }
}

/// `if`, `elif` and `else`
final class JinjaIfStatement: JinjaStatement {
    struct Branch: Sendable {
        let condition: (any JinjaExpression)?
        let body: [any JinjaStatement]
    }

    let branches: [Branch]
    let line: Int

    init(branches: [Branch], line: Int) {
        (self.branches, self.line) = (branches, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        var flow = JinjaFlow.next
        for branch in branches {
            if let condition = branch.condition, try !run.isTrue(try condition.evaluate(run)) { continue }
            flow = try run.run(branch.body)
            break
        }
        run.leave()
        return flow
    }
}

/// What an assignment sets.
indirect enum JinjaTarget: Sendable {
    case name(String)
    case attribute(of: String, String)
    case tuple([JinjaTarget])

    func assign(_ value: JinjaValue, in scope: JinjaScope, _ run: JinjaRun) throws {
        switch self {
        case .name(let name): scope.set(name, value)
        case .attribute(let name, let attribute):
            guard case .namespace(let namespace)? = scope.value(of: name) else {
                throw run.failure("'\(name)' is not a namespace")
            }
            guard !attribute.hasPrefix("_") else { throw run.unsupported("the attribute '\(attribute)'") }
            try run.check(depth: value.depth + 1)
            try run.make(bytes: 64)
            namespace.members.set(.string(attribute), .string(attribute), value)
        case .tuple(let targets):
            let parts = try run.elements(value)
            guard parts.count == targets.count else {
                throw run.failure("\(parts.count) values for \(targets.count) names")
            }
            for (target, part) in zip(targets, parts) { try target.assign(part, in: scope, run) }
        }
    }
}

/// `set target = value`
final class JinjaSetStatement: JinjaStatement {
    let target: JinjaTarget
    let value: any JinjaExpression
    let line: Int

    init(target: JinjaTarget, value: any JinjaExpression, line: Int) {
        (self.target, self.value, self.line) = (target, value, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        let value = try value.evaluate(run)
        run.leave()
        run.line = line
        try target.assign(value, in: run.scope, run)
        return .next
    }
}

/// `set target` with a body
final class JinjaSetBlock: JinjaStatement {
    let target: JinjaTarget
    let filters: (any JinjaExpression)?
    let body: JinjaBody
    let line: Int

    init(target: JinjaTarget, filters: (any JinjaExpression)?, body: JinjaBody, line: Int) {
        (self.target, self.filters, self.body, self.line) = (target, filters, body, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        var (flow, value) = (JinjaFlow.next, JinjaValue.none)
        let outer = run.scope
        try run.inScope(of: outer, hiding: body.hiddenNames) { _ in
            let text = try run.capture { flow = try run.run(body.statements) }
            // `break` inside the block leaves it before the assignment.
            guard flow == .next else { return }
            value = .string(text)
            if let filters {
                run.blockText = text
                value = try filters.evaluate(run)
            }
        }
        run.leave()
        if flow == .next { try target.assign(value, in: outer, run) }
        return flow
    }
}

/// `filter name` with a body
final class JinjaFilterBlock: JinjaStatement {
    let filters: any JinjaExpression
    let body: JinjaBody
    let line: Int

    init(filters: any JinjaExpression, body: JinjaBody, line: Int) {
        (self.filters, self.body, self.line) = (filters, body, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        var flow = JinjaFlow.next
        try run.inScope(of: run.scope, hiding: body.hiddenNames) { _ in
            let text = try run.capture { flow = try run.run(body.statements) }
            guard flow == .next else { return }
            run.blockText = text
            try run.write(try run.text(of: try filters.evaluate(run)))
        }
        run.leave()
        return flow
    }
}

/// `with target = value`
final class JinjaScopeStatement: JinjaStatement {
    let targets: [(JinjaTarget, any JinjaExpression)]
    let body: JinjaBody
    let line: Int

    init(targets: [(JinjaTarget, any JinjaExpression)], body: JinjaBody, line: Int) {
        (self.targets, self.body, self.line) = (targets, body, line)
    }

    func run(_ run: JinjaRun) throws -> JinjaFlow {
        try run.enter(line)
        // The values do not see the new names.
        var values: [JinjaValue] = []
        for (_, expression) in targets { values.append(try expression.evaluate(run)) }
        let flow = try run.inScope(of: run.scope, hiding: body.hiddenNames) { scope in
            for ((target, _), value) in zip(targets, values) { try target.assign(value, in: scope, run) }
            return try run.run(body.statements)
        }
        run.leave()
        return flow
    }
}
