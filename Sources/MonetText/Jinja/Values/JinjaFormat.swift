import Foundation

/// Python's `%` and `str.format`, without the rarer forms.
enum JinjaFormat {
    /// `format % value`
    static func percent(_ format: String, _ value: JinjaValue, _ run: JinjaRun) throws -> String {
        var arguments = [value][...]
        if case .tuple(let list) = value { arguments = list.items[...] }
        switch value {
        case .dictionary, .undefined, .list, .namespace: throw run.unsupported("'%' with \(value.kind)")
        default: return try percent(format, &arguments, run)
        }
    }

    static func percent(_ format: String, _ arguments: inout ArraySlice<JinjaValue>, _ run: JinjaRun) throws
        -> String
    {
        var result = ""
        var scalars = Array(format.unicodeScalars)[...]
        try run.make(bytes: format.utf8.count)
        while let scalar = scalars.popFirst() {
            guard scalar == "%" else {
                result.unicodeScalars.append(scalar)
                continue
            }
            var directive = ""
            while let next = scalars.first, "0123456789.-+".unicodeScalars.contains(next), directive.count < 8
            {
                directive.unicodeScalars.append(next)
                scalars.removeFirst()
            }
            guard let letter = scalars.popFirst() else { throw run.failure("a format that ends too early") }
            if letter == "%", directive.isEmpty {
                result += "%"
                continue
            }
            guard let value = arguments.popFirst() else { throw run.failure("a format with too few values") }
            result += try field(letter, directive, value, run)
        }
        guard arguments.isEmpty else { throw run.failure("a format with too many values") }
        return result
    }

    private static func field(
        _ letter: Unicode.Scalar, _ directive: String, _ value: JinjaValue, _ run: JinjaRun
    ) throws
        -> String
    {
        var writer = JinjaRepresentation(run: run)
        switch letter {
        case "s" where directive.isEmpty: try writer.writeText(value)
        case "r" where directive.isEmpty: try writer.write(value)
        case "d" where isPlain(directive), "i" where isPlain(directive):
            guard let number = value.integer else { throw run.unsupported("'%\(letter)' with \(value.kind)") }
            return String(format: "%\(directive)ld", number)
        case "f" where isPlain(directive), "e" where isPlain(directive), "g" where isPlain(directive):
            guard let number = try JinjaOperators.number(value, run) else {
                throw run.failure("'%\(letter)' with \(value.kind)")
            }
            return String(format: "%\(directive)\(letter)", number)
        default: throw run.unsupported("the format '%\(directive)\(letter)'")
        }
        return writer.text
    }

    /// Whether it is flags, a width and a precision of at most two digits each, which C reads as Python does.
    private static func isPlain(_ directive: String) -> Bool {
        let flagless = directive.drop { "+-0".contains($0) }
        let parts = flagless.split(separator: ".", omittingEmptySubsequences: false)
        return Set(directive.prefix(directive.count - flagless.count)).count == directive.count
            - flagless.count
            && parts.count <= 2 && parts.allSatisfy { $0.count <= 2 && $0.allSatisfy(\.isNumber) }
            && (parts.count < 2 || !parts[1].isEmpty)
    }

    /// `format.format(arguments)`, with fields that are empty, a number or a name.
    static func format(_ format: String, _ arguments: JinjaArguments, _ run: JinjaRun) throws -> String {
        var result = ""
        var scalars = Array(format.unicodeScalars)[...]
        var automatic = 0
        var isNumbered = false
        try run.make(bytes: format.utf8.count)
        while let scalar = scalars.popFirst() {
            if scalar == "{" || scalar == "}", scalars.first == scalar {
                scalars.removeFirst()
            } else if scalar == "{" {
                var name = ""
                while let next = scalars.popFirst(), next != "}" { name.unicodeScalars.append(next) }
                let value: JinjaValue?
                if name.isEmpty || Int(name) != nil {
                    guard isNumbered == !name.isEmpty || automatic == 0 && !name.isEmpty && !isNumbered else {
                        throw run.failure("a format with numbered and plain fields")
                    }
                    isNumbered = !name.isEmpty
                    let index = Int(name) ?? automatic
                    automatic += name.isEmpty ? 1 : 0
                    value = arguments.positional.indices.contains(index) ? arguments.positional[index] : nil
                } else {
                    guard
                        name.utf8.allSatisfy({ (65...90).contains($0) || (97...122).contains($0) || $0 == 95 }
                        )
                    else { throw run.unsupported("the format field '{\(name)}'") }
                    value = arguments.named.first { $0.name == name }?.value
                }
                guard let value else { throw run.failure("a format field without a value") }
                if case .string = value {
                } else if value.integer == nil {
                    throw run.unsupported("a format field with \(value.kind)")
                }
                result += try run.text(of: value)
                continue
            } else if scalar == "}" {
                throw run.failure("a '}' without '{' in a format")
            }
            result.unicodeScalars.append(scalar)
        }
        return result
    }
}

// MARK: Rounding

extension JinjaFormat {
    /// Jinja2's filter `round`.
    static func round(_ value: JinjaValue, _ precision: Int?, _ method: String, _ run: JinjaRun) throws
        -> JinjaValue
    {
        guard let precision, (0...15).contains(precision) else {
            throw run.unsupported("round() to other than 0 to 15 digits")
        }
        if method == "common", let integer = value.integer { return .int(integer) }
        guard let number = try JinjaOperators.number(value, run) else {
            throw run.failure("round() of \(value.kind)")
        }
        switch method {
        case "common":
            // The decimal digits nearest to the exact value, as Python has it.
            return try run.check(Double(String(format: "%.\(precision)f", number)) ?? number)
        case "ceil", "floor":
            let scale = (0..<precision).reduce(1.0) { product, _ in product * 10 }
            let scaled = (number * scale).rounded(method == "ceil" ? .up : .down)
            guard scaled.magnitude <= 0x1p53 else { throw run.failure("a number that is too large to round") }
            // An integer on the way has no negative zero.
            return try run.check((scaled + 0) / scale)
        default: throw run.failure("round() by '\(method)'")
        }
    }
}
