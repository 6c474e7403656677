import MonetFoundation

/// A value inside a template, with the types of Python.
enum JinjaValue {
    /// What a missing name or member gives, with its name.
    case undefined(String)
    case none
    case bool(Bool)
    case int(Int)
    case double(Double)
    case string(String)
    /// A text marked safe, on which Python's operations would escape their operands.
    case markup(String)
    case list(JinjaList)
    case tuple(JinjaList)
    case dictionary(JinjaDictionary)
    /// `keys()`, `values()` or `items()` of a dictionary.
    case view(JinjaDictionary, JinjaDictionary.Part)
    case range(JinjaRange)
    /// A result of `map`, `select` and the like, which can be iterated once.
    case generator(JinjaGenerator)
    case namespace(JinjaNamespace)
    case macro(JinjaMacro)
    case loop(JinjaLoop)
    case function(JinjaFunction)
    case method(JinjaMethod)

    /// How many levels of values there are; Jinja2's own values cannot be deeper than Python's stack.
    var depth: Int {
        switch self {
        case .list(let list), .tuple(let list): list.depth
        case .dictionary(let dictionary), .view(let dictionary, _): dictionary.depth
        case .generator(let generator): generator.depth
        case .loop(let loop): loop.depth
        case .method(let method): method.depth
        default: 0
        }
    }

    /// Whether nothing inside it can change.
    var isConstant: Bool {
        switch self {
        case .list(let list), .tuple(let list): list.isConstant
        case .dictionary(let dictionary), .view(let dictionary, _): dictionary.isConstant
        case .generator, .namespace, .macro, .loop, .method: false
        default: true
        }
    }

    /// Python's `bool(value)`.
    var isTrue: Bool {
        switch self {
        case .undefined, .none: false
        case .bool(let value): value
        case .int(let value): value != 0
        case .double(let value): value != 0
        case .string(let value), .markup(let value): !value.isEmpty
        case .list(let list), .tuple(let list): !list.items.isEmpty
        case .dictionary(let dictionary), .view(let dictionary, _): dictionary.count > 0
        case .range(let range): range.count > 0
        default: true
        }
    }

    /// The integer, if it is an integer or a boolean.
    var integer: Int? {
        switch self {
        case .int(let value): value
        case .bool(let value): value ? 1 : 0
        default: nil
        }
    }

    /// The text, if it is one.
    var text: String? {
        switch self {
        case .string(let value): value
        default: nil
        }
    }

    /// The name of the type, for messages.
    var kind: String {
        switch self {
        case .undefined(let name): name.isEmpty ? "an undefined value" : "the undefined '\(name)'"
        case .none: "None"
        case .bool: "a boolean"
        case .int: "an integer"
        case .double: "a float"
        case .string: "a text"
        case .markup: "a text marked safe"
        case .list: "a list"
        case .tuple: "a tuple"
        case .dictionary: "a dictionary"
        case .view: "a view of a dictionary"
        case .range: "a range"
        case .generator: "a generator"
        case .namespace: "a namespace"
        case .macro: "a macro"
        case .loop: "a loop"
        case .function, .method: "a function"
        }
    }
}

/// The elements of a list or a tuple.
final class JinjaList {
    let items: [JinjaValue]
    let depth: Int
    let isConstant: Bool
    /// Whether it is a pair made by `groupby`, with the attributes `grouper` and `list`.
    let isGroup: Bool

    /// Use `JinjaRun.list`, which checks the limits.
    init(_ items: [JinjaValue], isGroup: Bool = false) {
        self.items = items
        self.isGroup = isGroup
        depth = 1 + items.reduce(0) { max($0, $1.depth) }
        isConstant = items.allSatisfy(\.isConstant)
    }
}

/// A dictionary, with its members in the order of insertion.
final class JinjaDictionary {
    /// What a view shows.
    enum Part { case keys, values, items }

    private(set) var keys: [JinjaValue] = []
    private(set) var values: [JinjaValue] = []
    private var positions: [JinjaKey: Int] = [:]
    private(set) var depth = 1
    private(set) var isConstant = true

    var count: Int { keys.count }

    /// Sets a member while the dictionary is made; values do not change afterwards.
    func set(_ key: JinjaKey, _ original: JinjaValue, _ value: JinjaValue) {
        if let position = positions[key] {
            values[position] = value
        } else {
            positions[key] = keys.count
            keys.append(original)
            values.append(value)
        }
        depth = max(depth, 1 + max(value.depth, original.depth))
        isConstant = isConstant && value.isConstant
    }

    subscript(key: JinjaKey) -> JinjaValue? { positions[key].map { values[$0] } }
    subscript(name: String) -> JinjaValue? { self[.string(name)] }
}

/// A value as the key of a dictionary: equal where Python's values are.
enum JinjaKey: Hashable {
    case none
    case int(Int)
    case double(Double)
    case string(String)
    case tuple([JinjaKey])

    /// Nil for values that cannot be keys, or not in this package.
    init?(_ value: JinjaValue) {
        switch value {
        case .none: self = .none
        case .bool(let value): self = .int(value ? 1 : 0)
        case .int(let value): self = .int(value)
        case .double(let value): self = Int(exactly: value).map { .int($0) } ?? .double(value)
        case .string(let text), .markup(let text): self = .string(text)
        case .tuple(let list):
            var keys: [JinjaKey] = []
            for item in list.items {
                guard let key = JinjaKey(item) else { return nil }
                keys.append(key)
            }
            self = .tuple(keys)
        default: return nil
        }
    }

    // Texts are equal if their code points are, which is stricter than Swift's `==`.
    static func == (a: JinjaKey, b: JinjaKey) -> Bool {
        switch (a, b) {
        case (.none, .none): true
        case (.int(let x), .int(let y)): x == y
        case (.double(let x), .double(let y)): x == y
        case (.string(let x), .string(let y)): JinjaText.equal(x, y)
        case (.tuple(let x), .tuple(let y)): x == y
        default: false
        }
    }

    func hash(into hasher: inout Hasher) {
        switch self {
        case .none: hasher.combine(0)
        case .int(let value): hasher.combine(value)
        case .double(let value): hasher.combine(value)
        case .string(var text): text.withUTF8 { hasher.combine(bytes: UnsafeRawBufferPointer($0)) }
        case .tuple(let keys): hasher.combine(keys)
        }
    }
}

/// Python's `range`, of at most 100,000 numbers as in Jinja2's sandbox.
final class JinjaRange {
    let start: Int
    let step: Int
    let count: Int
    let stop: Int

    init(start: Int, stop: Int, step: Int, count: Int) {
        (self.start, self.stop, self.step, self.count) = (start, stop, step, count)
    }

    /// The number at an index below `count`.
    subscript(index: Int) -> JinjaValue { .int(start &+ index &* step) }
}

/// Elements that can be iterated once.
final class JinjaGenerator {
    private let items: [JinjaValue]
    private var position = 0
    let depth: Int

    init(_ items: [JinjaValue]) {
        self.items = items
        depth = 1 + items.reduce(0) { max($0, $1.depth) }
    }

    func next() -> JinjaValue? {
        guard position < items.count else { return nil }
        defer { position += 1 }
        return items[position]
    }
}

/// A record made by `namespace()`, the only value that templates can change.
final class JinjaNamespace {
    var members = JinjaDictionary()
}

/// A method and its receiver.
final class JinjaMethod {
    let receiver: JinjaValue
    let name: String
    var depth: Int { receiver.depth + 1 }

    init(_ receiver: JinjaValue, _ name: String) {
        self.receiver = receiver
        self.name = name
    }
}

/// The functions that templates can call.
enum JinjaFunction: String, CaseIterable {
    case range, dict, namespace, lipsum, cycler, joiner
    case raiseException = "raise_exception"
    case strftimeNow = "strftime_now"
}
