import Foundation

/// The variables of a block, inside those of the blocks around it.
final class JinjaScope {
    fileprivate(set) var variables: [String: JinjaValue] = [:]
    private let parent: JinjaScope?
    /// Whether its block still runs: a macro made there can be called only as long.
    fileprivate(set) var isActive = true

    init(parent: JinjaScope?) { self.parent = parent }

    func value(of name: String) -> JinjaValue? {
        var scope: JinjaScope? = self
        while let here = scope {
            if let value = here.variables[name] { return value }
            scope = here.parent
        }
        return nil
    }

    func set(_ name: String, _ value: JinjaValue) { variables[name] = value }
}

/// One rendering of a template: its output, its variables and its limits.
///
/// Templates come with checkpoints of strangers: whatever they do ends soon, in little memory and stack.
final class JinjaRun {
    /// Evaluated nodes, elements of loops, and every 64 bytes or elements that an operation looks at.
    static let maximumSteps = 1_000_000
    /// Bytes of all texts, lists and dictionaries made on the way, together.
    static let maximumBytes = 32 << 20
    /// Expressions, statements and macros inside each other.
    static let maximumLevels = 300
    /// Macros and recursive loops inside each other; such a call takes more stack than other levels.
    static let maximumCalls = 40
    /// Values inside values.
    static let maximumValueDepth = 100

    /// The line of what runs now.
    var line = 1
    var scope: JinjaScope
    /// What the template has written, or the innermost block that captures its text.
    private var output = ""
    private var captures = 0
    /// Where `generation` blocks stand in the output, in UTF-8 bytes.
    private(set) var generated: [Range<Int>] = []
    /// The text of the block whose filters are applied.
    var blockText = ""
    let date: Date
    let timeZone: TimeZone
    let environment: JinjaEnvironment
    private var steps = 0
    private var bytes = 0
    private var levels = 0
    private var calls = 0
    // What can be part of a cycle; it is emptied at the end.
    private var namespaces: [JinjaNamespace] = []
    private var capturedScopes: [JinjaScope] = []
    private var changedLoops: [JinjaLoop] = []

    init(date: Date, timeZone: TimeZone = .current, _ environment: JinjaEnvironment = .chat) {
        self.date = date
        self.timeZone = timeZone
        self.environment = environment
        scope = JinjaScope(parent: nil)
        for function in environment.functions { scope.set(function.rawValue, .function(function)) }
    }

    deinit {
        for namespace in namespaces { namespace.members = JinjaDictionary() }
        for scope in capturedScopes { scope.variables = [:] }
        for loop in changedLoops { loop.lastChanged = nil }
    }

    func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }
    func unsupported(_ construct: String) -> TextError {
        .unsupportedTemplate(construct: construct, line: line)
    }

    // MARK: Limits

    /// Counts the evaluation of something on a line.
    func step(_ line: Int) throws {
        self.line = line
        try work(1)
    }

    /// Counts steps.
    func work(_ count: Int) throws {
        steps += count
        guard steps <= Self.maximumSteps else { throw failure("more than \(Self.maximumSteps) steps") }
    }

    /// Counts the steps of looking at bytes or elements.
    func look(at count: Int) throws { try work(count >> 6) }

    /// Counts the steps of an operation that takes some time for each character.
    func lookClosely(at text: String) throws { try work(text.utf8.count >> 3) }

    /// Counts bytes before they are made.
    func make(bytes count: Int) throws {
        let (sum, overflow) = bytes.addingReportingOverflow(count)
        bytes = sum
        guard !overflow, bytes <= Self.maximumBytes else {
            throw failure("more than \(Self.maximumBytes >> 20) MB of texts and lists")
        }
        try look(at: count)
    }

    /// Enters an expression or a statement inside others.
    func enter(_ line: Int) throws {
        levels += 1
        guard levels <= Self.maximumLevels else { throw failure("more than \(Self.maximumLevels) levels") }
        try step(line)
    }

    func leave() { levels -= 1 }

    /// Runs the body of a macro or of a recursive loop.
    func calling<Result>(_ body: () throws -> Result) throws -> Result {
        calls += 1
        guard calls <= Self.maximumCalls else {
            throw failure("more than \(Self.maximumCalls) levels of macros")
        }
        defer { calls -= 1 }
        return try body()
    }

    // MARK: Values

    func list(_ items: [JinjaValue]) throws -> JinjaValue { .list(try counted(items)) }
    func tuple(_ items: [JinjaValue]) throws -> JinjaValue { .tuple(try counted(items)) }
    func group(_ items: [JinjaValue]) throws -> JinjaValue { .tuple(try counted(items, isGroup: true)) }

    func generator(_ items: [JinjaValue]) throws -> JinjaValue {
        try make(bytes: 32 + 24 * items.count)
        let generator = JinjaGenerator(items)
        try check(depth: generator.depth)
        return .generator(generator)
    }

    private func counted(_ items: [JinjaValue], isGroup: Bool = false) throws -> JinjaList {
        try make(bytes: 64 + 24 * items.count)
        let list = JinjaList(items, isGroup: isGroup)
        try check(depth: list.depth)
        return list
    }

    /// A dictionary of keys and values; the last of equal keys counts.
    func dictionary(_ members: [(JinjaValue, JinjaValue)]) throws -> JinjaValue {
        try make(bytes: 64 + 128 * members.count)
        let dictionary = JinjaDictionary()
        for (key, value) in members { dictionary.set(try self.key(key), key, value) }
        try check(depth: dictionary.depth)
        return .dictionary(dictionary)
    }

    func key(_ value: JinjaValue) throws -> JinjaKey {
        guard let key = try possibleKey(value) else { throw failure("\(value.kind) cannot be a key") }
        return key
    }

    /// The value as a key, if it can be one; its text is counted as looked at.
    func possibleKey(_ value: JinjaValue) throws -> JinjaKey? {
        switch value {
        case .string(let text), .markup(let text): try look(at: 2 * text.utf8.count)
        case .tuple(let list): for item in list.items { _ = try possibleKey(item) }
        default: break
        }
        try work(1)
        return JinjaKey(value)
    }

    /// Refuses a missing value where the environment allows no use of it.
    func requireDefined(_ value: JinjaValue) throws {
        if environment.isStrict, case .undefined = value { throw failure("\(value.kind) is used") }
    }

    /// Python's `bool(value)`.
    func isTrue(_ value: JinjaValue) throws -> Bool {
        try requireDefined(value)
        return value.isTrue
    }

    func check(depth: Int) throws {
        guard depth <= Self.maximumValueDepth else {
            throw failure("values of more than \(Self.maximumValueDepth) levels")
        }
    }

    func check(_ number: Double) throws -> JinjaValue {
        guard number.isFinite else { throw failure("a number that is too large") }
        return .double(number)
    }

    func string(_ text: String) throws -> JinjaValue {
        try make(bytes: text.utf8.count)
        return .string(text)
    }

    /// Python's `str(value)`.
    func text(of value: JinjaValue) throws -> String {
        if case .string(let text) = value {
            try make(bytes: text.utf8.count)
            return text
        }
        var writer = JinjaRepresentation(run: self)
        try writer.writeText(value)
        return writer.text
    }

    /// The elements of what Python can iterate; generators are used up.
    func elements(_ value: JinjaValue) throws -> [JinjaValue] {
        switch value {
        case .list(let list), .tuple(let list):
            try look(at: list.items.count)
            return list.items
        case .undefined:
            try requireDefined(value)
            return []
        case .generator(let generator):
            var items: [JinjaValue] = []
            while let item = generator.next() { items.append(item) }
            try look(at: items.count)
            return items
        case .string(let text):
            try make(bytes: 24 * text.utf8.count)
            return text.unicodeScalars.map { .string(String($0)) }
        case .dictionary(let dictionary):
            try look(at: dictionary.count)
            return dictionary.keys
        case .view(let dictionary, .keys):
            try look(at: dictionary.count)
            return dictionary.keys
        case .view(let dictionary, .values):
            try look(at: dictionary.count)
            return dictionary.values
        case .view(let dictionary, .items):
            return try zip(dictionary.keys, dictionary.values).map { try tuple([$0, $1]) }
        case .range(let range):
            try make(bytes: 24 * range.count)
            return (0..<range.count).map { range[$0] }
        default: throw failure("\(value.kind) cannot be iterated")
        }
    }

    // MARK: Output

    func write(_ text: String) throws {
        try make(bytes: text.utf8.count)
        output += text
    }

    /// Writes what the assistant says. In a block whose text is captured, its place in the output is unknown.
    func writeGenerated(_ text: String) throws {
        let start = output.utf8.count
        try write(text)
        if captures == 1 { generated.append(start..<output.utf8.count) }
    }

    /// The text that `body` writes.
    func capture(_ body: () throws -> Void) throws -> String {
        let outer = output
        output = ""
        captures += 1
        defer { captures -= 1 }
        try body()
        defer { output = outer }
        return output
    }

    /// Runs in a scope inside `parent`.
    func inScope<Result>(
        of parent: JinjaScope, hiding names: [String] = [], _ body: (JinjaScope) throws -> Result
    ) throws -> Result {
        let outer = scope
        let inner = JinjaScope(parent: parent)
        for name in names { inner.set(name, .undefined(name)) }
        scope = inner
        let result = try body(inner)
        inner.isActive = false
        scope = outer
        return result
    }

    func run(_ statements: [any JinjaStatement]) throws -> JinjaFlow {
        for statement in statements {
            let flow = try statement.run(self)
            if flow != .next { return flow }
        }
        return .next
    }

    /// The whole output of a template.
    func render(_ body: JinjaBody) throws -> String {
        for name in body.hiddenNames { scope.set(name, .undefined(name)) }
        return try capture { _ = try run(body.statements) }
    }

    /// A macro made in the current scope.
    func macro(_ definition: JinjaMacroDefinition) throws -> JinjaMacro {
        try make(bytes: 256)
        capturedScopes.append(scope)
        return JinjaMacro(definition: definition, scope: scope)
    }

    /// Registers a loop that holds values of the template.
    func noteChanged(_ loop: JinjaLoop) { changedLoops.append(loop) }

    // MARK: Calls

    func call(_ function: JinjaValue, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch function {
        case .macro(let macro): return try calling { try macro.call(arguments, self) }
        case .method(let method): return try JinjaMethods.call(method, arguments, self)
        case .function(let function): return try call(function, arguments)
        case .loop(let loop):
            guard arguments.named.isEmpty, arguments.positional.count == 1, loop.statement.isRecursive else {
                throw failure("this loop cannot be called so")
            }
            return .string(try calling { try loop.recurse(into: arguments.positional[0], self) })
        default: throw failure("\(function.kind) cannot be called")
        }
    }

    private func call(_ function: JinjaFunction, _ arguments: JinjaArguments) throws -> JinjaValue {
        switch function {
        case .range: return try range(arguments)
        case .dict: return .dictionary(try members(arguments))
        case .namespace:
            let members = try members(arguments)
            for key in members.keys where key.text?.hasPrefix("_") ?? true {
                throw unsupported("a namespace's attribute that is not a plain name")
            }
            let namespace = JinjaNamespace()
            namespace.members = members
            namespaces.append(namespace)
            return .namespace(namespace)
        case .raiseException:
            let message = try arguments.bind(["message"], required: 1, self)[0] ?? .none
            throw failure(try text(of: message))
        case .strftimeNow:
            guard let format = try arguments.bind(["format"], required: 1, self)[0]?.text else {
                throw failure("strftime_now() needs a text")
            }
            return try string(try JinjaText.date(date, format, self))
        case .lipsum, .cycler, .joiner: throw unsupported("the function '\(function.rawValue)'")
        }
    }

    /// What `dict` and `namespace` make of their arguments.
    private func members(_ arguments: JinjaArguments) throws -> JinjaDictionary {
        guard arguments.positional.count <= 1 else { throw failure("more than one positional argument") }
        var members: [(JinjaValue, JinjaValue)] = []
        if case .dictionary(let dictionary)? = arguments.positional.first {
            members = Array(zip(dictionary.keys, dictionary.values))
        } else if let pairs = arguments.positional.first {
            for pair in try elements(pairs) {
                let parts = try elements(pair)
                guard parts.count == 2 else { throw failure("a member that is not a pair") }
                members.append((parts[0], parts[1]))
            }
        }
        members += arguments.named.map { (.string($0.name), $0.value) }
        guard case .dictionary(let result) = try dictionary(members) else { return JinjaDictionary() }
        return result
    }

    private func range(_ arguments: JinjaArguments) throws -> JinjaValue {
        let numbers = arguments.positional.compactMap(\.integer)
        guard arguments.named.isEmpty, numbers.count == arguments.positional.count,
            (1...3).contains(numbers.count)
        else { throw failure("range() needs one to three integers") }
        let (start, stop) = numbers.count == 1 ? (0, numbers[0]) : (numbers[0], numbers[1])
        let step = numbers.count == 3 ? numbers[2] : 1
        return .range(try range(from: start, to: stop, by: step))
    }

    /// Python's `range` with its count.
    func range(from start: Int, to stop: Int, by step: Int) throws -> JinjaRange {
        guard step != 0 else { throw failure("range() with a step of 0") }
        var count: UInt = 0
        if step > 0 ? start < stop : start > stop {
            let distance = UInt(bitPattern: step > 0 ? stop &- start : start &- stop)
            count = (distance - 1) / step.magnitude + 1
        }
        guard count <= 100_000 else { throw failure("range() of more than 100000 numbers") }
        return JinjaRange(start: start, stop: stop, step: step, count: Int(count))
    }
}

/// The arguments of a call.
struct JinjaArguments {
    var positional: [JinjaValue] = []
    var named: [(name: String, value: JinjaValue)] = []

    var isEmpty: Bool { positional.isEmpty && named.isEmpty }

    /// The values of the parameters `names`, of which the first `required` must be given.
    ///
    /// Any other argument is an error.
    func bind(_ names: [String], required: Int = 0, onlyPositional: Bool = false, _ run: JinjaRun) throws
        -> [JinjaValue?]
    {
        guard positional.count <= names.count else { throw run.failure("more than \(names.count) arguments") }
        var values: [JinjaValue?] = positional
        values += [JinjaValue?](repeating: nil, count: names.count - positional.count)
        for argument in named {
            guard !onlyPositional, let index = names.firstIndex(of: argument.name), case nil = values[index]
            else {
                throw run.failure("an unexpected argument '\(argument.name)'")
            }
            values[index] = argument.value
        }
        if let missing = values.prefix(required).firstIndex(where: {
            if case nil = $0 { true } else { false }
        }) {
            throw run.failure("the argument '\(names[missing])' is missing")
        }
        return values
    }

}
