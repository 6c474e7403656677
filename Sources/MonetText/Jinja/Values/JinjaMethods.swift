/// The methods of Python's texts, lists, tuples and dictionaries.
enum JinjaMethods {
    private static let textNames: Set<String> = [
        "capitalize", "casefold", "center", "count", "encode", "endswith", "expandtabs", "find", "format",
        "format_map", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "isidentifier",
        "islower",
        "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip",
        "maketrans", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust",
        "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title",
        "translate", "upper", "zfill",
    ]
    private static let listMutating: Set<String> = [
        "append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort",
    ]
    private static let dictionaryMutating: Set<String> = ["clear", "pop", "popitem", "setdefault", "update"]

    /// The methods of a value that can be called.
    static func names(_ value: JinjaValue) -> Set<String> {
        switch value {
        case .string: textNames
        case .list: ["copy", "count", "index"]
        case .tuple: ["count", "index"]
        case .dictionary: ["copy", "fromkeys", "get", "items", "keys", "values"]
        default: []
        }
    }

    /// The methods that the sandbox hides.
    static func mutating(_ value: JinjaValue) -> Set<String> {
        switch value {
        case .list: listMutating
        case .dictionary: dictionaryMutating
        default: []
        }
    }

    static func call(_ method: JinjaMethod, _ arguments: JinjaArguments, _ run: JinjaRun) throws -> JinjaValue
    {
        switch method.receiver {
        case .string(let text):
            try run.look(at: text.utf8.count)
            return try call(method.name, on: text, arguments, run)
        case .dictionary(let dictionary): return try call(method.name, on: dictionary, arguments, run)
        case .list(let list), .tuple(let list):
            if method.name == "copy", arguments.isEmpty { return method.receiver }
            let values = try arguments.bind(["value"], required: 1, onlyPositional: true, run)
            var matches: [Int] = []
            for (index, item) in list.items.enumerated() {
                try run.work(1)
                if try JinjaOperators.equal(item, values[0] ?? .none, run) { matches.append(index) }
            }
            if method.name == "count" { return .int(matches.count) }
            guard let first = matches.first else { throw run.failure("index(): no such element") }
            return .int(first)
        case .loop(let loop): return try loop.call(method.name, arguments, run)
        default: throw run.unsupported("the method .\(method.name)()")
        }
    }

    private static func call(
        _ name: String, on dictionary: JinjaDictionary, _ arguments: JinjaArguments, _ run: JinjaRun
    ) throws -> JinjaValue {
        if name == "get" {
            let values = try arguments.bind(["key", "default"], required: 1, onlyPositional: true, run)
            return dictionary[try run.key(values[0] ?? .none)] ?? values[1] ?? .none
        }
        guard arguments.isEmpty else { throw run.failure("the method .\(name)() takes no arguments") }
        switch name {
        case "items": return .view(dictionary, .items)
        case "keys": return .view(dictionary, .keys)
        case "values": return .view(dictionary, .values)
        case "copy": return .dictionary(dictionary)
        default: throw run.unsupported("the method .\(name)()")
        }
    }

    // MARK: Texts

    private static func call(_ name: String, on text: String, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        func texts(_ names: [String], required: Int? = nil) throws -> [String?] {
            let values = try arguments.bind(
                names, required: required ?? names.count, onlyPositional: true, run)
            return try values.map { value in
                switch value {
                case nil, .some(.none): return nil
                case .string(let text)?: return text
                case let other?: throw run.failure("the method .\(name)() with \(other.kind)")
                }
            }
        }
        switch name {
        case "upper", "lower", "title", "capitalize", "swapcase", "isalnum", "isalpha", "isascii",
            "isdecimal",
            "isdigit", "islower", "isnumeric", "isspace", "isupper":
            guard arguments.isEmpty else { throw run.failure("the method .\(name)() takes no arguments") }
            return try letters(name, text, run)
        case "strip", "lstrip", "rstrip":
            let characters = try texts(["chars"], required: 0)[0]
            try run.lookClosely(at: text)
            return try run.string(
                JinjaText.strip(text, left: name != "rstrip", right: name != "lstrip", characters: characters)
            )
        case "split", "rsplit": return try split(name, text, arguments, run)
        case "splitlines":
            let keepsEnds = try arguments.bind(["keepends"], run)[0]?.isTrue ?? false
            try run.make(bytes: 5 * text.utf8.count)
            return try run.list(JinjaText.lines(text, keepsEnds: keepsEnds).map { .string($0) })
        case "partition", "rpartition":
            guard let separator = try texts(["sep"])[0], !separator.isEmpty else {
                throw run.failure("an empty separator")
            }
            let offsets = JinjaText.occurrences(of: separator, in: text, limit: name == "partition" ? 1 : -1)
            try run.make(bytes: text.utf8.count)
            guard let offset = name == "partition" ? offsets.first : lastOffset(of: separator, in: text)
            else {
                let parts = name == "partition" ? [text, "", ""] : ["", "", text]
                return try run.tuple(parts.map { .string($0) })
            }
            let end = offset + separator.utf8.count
            return try run.tuple([
                .string(JinjaText.slice(text, 0..<offset)), .string(separator),
                .string(JinjaText.slice(text, end..<text.utf8.count)),
            ])
        case "replace":
            let values = try arguments.bind(["old", "new", "count"], required: 2, onlyPositional: true, run)
            guard case .string(let old)? = values[0], case .string(let new)? = values[1],
                let limit = (values[2] ?? .int(-1)).integer
            else { throw run.failure("replace() needs two texts") }
            return .string(try JinjaText.replace(old, by: new, in: text, limit: limit, run))
        case "removeprefix":
            guard let part = try texts(["prefix"])[0] else {
                throw run.failure("removeprefix() needs a text")
            }
            try run.make(bytes: text.utf8.count)
            return .string(
                text.utf8.starts(with: part.utf8)
                    ? JinjaText.slice(text, part.utf8.count..<text.utf8.count) : text)
        case "removesuffix":
            guard let part = try texts(["suffix"])[0] else {
                throw run.failure("removesuffix() needs a text")
            }
            try run.make(bytes: text.utf8.count)
            return .string(
                hasSuffix(text, part) ? JinjaText.slice(text, 0..<(text.utf8.count - part.utf8.count)) : text)
        case "startswith", "endswith": return try affix(name, text, arguments, run)
        case "find", "rfind", "index", "rindex", "count": return try search(name, text, arguments, run)
        case "join":
            let values = try arguments.bind(["iterable"], required: 1, onlyPositional: true, run)
            return .string(try join(try run.elements(values[0] ?? .none), by: text, run))
        case "center", "ljust", "rjust", "zfill": return try padded(name, text, arguments, run)
        case "format": return .string(try JinjaFormat.format(text, arguments, run))
        default: throw run.unsupported("the method .\(name)()")
        }
    }

    private static func letters(_ name: String, _ text: String, _ run: JinjaRun) throws -> JinjaValue {
        let scalars = text.unicodeScalars
        func all(_ isTrue: (Unicode.Scalar) -> Bool) -> JinjaValue {
            .bool(!text.isEmpty && scalars.allSatisfy(isTrue))
        }
        try run.lookClosely(at: text)
        switch name {
        case "upper": return try run.string(JinjaText.upper(text))
        case "lower": return try run.string(JinjaText.lower(text))
        case "title": return try run.string(JinjaText.title(text))
        case "capitalize": return try run.string(JinjaText.capitalize(text))
        case "islower": return .bool(JinjaText.isLower(text))
        case "isupper": return .bool(JinjaText.isUpper(text))
        case "isascii": return .bool(text.utf8.allSatisfy { $0 < 128 })
        case "isspace": return all(JinjaText.isSpace)
        case "isalpha": return all(JinjaText.isLetter)
        case "isdecimal": return all(JinjaText.isDecimal)
        case "isdigit": return all(JinjaText.isDigit)
        case "isnumeric": return all { $0.properties.numericType != nil }
        case "isalnum": return all { JinjaText.isLetter($0) || $0.properties.numericType != nil }
        default: throw run.unsupported("the method .\(name)()")
        }
    }

    private static func split(_ name: String, _ text: String, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        let values = try arguments.bind(["sep", "maxsplit"], run)
        guard let limit = (values[1] ?? .int(-1)).integer else {
            throw run.failure("\(name)() needs an integer")
        }
        let isRight = name == "rsplit"
        try run.make(bytes: text.utf8.count)
        let parts: [String]
        switch values[0] ?? .none {
        case .none:
            try run.make(bytes: 4 * text.utf8.count)
            parts = JinjaText.words(text, limit: limit, fromRight: isRight)
        case .string(let separator):
            guard !separator.isEmpty else { throw run.failure("an empty separator") }
            let offsets: [Int]
            if isRight, limit >= 0 {
                offsets = offsetsFromRight(of: separator, in: text, limit: limit)
            } else {
                offsets = JinjaText.occurrences(of: separator, in: text, limit: limit)
            }
            try run.make(bytes: 64 * offsets.count)
            parts = JinjaText.split(text, by: separator, at: offsets)
        default: throw run.failure("\(name)() needs a text")
        }
        return try run.list(parts.map { .string($0) })
    }

    /// Offsets of occurrences, found from the right, in ascending order.
    private static func offsetsFromRight(of part: String, in text: String, limit: Int) -> [Int] {
        // Backwards, so that the search is that of `find`, which takes linear time.
        let (bytes, needle) = (Array(text.utf8.reversed()), Array(part.utf8.reversed()))
        var offsets: [Int] = []
        var start = 0
        while offsets.count < limit, let found = JinjaText.find(needle, in: bytes, from: start) {
            offsets.append(bytes.count - found - needle.count)
            start = found + needle.count
        }
        return offsets.reversed()
    }

    private static func lastOffset(of part: String, in text: String) -> Int? {
        offsetsFromRight(of: part, in: text, limit: 1).first
    }

    private static func hasSuffix(_ text: String, _ suffix: String) -> Bool {
        text.utf8.count >= suffix.utf8.count && text.utf8.suffix(suffix.utf8.count).elementsEqual(suffix.utf8)
    }

    /// The part of a text between optional indices of code points, and the index of its start.
    private static func part(_ text: String, _ start: JinjaValue?, _ end: JinjaValue?, _ run: JinjaRun) throws
        -> (text: String, start: Int)?
    {
        func index(_ value: JinjaValue?, _ fallback: Int, _ count: Int) throws -> Int {
            switch value ?? .none {
            case .none: return fallback
            case let value:
                guard let number = value.integer else { throw run.failure("\(value.kind) as an index") }
                return number < 0 ? max(0, number + count) : number
            }
        }
        if case nil = start, case nil = end { return (text, 0) }
        let scalars = Array(text.unicodeScalars)
        try run.make(bytes: 4 * scalars.count)
        let first = try index(start, 0, scalars.count)
        let last = min(try index(end, scalars.count, scalars.count), scalars.count)
        guard first <= last else { return nil }
        return (JinjaText.string(scalars[first..<last]), first)
    }

    private static func affix(_ name: String, _ text: String, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        let values = try arguments.bind(["affix", "start", "end"], required: 1, onlyPositional: true, run)
        var candidates = [values[0] ?? .none]
        if case .tuple(let list) = candidates[0] { candidates = list.items }
        let part = try part(text, values[1], values[2], run)?.text
        for candidate in candidates {
            guard case .string(let affix) = candidate else {
                throw run.failure("\(name)() with \(candidate.kind)")
            }
            try run.step(run.line)
            guard let part else { continue }
            if name == "startswith" ? part.utf8.starts(with: affix.utf8) : hasSuffix(part, affix) {
                return .bool(true)
            }
        }
        return .bool(false)
    }

    private static func search(_ name: String, _ text: String, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        let values = try arguments.bind(["sub", "start", "end"], required: 1, onlyPositional: true, run)
        guard case .string(let sub)? = values[0] else { throw run.failure("\(name)() needs a text") }
        let found = try part(text, values[1], values[2], run)
        if name == "count" {
            guard let found else { return .int(0) }
            if sub.isEmpty { return .int(found.text.unicodeScalars.count + 1) }
            return .int(JinjaText.occurrences(of: sub, in: found.text).count)
        }
        if let found {
            let isRight = name.hasPrefix("r")
            let offset = isRight ? lastOffset(of: sub, in: found.text) : JinjaText.find(sub, in: found.text)
            if let offset {
                return .int(found.start + JinjaText.slice(found.text, 0..<offset).unicodeScalars.count)
            }
        }
        guard name.hasSuffix("find") else { throw run.failure("\(name)(): no such text") }
        return .int(-1)
    }

    private static func padded(_ name: String, _ text: String, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue
    {
        let names = name == "zfill" ? ["width"] : ["width", "fillchar"]
        let values = try arguments.bind(names, required: 1, onlyPositional: true, run)
        let fill = values.count > 1 ? values[1] ?? .string(" ") : .string("0")
        guard let width = values[0]?.integer, case .string(let character) = fill,
            character.unicodeScalars.count == 1
        else { throw run.failure("\(name)() needs a width and one character") }
        return .string(try pad(text, width, name, character, run))
    }

    static func pad(_ text: String, _ width: Int, _ name: String, _ fill: String, _ run: JinjaRun) throws
        -> String
    {
        let count = text.unicodeScalars.count
        guard width > count else { return text }
        let missing = width - count
        let (bytes, overflow) = missing.multipliedReportingOverflow(by: fill.utf8.count)
        try run.make(bytes: overflow ? .max : bytes)
        try run.make(bytes: text.utf8.count)
        func filling(_ count: Int) -> String { JinjaText.repeated(fill, count) }
        switch name {
        case "ljust": return text + filling(missing)
        case "rjust": return filling(missing) + text
        case "zfill":
            guard let sign = text.unicodeScalars.first, sign == "+" || sign == "-" else {
                return filling(missing) + text
            }
            return String(sign) + filling(missing) + JinjaText.slice(text, 1..<text.utf8.count)
        default:
            let left = missing / 2 + (missing & width & 1)
            return filling(left) + text + filling(missing - left)
        }
    }

    /// Python's `separator.join(items)`.
    static func join(_ items: [JinjaValue], by separator: String, _ run: JinjaRun) throws -> String {
        var result = ""
        for (index, item) in items.enumerated() {
            guard case .string(let text) = item else { throw run.failure("join() with \(item.kind)") }
            try run.step(run.line)
            try run.make(bytes: text.utf8.count + separator.utf8.count)
            if index > 0 { result += separator }
            result += text
        }
        return result
    }
}
