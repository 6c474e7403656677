/// A token of a template.
enum JinjaToken: Equatable {
    /// Text outside tags.
    case data(String)
    /// `{{`
    case outputBegin
    /// `}}`
    case outputEnd
    /// `{%`
    case blockBegin
    /// `%}`
    case blockEnd
    case name(String)
    case string(String)
    case int(Int)
    case double(Double)
    /// An operator or a bracket.
    case symbol(String)

    /// How messages call it.
    var description: String {
        switch self {
        case .data: "text"
        case .outputBegin: "'{{'"
        case .outputEnd: "'}}'"
        case .blockBegin: "'{%'"
        case .blockEnd: "'%}'"
        case .name(let name): "'\(name)'"
        case .string: "a string"
        case .int, .double: "a number"
        case .symbol(let symbol): "'\(symbol)'"
        }
    }
}

/// Splits a template into tokens as Jinja2 does with the options of an environment.
struct JinjaLexer {
    /// Sources beyond this many bytes are refused.
    static let maximumSourceBytes = 1 << 20

    private let source: [Unicode.Scalar]
    private let environment: JinjaEnvironment
    private var position = 0
    private var line = 1
    /// Whether the last tag, or the start of the source, left the position at the start of a line.
    private var isAtLineStart = true
    private var brackets: [Unicode.Scalar] = []
    private var tokens: [(token: JinjaToken, line: Int)] = []

    /// Normalises the newlines of `text`.
    init(_ text: String, _ environment: JinjaEnvironment = .chat) throws {
        self.environment = environment
        guard text.utf8.count <= Self.maximumSourceBytes else {
            throw TextError.templateFailure(
                reason: "a template of more than \(Self.maximumSourceBytes) bytes", line: 1)
        }
        var scalars = Self.withUnixNewlines(text.unicodeScalars)
        if !environment.keepsTrailingNewline, scalars.last == "\n" { scalars.removeLast() }
        source = scalars
    }

    private static func withUnixNewlines(_ text: some Sequence<Unicode.Scalar>) -> [Unicode.Scalar] {
        var result: [Unicode.Scalar] = []
        var previous: Unicode.Scalar?
        for scalar in text {
            if scalar == "\r" {
                result.append("\n")
            } else if scalar != "\n" || previous != "\r" {
                result.append(scalar)
            }
            previous = scalar
        }
        return result
    }

    /// All tokens with their lines.
    mutating func tokenize() throws -> [(token: JinjaToken, line: Int)] {
        while position < source.count { try readText() }
        return tokens
    }

    // MARK: Text and the starts of tags

    private mutating func readText() throws {
        let start = position
        var tag = start
        while tag < source.count, !(source[tag] == "{" && "{%#".unicodeScalars.contains(at(tag + 1))) {
            tag += 1
        }
        guard tag < source.count else {
            append(source[start...], line: line)
            position = source.count
            return
        }
        let kind = at(tag + 1)
        let sign = at(tag + 2)
        let isRaw = kind == "%" ? rawStart(at: tag) : nil
        emit(text: start..<tag, before: sign, isOutput: kind == "{")
        position = tag + (sign == "-" || sign == "+" ? 3 : 2)
        switch kind {
        case "#": try skipComment()
        case "{":
            tokens.append((.outputBegin, line))
            try readTag(isOutput: true)
        default:
            if let end = isRaw {
                line += newlines(position..<end)
                position = end
                try readRaw()
            } else {
                tokens.append((.blockBegin, line))
                try readTag(isOutput: false)
            }
        }
    }

    /// Appends the text before a tag, stripped as the tag's sign and `lstrip_blocks` demand.
    private mutating func emit(text range: Range<Int>, before sign: Unicode.Scalar, isOutput: Bool) {
        var end = range.upperBound
        if sign == "-" {
            while end > range.lowerBound, JinjaText.isSpace(source[end - 1]) { end -= 1 }
        } else if environment.stripsBlocks, sign != "+", !isOutput {
            var lineStart = end
            while lineStart > range.lowerBound, source[lineStart - 1] != "\n" { lineStart -= 1 }
            if lineStart > range.lowerBound || isAtLineStart,
                source[lineStart..<end].allSatisfy(JinjaText.isSpace)
            {
                end = lineStart
            }
        }
        append(source[range.lowerBound..<end], line: line)
        line += newlines(range)
    }

    private mutating func append(_ text: ArraySlice<Unicode.Scalar>, line: Int) {
        if !text.isEmpty { tokens.append((.data(JinjaText.string(text)), line)) }
    }

    /// The position after `{% raw %}`, if the block that begins at `tag` is one.
    private func rawStart(at tag: Int) -> Int? {
        var index = tag + 2
        if at(index) == "-" || at(index) == "+" { index += 1 }
        guard let name = skip("raw", at: index) else { return nil }
        if at(name) == "-", matches("%}", at: name + 1) { return skipSpace(name + 3) }
        return matches("%}", at: name) ? name + 2 : nil
    }

    private mutating func readRaw() throws {
        isAtLineStart = position > 0 && source[position - 1] == "\n"
        var index = position
        while index < source.count {
            if matches("{%", at: index) {
                let sign = at(index + 2)
                let start = sign == "-" || sign == "+" ? index + 3 : index + 2
                if let name = skip("endraw", at: start), let end = blockEnd(at: name) {
                    emit(text: position..<index, before: sign, isOutput: false)
                    finishTag(from: index, to: end)
                    return
                }
            }
            index += 1
        }
        throw failure("'{% raw %}' without '{% endraw %}'")
    }

    private mutating func skipComment() throws {
        var index = position
        while index < source.count {
            if at(index) == "#", at(index + 1) == "}" {
                return finishTag(from: position, to: afterTag(index + 2))
            }
            if at(index) == "+", matches("#}", at: index + 1) {
                return finishTag(from: position, to: index + 3)
            }
            if at(index) == "-", matches("#}", at: index + 1) {
                return finishTag(from: position, to: skipSpace(index + 3))
            }
            index += 1
        }
        throw failure("a comment without '#}'")
    }

    /// The position after a block's end at `index` and the whitespace that it removes.
    private func blockEnd(at index: Int) -> Int? {
        if at(index) == "+", matches("%}", at: index + 1) { return index + 3 }
        if at(index) == "-", matches("%}", at: index + 1) { return skipSpace(index + 3) }
        guard matches("%}", at: index) else { return nil }
        return afterTag(index + 2)
    }

    /// The position after a tag's end and the newline that it removes.
    private func afterTag(_ end: Int) -> Int { environment.trimsBlocks && at(end) == "\n" ? end + 1 : end }

    private mutating func finishTag(from start: Int, to end: Int) {
        line += newlines(start..<end)
        position = end
        isAtLineStart = end > 0 && source[end - 1] == "\n"
    }

    // MARK: Inside tags

    private mutating func readTag(isOutput: Bool) throws {
        brackets = []
        while position < source.count {
            if brackets.isEmpty {
                if isOutput {
                    var end: Int?
                    if matches("}}", at: position) { end = position + 2 }
                    if at(position) == "-", matches("}}", at: position + 1) { end = skipSpace(position + 3) }
                    if let end {
                        tokens.append((.outputEnd, line))
                        return finishTag(from: position, to: end)
                    }
                } else if let end = blockEnd(at: position) {
                    tokens.append((.blockEnd, line))
                    return finishTag(from: position, to: end)
                }
            }
            try readToken()
        }
        // The parser finds the missing end.
    }

    private mutating func readToken() throws {
        let scalar = source[position]
        let start = position
        let token: JinjaToken
        if JinjaText.isSpace(scalar) {
            position = skipSpace(position)
            line += newlines(start..<position)
            return
        }
        if isDigit(scalar) {
            token = try readNumber()
        } else if isNameScalar(scalar) {
            while isNameScalar(at(position)) { position += 1 }
            guard position - start <= 1000 else { throw failure("a name of more than 1000 characters") }
            token = .name(JinjaText.string(source[start..<position]))
        } else if scalar == "'" || scalar == "\"" {
            token = .string(try readString(scalar))
        } else {
            token = .symbol(try readSymbol(scalar))
        }
        tokens.append((token, line))
        line += newlines(start..<position)
    }

    private mutating func readSymbol(_ scalar: Unicode.Scalar) throws -> String {
        for double in ["//", "**", "==", "!=", "<=", ">="] where matches(double, at: position) {
            position += 2
            return double
        }
        switch scalar {
        case "(": brackets.append(")")
        case "[": brackets.append("]")
        case "{": brackets.append("}")
        case ")", "]", "}":
            guard brackets.popLast() == scalar else { throw failure("unexpected '\(scalar)'") }
        case "+", "-", "/", "*", "%", "~", ">", "<", "=", ".", ":", "|", ",", ";": break
        default:
            if scalar.value > 127 {
                throw TextError.unsupportedTemplate(construct: "the name or sign '\(scalar)'", line: line)
            }
            throw failure("unexpected '\(scalar)'")
        }
        position += 1
        return String(scalar)
    }

    private mutating func readNumber() throws -> JinjaToken {
        let start = position
        // After a point only whole numbers: `x.0.1` takes an element of an element.
        let followsPoint = start > 0 && source[start - 1] == "."
        if !followsPoint, let end = endOfDouble(from: start) {
            position = end
            let text = JinjaText.string(source[start..<end].filter { $0 != "_" })
            guard let value = Double(text), value.isFinite else {
                throw failure("the number \(text) is too large")
            }
            return .double(value)
        }
        var radix = 10
        var digits = start
        if source[start] == "0", let prefix = ["b": 2, "o": 8, "x": 16][Self.lowercase(at(start + 1))] {
            let first = at(start + 2) == "_" ? start + 3 : start + 2
            if digit(at(first), prefix) {
                radix = prefix
                digits = first
            }
        }
        let zeros = radix == 10 && source[start] == "0"
        var end = digits
        while true {
            let next = at(end) == "_" && end > digits ? end + 1 : end
            guard zeros ? at(next) == "0" : digit(at(next), radix) else { break }
            end = next + 1
        }
        position = end
        let text = JinjaText.string(source[digits..<end].filter { $0 != "_" })
        guard let value = Int(text, radix: radix) else {
            throw failure("the number \(text) is beyond 64 bits")
        }
        return .int(value)
    }

    /// The end of a number with a fraction or an exponent.
    private func endOfDouble(from start: Int) -> Int? {
        guard let whole = endOfDigits(from: start) else { return nil }
        var end = whole
        if at(whole) == ".", let fraction = endOfDigits(from: whole + 1) { end = fraction }
        if Self.lowercase(at(end)) == "e" {
            let sign = at(end + 1) == "+" || at(end + 1) == "-" ? end + 2 : end + 1
            if let exponent = endOfDigits(from: sign) { return exponent }
        }
        return end > whole ? end : nil
    }

    /// The end of digits with single underscores between them.
    private func endOfDigits(from start: Int) -> Int? {
        guard isDigit(at(start)) else { return nil }
        var end = start
        while isDigit(at(end)) || (at(end) == "_" && isDigit(at(end + 1))) { end += 1 }
        return end
    }

    private mutating func readString(_ quote: Unicode.Scalar) throws -> String {
        let start = position + 1
        var end = start
        while end < source.count, source[end] != quote { end += source[end] == "\\" ? 2 : 1 }
        guard end < source.count else { throw failure("a string without an end") }
        position = end + 1
        var result = String.UnicodeScalarView()
        var index = start
        while index < end {
            if source[index] == "\\" {
                try readEscape(&index, into: &result)
            } else {
                result.append(source[index])
                index += 1
            }
        }
        return String(result)
    }

    private static let escapes: [Unicode.Scalar: Unicode.Scalar] = [
        "\\": "\\", "'": "'", "\"": "\"", "a": "\u{7}", "b": "\u{8}", "f": "\u{c}", "n": "\n", "r": "\r",
        "t": "\t", "v": "\u{b}",
    ]

    private func readEscape(_ index: inout Int, into result: inout String.UnicodeScalarView) throws {
        let letter = at(index + 1)
        index += 2
        if let escape = Self.escapes[letter] {
            result.append(escape)
            return
        }
        var code: UInt32 = 0
        switch letter {
        case "\n": return
        case "0"..."7":
            index -= 1
            for _ in 0..<3 where digit(at(index), 8) {
                code = code * 8 + (at(index).value - 48)
                index += 1
            }
        case "x", "u", "U":
            for _ in 0..<(letter == "x" ? 2 : letter == "u" ? 4 : 8) {
                guard let value = UInt32(String(at(index)), radix: 16) else {
                    throw failure("'\\\(letter)' with too few digits")
                }
                code = code << 4 | value
                index += 1
            }
        case "N": throw TextError.unsupportedTemplate(construct: "the escape '\\N'", line: line)
        default:
            result.append("\\")
            if letter.value < 128 {
                result.append(letter)
            } else {
                // Jinja2 escapes what is beyond ASCII first, so that this backslash escapes a backslash.
                let hex = String(letter.value, radix: 16)
                let (sign, width) =
                    letter.value < 0x100 ? ("x", 2) : letter.value < 0x10000 ? ("u", 4) : ("U", 8)
                result.append(contentsOf: sign.unicodeScalars)
                result.append(
                    contentsOf: (String(repeating: "0", count: width - hex.count) + hex).unicodeScalars)
            }
            return
        }
        guard let scalar = Unicode.Scalar(code) else { throw failure("an escape that is not a character") }
        result.append(scalar)
    }

    // MARK: Looking

    /// The scalar at an index; NUL beyond the end.
    private func at(_ index: Int) -> Unicode.Scalar { index < source.count ? source[index] : "\0" }

    private func matches(_ text: String, at index: Int) -> Bool {
        var index = index
        for scalar in text.unicodeScalars {
            guard index < source.count, source[index] == scalar else { return false }
            index += 1
        }
        return true
    }

    /// The position after a word and the whitespace around it.
    private func skip(_ word: String, at index: Int) -> Int? {
        let start = skipSpace(index)
        return matches(word, at: start) ? skipSpace(start + word.utf8.count) : nil
    }

    private func skipSpace(_ index: Int) -> Int {
        var index = index
        while index < source.count, JinjaText.isSpace(source[index]) { index += 1 }
        return index
    }

    private func newlines(_ range: Range<Int>) -> Int {
        source[range].reduce(0) { $0 + ($1 == "\n" ? 1 : 0) }
    }

    private func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }

    private func digit(_ scalar: Unicode.Scalar, _ radix: Int) -> Bool {
        scalar.value < 128 && Int(String(scalar), radix: radix) != nil
    }

    private func isNameScalar(_ scalar: Unicode.Scalar) -> Bool {
        isDigit(scalar) || ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar) || scalar == "_"
    }

    private static func lowercase(_ scalar: Unicode.Scalar) -> Unicode.Scalar {
        ("A"..."Z").contains(scalar) ? Unicode.Scalar(UInt8(scalar.value + 32)) : scalar
    }

    private func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }
}
