import Foundation

/// Writes values as Python's `str`, `repr` and `json.dumps` do, within a run's limits.
struct JinjaRepresentation {
    let run: JinjaRun
    private(set) var text = ""
    /// Namespaces being written, to find cycles.
    private var open: [JinjaNamespace] = []

    init(run: JinjaRun) { self.run = run }

    private mutating func add(_ part: String) throws {
        try run.make(bytes: part.utf8.count)
        text += part
    }

    // MARK: str and repr

    /// What `{{ value }}` prints.
    mutating func writeText(_ value: JinjaValue) throws {
        switch value {
        case .undefined: try run.requireDefined(value)
        case .string(let value), .markup(let value): try add(value)
        default: try write(value)
        }
    }

    /// Python's `repr`.
    mutating func write(_ value: JinjaValue) throws {
        try run.work(1)
        switch value {
        case .undefined:
            try run.requireDefined(value)
            try add("Undefined")
        case .none: try add("None")
        case .bool(let value): try add(value ? "True" : "False")
        case .int(let value): try add(String(value))
        case .double(let value): try add(Self.text(of: value))
        case .string(let value): try writeQuoted(value)
        case .list(let list): try write(list.items, "[", "]")
        case .tuple(let list): try write(list.items, "(", list.items.count == 1 ? ",)" : ")")
        case .dictionary(let dictionary): try write(dictionary)
        case .view(let dictionary, .keys): try write(dictionary.keys, "dict_keys([", "])")
        case .view(let dictionary, .values): try write(dictionary.values, "dict_values([", "])")
        case .view(_, .items): try write(try run.elements(value), "dict_items([", "])")
        case .range(let range):
            try add("range(\(range.start), \(range.stop)\(range.step == 1 ? "" : ", \(range.step)"))")
        case .namespace(let namespace):
            guard !open.contains(where: { $0 === namespace }) else {
                throw run.unsupported("printing a namespace that contains itself")
            }
            open.append(namespace)
            try run.check(depth: open.count * 8)
            try add("<Namespace ")
            try write(namespace.members)
            try add(">")
            open.removeLast()
        default: throw run.unsupported("printing \(value.kind)")
        }
    }

    private mutating func write(_ items: [JinjaValue], _ start: String, _ end: String) throws {
        try add(start)
        for (index, item) in items.enumerated() {
            if index > 0 { try add(", ") }
            try write(item)
        }
        try add(end)
    }

    private mutating func write(_ dictionary: JinjaDictionary) throws {
        try add("{")
        for (index, (key, value)) in zip(dictionary.keys, dictionary.values).enumerated() {
            if index > 0 { try add(", ") }
            try write(key)
            try add(": ")
            try write(value)
        }
        try add("}")
    }

    private mutating func writeQuoted(_ value: String) throws {
        try run.make(bytes: 2 * value.utf8.count + 2)
        let quote: Unicode.Scalar = value.utf8.contains(39) && !value.utf8.contains(34) ? "\"" : "'"
        var result = String.UnicodeScalarView()
        result.append(quote)
        for scalar in value.unicodeScalars {
            switch scalar {
            case quote, "\\":
                result.append("\\")
                result.append(scalar)
            case "\n": result.append(contentsOf: "\\n".unicodeScalars)
            case "\r": result.append(contentsOf: "\\r".unicodeScalars)
            case "\t": result.append(contentsOf: "\\t".unicodeScalars)
            case " "..."~": result.append(scalar)
            default:
                if JinjaText.isPrintable(scalar) {
                    result.append(scalar)
                } else {
                    result.append(contentsOf: JinjaText.escaped(scalar, bytesAsHex: true).unicodeScalars)
                }
            }
        }
        result.append(quote)
        text += String(result)
    }

    /// Python's text of a float: the shortest digits, with an exponent from 1e16 and below 1e-4.
    static func text(of value: Double) -> String {
        guard value.isFinite else { return value.isNaN ? "nan" : value < 0 ? "-inf" : "inf" }
        let parts = "\(value.magnitude)".split(separator: "e")
        let mantissa = parts[0].split(separator: ".")
        var digits = mantissa.joined()
        var point = mantissa[0].count + (parts.count > 1 ? Int(parts[1]) ?? 0 : 0)
        while digits.hasPrefix("0"), digits.count > 1 {
            digits.removeFirst()
            point -= 1
        }
        while digits.hasSuffix("0"), digits.count > 1 { digits.removeLast() }
        let sign = value.sign == .minus ? "-" : ""
        if digits == "0" { return sign + "0.0" }
        if point > 16 || point < -3 {
            let exponent = point - 1
            let fraction = digits.count > 1 ? "." + digits.dropFirst() : ""
            let width = exponent.magnitude < 10 ? "0" : ""
            return
                "\(sign)\(digits.prefix(1))\(fraction)e\(exponent < 0 ? "-" : "+")\(width)\(exponent.magnitude)"
        }
        if point <= 0 { return sign + "0." + String(repeating: "0", count: -point) + digits }
        if digits.count <= point {
            return sign + digits + String(repeating: "0", count: point - digits.count) + ".0"
        }
        return sign + digits.prefix(point) + "." + digits.dropFirst(point)
    }

    // MARK: JSON

    /// The options of `json.dumps`.
    struct JSONOptions {
        var isASCII = false
        /// The indentation per level; nil for one line.
        var indent: String?
        var itemSeparator = ", "
        var keySeparator = ": "
        var sortsKeys = false
    }

    mutating func writeJSON(_ value: JinjaValue, _ options: JSONOptions, level: Int = 0) throws {
        try run.work(1)
        switch value {
        case .none: try add("null")
        case .bool(let value): try add(value ? "true" : "false")
        case .int, .double: try write(value)
        case .string(let value), .markup(let value): try writeJSON(value, options)
        case .list(let list), .tuple(let list):
            try writeJSON(count: list.items.count, "[", "]", options, level) { writer, index in
                try writer.writeJSON(list.items[index], options, level: level + 1)
            }
        case .dictionary(let dictionary):
            var order = Array(0..<dictionary.count)
            if options.sortsKeys {
                order = try JinjaOperators.sortedIndices(dictionary.keys, isReverse: false, run)
            }
            try writeJSON(count: dictionary.count, "{", "}", options, level) { writer, index in
                try writer.writeJSON(key: dictionary.keys[order[index]], options)
                try writer.add(options.keySeparator)
                try writer.writeJSON(dictionary.values[order[index]], options, level: level + 1)
            }
        default: throw run.failure("\(value.kind) is not JSON")
        }
    }

    private mutating func writeJSON(key: JinjaValue, _ options: JSONOptions) throws {
        switch key {
        case .string(let text): try writeJSON(text, options)
        case .none, .bool, .int, .double:
            try add("\"")
            try writeJSON(key, options)
            try add("\"")
        default: throw run.failure("\(key.kind) is no key of JSON")
        }
    }

    private mutating func writeJSON(
        count: Int, _ start: String, _ end: String, _ options: JSONOptions, _ level: Int,
        _ element: (inout JinjaRepresentation, Int) throws -> Void
    ) throws {
        try add(start)
        for index in 0..<count {
            if index > 0 { try add(options.itemSeparator) }
            if let indent = options.indent { try addLine(indent, level + 1) }
            try element(&self, index)
        }
        if let indent = options.indent, count > 0 { try addLine(indent, level) }
        try add(end)
    }

    private mutating func addLine(_ indent: String, _ level: Int) throws {
        let (size, overflow) = indent.utf8.count.multipliedReportingOverflow(by: level)
        try run.make(bytes: overflow ? .max : size + 1)
        text += "\n" + String(repeating: indent, count: level)
    }

    private mutating func writeJSON(_ value: String, _ options: JSONOptions) throws {
        try run.make(bytes: 2 * value.utf8.count + 2)
        var result = String.UnicodeScalarView()
        result.append("\"")
        for scalar in value.unicodeScalars {
            switch scalar {
            case "\"": result.append(contentsOf: "\\\"".unicodeScalars)
            case "\\": result.append(contentsOf: "\\\\".unicodeScalars)
            case "\n": result.append(contentsOf: "\\n".unicodeScalars)
            case "\r": result.append(contentsOf: "\\r".unicodeScalars)
            case "\t": result.append(contentsOf: "\\t".unicodeScalars)
            case "\u{8}": result.append(contentsOf: "\\b".unicodeScalars)
            case "\u{c}": result.append(contentsOf: "\\f".unicodeScalars)
            case " "..."~": result.append(scalar)
            default:
                if scalar.value < 32 || options.isASCII {
                    for unit in String(scalar).utf16 {
                        result.append(contentsOf: ("\\u" + JinjaText.hex(UInt32(unit), 4)).unicodeScalars)
                    }
                } else {
                    result.append(scalar)
                }
            }
        }
        result.append("\"")
        text += String(result)
    }
}
