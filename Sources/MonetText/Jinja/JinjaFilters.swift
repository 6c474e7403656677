/// The filters of Jinja2 and the `tojson` of transformers, `value | name`.
enum JinjaFilters {
    /// The names of all filters, also of those that are refused.
    static let names: Set<String> = [
        "abs", "attr", "batch", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape",
        "filesizeformat", "first", "float", "forceescape", "format", "groupby", "indent", "int", "join",
        "last",
        "length", "list", "lower", "items", "map", "min", "max", "pprint", "random", "reject", "rejectattr",
        "replace", "reverse", "round", "safe", "select", "selectattr", "slice", "sort", "string", "striptags",
        "sum", "title", "trim", "truncate", "unique", "upper", "urlencode", "urlize", "wordcount", "wordwrap",
        "xmlattr", "tojson",
    ]

    /// The filter that lm-evaluation-harness adds to those of Jinja2.
    static let replacement = "regex_replace"

    static func apply(_ name: String, to value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        if name == replacement, run.environment.replacesExpressions {
            return try replace(value, arguments, run)
        }
        guard names.contains(name) else { throw run.failure("the filter '\(name)' does not exist") }
        if case .markup = value, !["string", "safe", "length", "count", "default", "d"].contains(name) {
            throw run.unsupported("the filter '\(name)' of a text marked safe")
        }
        if let result = try JinjaTextFilters.apply(name, to: value, arguments, run) { return result }
        switch name {
        case "default", "d":
            let values = try arguments.bind(["default_value", "boolean"], run)
            if case .undefined = value { return values[0] ?? .string("") }
            return values[1]?.isTrue ?? false && !value.isTrue ? values[0] ?? .string("") : value
        case "tojson": return try json(value, arguments, run)
        case "length", "count":
            _ = try arguments.bind([], run)
            return .int(try length(value, run))
        case "list":
            _ = try arguments.bind([], run)
            return try run.list(try run.elements(value))
        case "first", "last", "reverse", "items": return try end(name, value, arguments, run)
        case "join":
            let values = try arguments.bind(["d", "attribute"], run)
            let items = try attributes(values[1], of: try run.elements(value), run)
            return .string(try join(items, by: try run.text(of: values[0] ?? .string("")), run))
        case "map": return try map(value, arguments, run)
        case "select", "reject", "selectattr", "rejectattr": return try select(name, value, arguments, run)
        case "sort", "unique", "min", "max", "groupby", "dictsort":
            return try sort(name, value, arguments, run)
        case "sum":
            let values = try arguments.bind(["attribute", "start"], run)
            var sum = values[1] ?? .int(0)
            if case .string = sum { throw run.failure("a sum of texts") }
            for item in try attributes(values[0], of: try run.elements(value), run) {
                try run.work(1)
                sum = try JinjaOperators.arithmetic(.add, sum, item, run)
            }
            return sum
        case "batch", "slice": return try batch(name, value, arguments, run)
        case "abs", "round", "int", "float": return try number(name, value, arguments, run)
        case "attr":
            guard case .string(let attribute)? = try arguments.bind(["name"], required: 1, run)[0] else {
                throw run.failure("attr() needs a name")
            }
            return try JinjaAccess.attribute(attribute, of: value, fallsBack: false, run)
        default: throw run.unsupported("the filter '\(name)'")
        }
    }

    // MARK: JSON

    private static func json(_ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> JinjaValue
    {
        let values = try arguments.bind(["ensure_ascii", "indent", "separators", "sort_keys"], run)
        var options = JinjaRepresentation.JSONOptions()
        options.isASCII = values[0]?.isTrue ?? false
        options.sortsKeys = values[3]?.isTrue ?? false
        switch values[1] ?? .none {
        case .none: break
        case .string(let text): options.indent = text
        case let indent:
            guard let width = indent.integer else { throw run.failure("tojson(indent=\(indent.kind))") }
            try run.make(bytes: max(0, width))
            options.indent = String(repeating: " ", count: max(0, width))
        }
        if options.indent != nil { options.itemSeparator = "," }
        switch values[2] ?? .none {
        case .none: break
        case .list(let list), .tuple(let list):
            guard list.items.count == 2, let item = list.items[0].text, let key = list.items[1].text else {
                throw run.failure("tojson(separators=…) needs two texts")
            }
            (options.itemSeparator, options.keySeparator) = (item, key)
        case let other: throw run.failure("tojson(separators=\(other.kind))")
        }
        var writer = JinjaRepresentation(run: run)
        try writer.writeJSON(value, options)
        return .string(writer.text)
    }

    /// Python's `re.sub(pattern, repl, value, count)`.
    private static func replace(_ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> JinjaValue
    {
        let values = try arguments.bind(["pattern", "repl", "count"], required: 2, run)
        let (text, count) = (try run.text(of: value), values[2]?.integer ?? 0)
        guard let pattern = values[0]?.text, let replacement = values[1]?.text else {
            throw run.failure("\(Self.replacement)() needs a pattern and a replacement")
        }
        try run.lookClosely(at: text)
        do {
            return try run.string(
                try PythonExpression(pattern).replacing(in: text, with: replacement, count: count))
        } catch let error as PythonExpression.Failure {
            throw run.failure(error.description)
        }
    }

    // MARK: Elements

    private static func length(_ value: JinjaValue, _ run: JinjaRun) throws -> Int {
        switch value {
        case .undefined:
            try run.requireDefined(value)
            return 0
        case .string(let text), .markup(let text):
            try run.look(at: text.utf8.count)
            return text.unicodeScalars.count
        case .list(let list), .tuple(let list): return list.items.count
        case .dictionary(let dictionary), .view(let dictionary, _): return dictionary.count
        case .range(let range): return range.count
        default: throw run.failure("\(value.kind) has no length")
        }
    }

    private static func end(_ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        _ = try arguments.bind([], run)
        if name == "items" {
            switch value {
            case .undefined: return try run.generator([])
            case .dictionary(let dictionary):
                return try run.generator(try run.elements(.view(dictionary, .items)))
            default: throw run.failure("the items of \(value.kind)")
            }
        }
        if case .generator(let generator) = value {
            if name == "first" { return generator.next() ?? .undefined("first") }
            if name == "last" { throw run.failure("the last element of a generator") }
            return try run.list(try run.elements(value).reversed())
        }
        if case .string(let text) = value, name == "reverse" {
            return try run.string(JinjaText.string(text.unicodeScalars.reversed()))
        }
        let items = try run.elements(value)
        switch name {
        case "first": return items.first ?? .undefined("first")
        case "last": return items.last ?? .undefined("last")
        default: return try run.generator(items.reversed())
        }
    }

    private static func join(_ items: [JinjaValue], by separator: String, _ run: JinjaRun) throws -> String {
        var result = ""
        for (index, item) in items.enumerated() {
            try run.work(1)
            try run.make(bytes: separator.utf8.count)
            if index > 0 { result += separator }
            result += try run.text(of: item)
        }
        return result
    }

    private static func batch(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun
    ) throws
        -> JinjaValue
    {
        let values = try arguments.bind(
            [name == "batch" ? "linecount" : "slices", "fill_with"], required: 1, run)
        guard let count = values[0]?.integer, (1...100_000).contains(count) else {
            throw run.failure("\(name)() needs a positive integer of at most 100000")
        }
        var fill: JinjaValue? = values[1]
        if case .some(.none) = fill { fill = nil }
        let items = try run.elements(value)
        var parts: [[JinjaValue]] = []
        if name == "batch" {
            for start in stride(from: 0, to: items.count, by: count) {
                parts.append(Array(items[start..<min(start + count, items.count)]))
            }
            if let fill, let last = parts.indices.last {
                try run.make(bytes: 24 * count)
                parts[last] += [JinjaValue](repeating: fill, count: count - parts[last].count)
            }
        } else {
            let (size, longer) = items.count.quotientAndRemainder(dividingBy: count)
            var start = 0
            for index in 0..<count {
                let end = start + size + (index < longer ? 1 : 0)
                parts.append(Array(items[start..<end]))
                if let fill, index >= longer { parts[index].append(fill) }
                start = end
            }
        }
        return try run.generator(try parts.map { try run.list($0) })
    }

    // MARK: Attributes

    /// The parts of a path such as `author.name` or `0.1`.
    private static func path(_ attribute: JinjaValue, _ run: JinjaRun) throws -> [JinjaValue] {
        guard case .string(let text) = attribute else { return [attribute] }
        return try JinjaText.split(text, by: ".", at: JinjaText.occurrences(of: ".", in: text)).map { part in
            guard !part.isEmpty, part.unicodeScalars.allSatisfy(JinjaText.isDigit) else {
                return .string(part)
            }
            guard let index = Int(part) else { throw run.failure("an index of too many digits") }
            return .int(index)
        }
    }

    private static func follow(
        _ path: [JinjaValue], from item: JinjaValue, default fallback: JinjaValue?, _ run: JinjaRun
    )
        throws -> JinjaValue
    {
        var value = item
        for part in path {
            try run.work(1)
            value = try JinjaAccess.item(part, of: value, run)
            if let fallback, case .undefined = value { value = fallback }
        }
        return value
    }

    /// The attributes of all items, or the items if there is no attribute.
    private static func attributes(
        _ attribute: JinjaValue?, of items: [JinjaValue], default fallback: JinjaValue? = nil, _ run: JinjaRun
    ) throws -> [JinjaValue] {
        guard let attribute = given(attribute) else { return items }
        let path = try path(attribute, run)
        return try items.map { try follow(path, from: $0, default: fallback, run) }
    }

    /// Nil for `none`.
    private static func given(_ value: JinjaValue?) -> JinjaValue? {
        if case .some(.none) = value { return nil }
        return value
    }

    /// What Jinja2 goes through as it is asked: here at once, which is the same if nothing can change.
    private static func constants(_ value: JinjaValue, _ run: JinjaRun) throws -> [JinjaValue] {
        let items = try run.elements(value)
        guard items.allSatisfy(\.isConstant) else {
            throw run.unsupported("a generator of values that can change")
        }
        return items
    }

    private static func map(_ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> JinjaValue
    {
        guard value.isTrue else { return try run.generator([]) }
        let items = try constants(value, run)
        if arguments.positional.isEmpty {
            let values = try arguments.bind(["attribute", "default"], required: 1, run)
            let fallback = given(values[1])
            // `none` as the attribute gives the item itself.
            return try run.generator(try attributes(values[0], of: items, default: fallback, run))
        }
        var rest = arguments
        guard case .string(let name) = rest.positional.removeFirst() else {
            throw run.failure("map() needs a filter")
        }
        return try run.generator(
            try items.map { item in
                try run.work(1)
                return try apply(name, to: item, rest, run)
            })
    }

    private static func select(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun
    ) throws
        -> JinjaValue
    {
        guard value.isTrue else { return try run.generator([]) }
        var rest = arguments
        var attribute: JinjaValue?
        if name.hasSuffix("attr") {
            guard !rest.positional.isEmpty else { throw run.failure("\(name)() needs an attribute") }
            attribute = rest.positional.removeFirst()
        }
        var test: String?
        if !rest.positional.isEmpty {
            guard case .string(let name) = rest.positional.removeFirst(), JinjaTests.names.contains(name)
            else {
                throw run.failure("\(name)() needs a test")
            }
            test = name
        } else if !rest.named.isEmpty {
            throw run.failure("\(name)() with arguments but no test")
        }
        let items = try constants(value, run)
        let isWanted = name.hasPrefix("select")
        var selected: [JinjaValue] = []
        for (item, part) in zip(items, try attributes(attribute, of: items, run)) {
            try run.work(1)
            let passes = try test.map { try JinjaTests.test($0, part, rest, run) } ?? run.isTrue(part)
            if passes == isWanted { selected.append(item) }
        }
        return try run.generator(selected)
    }

    // MARK: Order

    private static func sort(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun
    ) throws
        -> JinjaValue
    {
        func lowered(_ values: [JinjaValue], _ isExact: JinjaValue?) throws -> [JinjaValue] {
            if isExact?.isTrue ?? false { return values }
            return try values.map { value in
                guard case .string(let text) = value else { return value }
                try run.lookClosely(at: text)
                return try run.string(JinjaText.lower(text))
            }
        }
        switch name {
        case "sort":
            let values = try arguments.bind(["reverse", "case_sensitive", "attribute"], run)
            let items = try run.elements(value)
            var keys = items
            if case .string(let names)? = values[2], JinjaText.find(",", in: names) != nil {
                let columns = try JinjaText.split(
                    names, by: ",", at: JinjaText.occurrences(of: ",", in: names)
                ).map {
                    try lowered(try attributes(.string($0), of: items, run), values[1])
                }
                keys = try items.indices.map { row in try run.tuple(columns.map { $0[row] }) }
            } else {
                keys = try lowered(try attributes(values[2], of: items, run), values[1])
            }
            let order = try JinjaOperators.sortedIndices(keys, isReverse: try isReverse(values[0], run), run)
            return try run.list(order.map { items[$0] })
        case "dictsort":
            let values = try arguments.bind(["case_sensitive", "by", "reverse"], run)
            guard case .dictionary(let dictionary) = value else {
                throw run.failure("dictsort of \(value.kind)")
            }
            let by = (values[1] ?? .string("key")).text ?? ""
            guard by == "key" || by == "value" else { throw run.failure("dictsort is by 'key' or 'value'") }
            let keys = try lowered(by == "key" ? dictionary.keys : dictionary.values, values[0])
            let order = try JinjaOperators.sortedIndices(keys, isReverse: try isReverse(values[2], run), run)
            return try run.list(
                try order.map { try run.tuple([dictionary.keys[$0], dictionary.values[$0]]) })
        case "groupby":
            let values = try arguments.bind(["attribute", "default", "case_sensitive"], required: 1, run)
            let items = try run.elements(value)
            let exact = try attributes(values[0], of: items, default: given(values[1]), run)
            return try grouped(items, exact, try lowered(exact, values[2]), run)
        case "unique":
            let values = try arguments.bind(["case_sensitive", "attribute"], run)
            let items = try constants(value, run)
            let keys = try lowered(try attributes(values[1], of: items, run), values[0])
            var seen: Set<JinjaKey> = []
            return try run.generator(
                try items.indices.filter { seen.insert(try run.key(keys[$0])).inserted }.map { items[$0] })
        default:
            let values = try arguments.bind(["case_sensitive", "attribute"], run)
            let items = try run.elements(value)
            let keys = try lowered(try attributes(values[1], of: items, run), values[0])
            guard var best = items.indices.first else { return .undefined(name) }
            for index in items.indices.dropFirst() {
                let (first, second) = name == "min" ? (keys[index], keys[best]) : (keys[best], keys[index])
                try run.work(1)
                if try JinjaOperators.isLess(first, second, run) { best = index }
            }
            return items[best]
        }
    }

    private static func isReverse(_ value: JinjaValue?, _ run: JinjaRun) throws -> Bool {
        guard let number = (value ?? .bool(false)).integer else {
            throw run.failure("'reverse' needs true or false")
        }
        return number != 0
    }

    private static func grouped(
        _ items: [JinjaValue], _ exact: [JinjaValue], _ keys: [JinjaValue], _ run: JinjaRun
    ) throws
        -> JinjaValue
    {
        var groups: [[Int]] = []
        for index in try JinjaOperators.sortedIndices(keys, isReverse: false, run) {
            if let first = groups.last?.first, try JinjaOperators.equal(keys[first], keys[index], run) {
                groups[groups.count - 1].append(index)
            } else {
                groups.append([index])
            }
        }
        return try run.list(
            try groups.map { group in try run.group([exact[group[0]], try run.list(group.map { items[$0] })])
            })
    }

    // MARK: Numbers

    private static func number(
        _ name: String, _ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun
    ) throws
        -> JinjaValue
    {
        if case .undefined = value { throw run.failure("\(name) of \(value.kind)") }
        switch name {
        case "abs":
            _ = try arguments.bind([], run)
            if case .double(let number) = value { return .double(number.magnitude) }
            guard let number = value.integer else { throw run.failure("abs of \(value.kind)") }
            return number < 0 ? try JinjaOperators.signed(value, isNegative: true, run) : .int(number)
        case "int":
            let values = try arguments.bind(["default", "base"], run)
            guard let base = (values[1] ?? .int(10)).integer else {
                throw run.failure("int() with that base")
            }
            if let number = value.integer { return .int(number) }
            var number: Double?
            if case .double(let value) = value { number = value }
            if case .string(let text) = value {
                try run.lookClosely(at: text)
                if let integer = try JinjaText.integer(text, base: base, run) { return .int(integer) }
                number = try JinjaText.double(text, run)
            }
            guard let number else { return values[0] ?? .int(0) }
            guard let integer = Int(exactly: number.rounded(.towardZero)) else {
                throw run.failure("an integer beyond 64 bits")
            }
            return .int(integer)
        case "float":
            let values = try arguments.bind(["default"], run)
            if case .string(let text) = value {
                try run.lookClosely(at: text)
                return try JinjaText.double(text, run).map { .double($0) } ?? values[0] ?? .double(0)
            }
            return try JinjaOperators.number(value, run).map { .double($0) } ?? values[0] ?? .double(0)
        default:
            let values = try arguments.bind(["precision", "method"], run)
            return try JinjaFormat.round(
                value, (values[0] ?? .int(0)).integer, (values[1] ?? .string("common")).text ?? "", run)
        }
    }
}
