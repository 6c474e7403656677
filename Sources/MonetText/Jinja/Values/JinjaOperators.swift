import Foundation

/// Python's operators.
enum JinjaOperators {
    // MARK: Arithmetic

    static func signed(_ value: JinjaValue, isNegative: Bool, _ run: JinjaRun) throws -> JinjaValue {
        if case .double(let number) = value { return .double(isNegative ? -number : number) }
        guard let number = value.integer else { throw run.failure("a sign before \(value.kind)") }
        return isNegative ? try difference(0, number, run) : .int(number)
    }

    private static func difference(_ a: Int, _ b: Int, _ run: JinjaRun) throws -> JinjaValue {
        try integer(a.subtractingReportingOverflow(b), run)
    }

    private static func integer(_ result: (partialValue: Int, overflow: Bool), _ run: JinjaRun) throws
        -> JinjaValue
    {
        guard !result.overflow else { throw run.failure("an integer beyond 64 bits") }
        return .int(result.partialValue)
    }

    static func arithmetic(_ symbol: JinjaOperator, _ a: JinjaValue, _ b: JinjaValue, _ run: JinjaRun) throws
        -> JinjaValue
    {
        if let x = a.integer, let y = b.integer { return try integers(symbol, x, y, run) }
        if let x = try number(a, run), let y = try number(b, run) { return try doubles(symbol, x, y, run) }
        switch (symbol, a, b) {
        case (_, .markup, _), (_, _, .markup):
            throw run.unsupported("'\(symbol.rawValue)' with a text marked safe")
        case (.add, .string(let x), .string(let y)): return try run.string(x + y)
        case (.add, .list(let x), .list(let y)): return try run.list(x.items + y.items)
        case (.add, .tuple(let x), .tuple(let y)): return try run.tuple(x.items + y.items)
        case (.multiply, _, _):
            if let count = b.integer, let value = try repeated(a, count, run) { return value }
            if let count = a.integer, let value = try repeated(b, count, run) { return value }
        case (.remainder, .string(let format), _): return .string(try JinjaFormat.percent(format, b, run))
        default: break
        }
        throw run.failure("'\(symbol.rawValue)' between \(a.kind) and \(b.kind)")
    }

    private static func repeated(_ value: JinjaValue, _ count: Int, _ run: JinjaRun) throws -> JinjaValue? {
        let count = max(0, count)
        func size(_ unit: Int) throws {
            let (bytes, overflow) = unit.multipliedReportingOverflow(by: count)
            try run.make(bytes: overflow ? .max : bytes)
        }
        switch value {
        case .string(let text):
            try size(text.utf8.count)
            return .string(JinjaText.repeated(text, count))
        case .list(let list), .tuple(let list):
            try size(24 * list.items.count)
            var items: [JinjaValue] = []
            if !list.items.isEmpty { for _ in 0..<count { items += list.items } }
            if case .list = value { return try run.list(items) }
            return try run.tuple(items)
        default: return nil
        }
    }

    /// The value as a double, if it is a number; integers that doubles cannot hold are refused.
    static func number(_ value: JinjaValue, _ run: JinjaRun) throws -> Double? {
        if case .double(let number) = value { return number }
        guard let integer = value.integer else { return nil }
        guard integer.magnitude <= 1 << 53 else {
            throw run.failure("an integer beyond 53 bits with a float")
        }
        return Double(integer)
    }

    private static func integers(_ symbol: JinjaOperator, _ x: Int, _ y: Int, _ run: JinjaRun) throws
        -> JinjaValue
    {
        switch symbol {
        case .add: return try integer(x.addingReportingOverflow(y), run)
        case .subtract: return try difference(x, y, run)
        case .multiply: return try integer(x.multipliedReportingOverflow(by: y), run)
        case .divideDown, .remainder:
            guard y != 0 else { throw run.failure("division by zero") }
            if y == -1 { return symbol == .remainder ? .int(0) : try difference(0, x, run) }
            // Python rounds towards minus infinity.
            let (quotient, remainder) = x.quotientAndRemainder(dividingBy: y)
            let isRounded = remainder != 0 && (remainder < 0) != (y < 0)
            return .int(
                symbol == .divideDown ? quotient - (isRounded ? 1 : 0) : remainder + (isRounded ? y : 0))
        case .power where y >= 0:
            var (result, base, exponent) = (1, x, y)
            while exponent > 0 {
                if exponent & 1 == 1 {
                    guard
                        case .int(let product) = try integer(
                            result.multipliedReportingOverflow(by: base), run)
                    else { break }
                    result = product
                }
                exponent >>= 1
                if exponent > 0 {
                    guard case .int(let square) = try integer(base.multipliedReportingOverflow(by: base), run)
                    else { break }
                    base = square
                }
            }
            return .int(result)
        default:
            guard let a = try number(.int(x), run), let b = try number(.int(y), run) else { return .none }
            return try doubles(symbol, a, b, run)
        }
    }

    private static func doubles(_ symbol: JinjaOperator, _ x: Double, _ y: Double, _ run: JinjaRun) throws
        -> JinjaValue
    {
        switch symbol {
        case .add: return try run.check(x + y)
        case .subtract: return try run.check(x - y)
        case .multiply: return try run.check(x * y)
        case .power:
            guard x >= 0 || y == y.rounded() else { throw run.failure("a power that is not a real number") }
            guard x != 0 || y >= 0 else { throw run.failure("zero to a negative power") }
            return try run.check(pow(x, y))
        case .divide, .divideDown, .remainder:
            guard y != 0 else { throw run.failure("division by zero") }
            if symbol == .divide { return try run.check(x / y) }
            var remainder = fmod(x, y)
            var quotient = (x - remainder) / y
            if remainder == 0 {
                remainder = y.sign == .minus ? -0.0 : 0.0
            } else if (y < 0) != (remainder < 0) {
                remainder += y
                quotient -= 1
            }
            if symbol == .remainder { return try run.check(remainder) }
            var floor = quotient.rounded(.down)
            if quotient - floor > 0.5 { floor += 1 }
            return try run.check(quotient == 0 ? (x / y).sign == .minus ? -0.0 : 0.0 : floor)
        default: throw run.failure("'\(symbol.rawValue)' between numbers")
        }
    }

    // MARK: Comparisons

    static func compare(_ symbol: JinjaOperator, _ a: JinjaValue, _ b: JinjaValue, _ run: JinjaRun) throws
        -> Bool
    {
        switch symbol {
        case .equal: return try equal(a, b, run)
        case .notEqual: return try !equal(a, b, run)
        case .less: return try isLess(a, b, run)
        case .greater: return try isLess(b, a, run)
        case .lessOrEqual: return try !isLess(b, a, run)
        case .greaterOrEqual: return try !isLess(a, b, run)
        case .contained: return try contains(b, a, run)
        case .notContained: return try !contains(b, a, run)
        default: throw run.failure("'\(symbol.rawValue)' is no comparison")
        }
    }

    /// Python's `a == b`.
    static func equal(_ a: JinjaValue, _ b: JinjaValue, _ run: JinjaRun) throws -> Bool {
        try run.requireDefined(a)
        try run.requireDefined(b)
        if let x = a.integer, let y = b.integer { return x == y }
        switch (a, b) {
        case (.undefined, .undefined), (.none, .none): return true
        case (.string(let x), .string(let y)), (.markup(let x), .markup(let y)),
            (.string(let x), .markup(let y)),
            (.markup(let x), .string(let y)):
            guard x.utf8.count == y.utf8.count else { return false }
            try run.look(at: x.utf8.count)
            return JinjaText.equal(x, y)
        case (.list(let x), .list(let y)), (.tuple(let x), .tuple(let y)):
            if x === y { return true }
            guard x.items.count == y.items.count else { return false }
            return try firstDifference(x.items, y.items, run) == nil
        case (.dictionary(let x), .dictionary(let y)):
            if x === y { return true }
            guard x.count == y.count else { return false }
            for (key, value) in zip(x.keys, x.values) {
                try run.work(1)
                guard let other = y[try run.key(key)], try equal(value, other, run) else { return false }
            }
            return true
        case (.range(let x), .range(let y)):
            return x.count == y.count
                && (x.count == 0 || x.start == y.start && (x.count == 1 || x.step == y.step))
        case (.namespace(let x), .namespace(let y)): return x === y
        case (.macro(let x), .macro(let y)): return x === y
        case (.loop(let x), .loop(let y)): return x === y
        case (.generator(let x), .generator(let y)): return x === y
        case (.function(let x), .function(let y)): return x == y
        case (.view, .view), (.method, .method): throw run.unsupported("'==' between \(a.kind) and another")
        default: return order(a, b) == .orderedSame
        }
    }

    /// The first index at which two sequences differ, up to the end of the shorter.
    private static func firstDifference(_ a: [JinjaValue], _ b: [JinjaValue], _ run: JinjaRun) throws -> Int?
    {
        for (index, (x, y)) in zip(a, b).enumerated() {
            try run.work(1)
            if try !equal(x, y, run) { return index }
        }
        return nil
    }

    /// How two numbers compare, exactly; nil for other values.
    private static func order(_ a: JinjaValue, _ b: JinjaValue) -> ComparisonResult? {
        switch (a, b) {
        case (.double(let x), .double(let y)):
            return x < y ? .orderedAscending : x == y ? .orderedSame : .orderedDescending
        case (.double(let x), _):
            guard let y = b.integer else { return nil }
            let floor = x.rounded(.down)
            guard let whole = Int(exactly: floor) else {
                return x < 0 ? .orderedAscending : .orderedDescending
            }
            if whole != y { return whole < y ? .orderedAscending : .orderedDescending }
            return x == floor ? .orderedSame : .orderedDescending
        case (_, .double):
            guard let reverse = order(b, a) else { return nil }
            return ComparisonResult(rawValue: -reverse.rawValue)
        default:
            guard let x = a.integer, let y = b.integer else { return nil }
            return x < y ? .orderedAscending : x == y ? .orderedSame : .orderedDescending
        }
    }

    /// Python's `a < b`.
    static func isLess(_ a: JinjaValue, _ b: JinjaValue, _ run: JinjaRun) throws -> Bool {
        if let order = order(a, b) { return order == .orderedAscending }
        switch (a, b) {
        case (.string(let x), .string(let y)):
            // The order of UTF-8 is the order of code points.
            try run.look(at: min(x.utf8.count, y.utf8.count))
            return x.utf8.lexicographicallyPrecedes(y.utf8)
        case (.list(let x), .list(let y)), (.tuple(let x), .tuple(let y)):
            guard let index = try firstDifference(x.items, y.items, run) else {
                return x.items.count < y.items.count
            }
            return try isLess(x.items[index], y.items[index], run)
        default: throw run.failure("an order of \(a.kind) and \(b.kind)")
        }
    }

    /// Python's `item in container`.
    static func contains(_ container: JinjaValue, _ item: JinjaValue, _ run: JinjaRun) throws -> Bool {
        switch container {
        case .string(let text):
            guard case .string(let part) = item else { throw run.failure("\(item.kind) in a text") }
            try run.look(at: text.utf8.count)
            return JinjaText.find(part, in: text) != nil
        case .dictionary(let dictionary), .view(let dictionary, .keys):
            return dictionary[try run.key(item)] != nil
        case .range(let range):
            guard let number = item.integer else { throw run.unsupported("\(item.kind) in a range") }
            return try run.elements(.range(range)).contains { $0.integer == number }
        case .list, .tuple, .view, .undefined:
            return try run.elements(container).contains { element in
                try run.work(1)
                return try equal(element, item, run)
            }
        case .generator: throw run.unsupported("'in' with a generator")
        default: throw run.failure("'in' with \(container.kind)")
        }
    }

    // MARK: Orders of lists

    /// Indices of `keys` in their order, equal ones as they are.
    static func sortedIndices(_ keys: [JinjaValue], isReverse: Bool, _ run: JinjaRun) throws -> [Int] {
        try keys.indices.sorted { a, b in
            try run.work(1)
            let (first, second) = isReverse ? (keys[b], keys[a]) : (keys[a], keys[b])
            if try isLess(first, second, run) { return true }
            return a < b ? try !isLess(second, first, run) : false
        }
    }
}

/// Members and parts of values.
enum JinjaAccess {
    /// `value.name`: an attribute of Python's type, or else an item.
    static func attribute(_ name: String, of value: JinjaValue, fallsBack: Bool = true, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        if name.hasPrefix("__") { throw run.unsupported("the attribute '\(name)'") }
        if let found = try ownAttribute(name, of: value, run) { return found }
        if fallsBack, case .dictionary(let dictionary) = value { return dictionary[name] ?? .undefined(name) }
        return .undefined(name)
    }

    /// An attribute of Python's type.
    private static func ownAttribute(_ name: String, of value: JinjaValue, _ run: JinjaRun) throws
        -> JinjaValue?
    {
        switch value {
        case .undefined: throw run.failure("the attribute '\(name)' of \(value.kind)")
        case .namespace(let namespace): return namespace.members[name]
        case .loop(let loop): return try loop.attribute(name, run)
        case .tuple(let list) where list.isGroup && (name == "grouper" || name == "list"):
            return list.items[name == "grouper" ? 0 : 1]
        case .string, .list, .tuple, .dictionary:
            // Methods that would change the value are undefined in the sandbox.
            if JinjaMethods.mutating(value).contains(name) { return .undefined(name) }
            return JinjaMethods.names(value).contains(name) ? .method(JinjaMethod(value, name)) : nil
        case .none: return nil
        case .bool, .int, .double:
            let names: Set<String> = [
                "real", "imag", "numerator", "denominator", "conjugate", "bit_length", "bit_count",
                "to_bytes",
                "from_bytes", "as_integer_ratio", "is_integer", "fromhex", "hex",
            ]
            if names.contains(name) { throw run.unsupported("the attribute '\(name)' of a number") }
            return nil
        default: throw run.unsupported("the attribute '\(name)' of \(value.kind)")
        }
    }

    /// `value[index]`: an item, or else an attribute if the index is a text.
    static func item(_ index: JinjaValue, of value: JinjaValue, _ run: JinjaRun) throws -> JinjaValue {
        switch value {
        case .undefined: throw run.failure("an item of \(value.kind)")
        case .dictionary(let dictionary):
            if let key = try run.possibleKey(index), let found = dictionary[key] { return found }
        case .list(let list), .tuple(let list):
            if let position = position(index, list.items.count) { return list.items[position] }
        case .range(let range):
            if let position = position(index, range.count) { return range[position] }
        case .string(let text):
            if index.integer != nil {
                try run.look(at: text.utf8.count)
                let scalars = text.unicodeScalars
                guard let position = position(index, scalars.count) else { return .undefined("") }
                return .string(String(scalars[scalars.index(scalars.startIndex, offsetBy: position)]))
            }
        case .none, .bool, .int, .double, .namespace, .loop, .generator: break
        default: throw run.unsupported("an item of \(value.kind)")
        }
        guard let name = index.text else { return .undefined("") }
        if case .undefined = value { return value }
        if name.hasPrefix("__") { throw run.unsupported("the item '\(name)'") }
        return try ownAttribute(name, of: value, run) ?? .undefined(name)
    }

    private static func position(_ index: JinjaValue, _ count: Int) -> Int? {
        guard let index = index.integer else { return nil }
        let position = index < 0 ? index &+ count : index
        return (0..<count).contains(position) ? position : nil
    }

    /// `value[start:stop:step]`
    static func slice(
        _ value: JinjaValue, _ start: JinjaValue, _ stop: JinjaValue, _ step: JinjaValue, _ run: JinjaRun
    ) throws -> JinjaValue {
        func number(_ value: JinjaValue) throws -> Int? {
            if case .none = value { return nil }
            guard let number = value.integer else { throw run.failure("\(value.kind) in a slice") }
            return number
        }
        let (start, stop, step) = (try number(start), try number(stop), try number(step) ?? 1)
        guard step != 0 else { throw run.failure("a slice with a step of 0") }
        func picked<Element>(_ items: [Element]) -> [Element] {
            indices(start, stop, step, items.count).map { items[$0] }
        }
        switch value {
        case .string(let text):
            try run.make(bytes: text.utf8.count)
            return .string(JinjaText.string(picked(Array(text.unicodeScalars))))
        case .list(let list): return try run.list(picked(list.items))
        case .tuple(let list): return try run.tuple(picked(list.items))
        case .range: throw run.unsupported("a slice of a range")
        case .markup: throw run.unsupported("a slice of a text marked safe")
        default: throw run.failure("a slice of \(value.kind)")
        }
    }

    private static func indices(_ start: Int?, _ stop: Int?, _ step: Int, _ count: Int) -> StrideTo<Int> {
        func clamped(_ index: Int?, _ fallback: Int) -> Int {
            guard let index else { return fallback }
            let position = index < 0 ? index + count : index
            return step > 0 ? min(max(position, 0), count) : min(max(position, -1), count - 1)
        }
        // No step leaves more than the whole sequence behind; a smaller one cannot overflow.
        let step = min(max(step, -count - 1), count + 1)
        return step > 0
            ? stride(from: clamped(start, 0), to: clamped(stop, count), by: step)
            : stride(from: clamped(start, count - 1), to: clamped(stop, -1), by: step)
    }
}
