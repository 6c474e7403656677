/// The filters that make texts of texts.
enum JinjaTextFilters {
    /// Nil for the names of other filters.
    static func apply(_ name: String, to value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun)
        throws
        -> JinjaValue?
    {
        switch name {
        case "string":
            _ = try arguments.bind([], run)
            if case .markup = value { return value }
            return .string(try run.text(of: value))
        case "safe", "escape", "e", "forceescape":
            _ = try arguments.bind([], run)
            if case .markup = value { return value }
            let text = try run.text(of: value)
            return .markup(name == "safe" ? text : try escaped(text, run))
        case "upper", "lower", "capitalize", "title":
            _ = try arguments.bind([], run)
            let text = try run.text(of: value)
            try run.lookClosely(at: text)
            switch name {
            case "upper": return try run.string(JinjaText.upper(text))
            case "lower": return try run.string(JinjaText.lower(text))
            case "capitalize": return try run.string(JinjaText.capitalize(text))
            default: return try run.string(JinjaText.titleFilter(text))
            }
        case "trim":
            let characters = try arguments.bind(["chars"], run)[0] ?? .none
            var set: String?
            if case .none = characters {
            } else {
                guard case .string(let text) = characters else {
                    throw run.failure("trim() with \(characters.kind)")
                }
                set = text
            }
            let text = try run.text(of: value)
            try run.lookClosely(at: text)
            return try run.string(JinjaText.strip(text, characters: set))
        case "replace":
            let values = try arguments.bind(["old", "new", "count"], required: 2, run)
            var limit = -1
            if let count = values[2] {
                if case .none = count {
                } else {
                    guard let number = count.integer else {
                        throw run.failure("replace() with \(count.kind)")
                    }
                    limit = number
                }
            }
            let (old, new) = (try run.text(of: values[0] ?? .none), try run.text(of: values[1] ?? .none))
            return .string(
                try JinjaText.replace(old, by: new, in: try run.text(of: value), limit: limit, run))
        case "center":
            guard let width = (try arguments.bind(["width"], run)[0] ?? .int(80)).integer else {
                throw run.failure("center() needs a width")
            }
            return .string(try JinjaMethods.pad(try run.text(of: value), width, name, " ", run))
        case "indent": return .string(try indent(value, arguments, run))
        case "truncate": return .string(try truncate(value, arguments, run))
        case "wordcount":
            _ = try arguments.bind([], run)
            let text = try run.text(of: value)
            try run.lookClosely(at: text)
            return .int(wordCount(text))
        case "format":
            guard arguments.named.isEmpty else { throw run.unsupported("format() with named arguments") }
            var rest = arguments.positional[...]
            return .string(try JinjaFormat.percent(try run.text(of: value), &rest, run))
        case "urlencode":
            _ = try arguments.bind([], run)
            guard case .string(let text) = value else { throw run.unsupported("urlencode of \(value.kind)") }
            return .string(try percentEncoded(text, run))
        default: return nil
        }
    }

    /// As Python's markupsafe escapes.
    private static func escaped(_ text: String, _ run: JinjaRun) throws -> String {
        var result = ""
        try run.make(bytes: 6 * text.utf8.count)
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "'": result += "&#39;"
            case "\"": result += "&#34;"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func indent(_ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> String
    {
        let values = try arguments.bind(["width", "first", "blank"], run)
        guard case .string(let text) = value else { throw run.failure("indent of \(value.kind)") }
        let indentation: String
        switch values[0] ?? .int(4) {
        case .string(let text): indentation = text
        case let width:
            guard let width = width.integer else { throw run.failure("indent() needs a width") }
            try run.make(bytes: max(0, width))
            indentation = String(repeating: " ", count: max(0, width))
        }
        try run.make(bytes: 5 * text.utf8.count)
        let lines = JinjaText.lines(text + "\n")
        let (bytes, overflow) = indentation.utf8.count.multipliedReportingOverflow(by: lines.count)
        try run.make(bytes: overflow ? .max : bytes)
        let isBlankToo = values[2]?.isTrue ?? false
        var result = values[1]?.isTrue ?? false ? indentation : ""
        for (index, line) in lines.enumerated() {
            if index > 0 { result += line.isEmpty && !isBlankToo ? "\n" : "\n" + indentation }
            result += line
        }
        return result
    }

    private static func truncate(_ value: JinjaValue, _ arguments: JinjaArguments, _ run: JinjaRun) throws
        -> String
    {
        let values = try arguments.bind(["length", "killwords", "end", "leeway"], run)
        var leeway = values[3] ?? .int(5)
        if case .none = leeway { leeway = .int(5) }
        guard case .string(let text) = value, case .string(let end) = values[2] ?? .string("..."),
            let length = (values[0] ?? .int(255)).integer, let leeway = leeway.integer, leeway >= 0
        else { throw run.failure("truncate() with these values") }
        let scalars = Array(text.unicodeScalars)
        let kept = length - min(end.unicodeScalars.count, max(length, 0))
        guard length >= end.unicodeScalars.count else {
            throw run.failure("truncate() below the length of its end")
        }
        try run.make(bytes: 5 * text.utf8.count + end.utf8.count)
        if scalars.count - leeway <= length { return text }
        let start = scalars[..<min(kept, scalars.count)]
        if values[1]?.isTrue ?? false { return JinjaText.string(start) + end }
        let cut = start.lastIndex(of: " ") ?? start.endIndex
        return JinjaText.string(start[..<cut]) + end
    }

    private static func wordCount(_ text: String) -> Int {
        var count = 0
        var isInside = false
        for scalar in text.unicodeScalars {
            let isWord = JinjaText.isWordCharacter(scalar)
            if isWord, !isInside { count += 1 }
            isInside = isWord
        }
        return count
    }

    private static func percentEncoded(_ text: String, _ run: JinjaRun) throws -> String {
        try run.make(bytes: 3 * text.utf8.count)
        var result = ""
        for byte in text.utf8 {
            let isPlain =
                (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte)
                || "_.-~/".utf8.contains(byte)
            result +=
                isPlain ? String(Unicode.Scalar(byte)) : "%" + JinjaText.hex(UInt32(byte), 2).uppercased()
        }
        return result
    }
}
