/// Tokens of a template's source.
enum JinjaToken: Equatable {
    /// Text to print as it is.
    case text(String)
    /// `{{`, `}}`, `{%` and `%}`.
    case beginOutput
    case endOutput
    case beginStatement
    case endStatement
    case name(String)
    case string(String)
    case int(Int)
    case double(Double)
    case symbol(String)
}

/// Splits a template into tokens, with Hugging Face's whitespace rules: `trim_blocks` (removes the newline
/// after a statement) and `lstrip_blocks` (removes spaces before a statement on its line).
struct JinjaLexer {
    private let source: [Character]
    private var position = 0
    private var line = 1
    private var tokens: [(token: JinjaToken, line: Int)] = []
    private var trimsNext = false

    init(_ source: String) {
        // Jinja drops one newline at the end of a template.
        var characters = Array(source)
        if characters.last == "\n" { characters.removeLast() }
        self.source = characters
    }

    private func failure(_ reason: String) -> TextError { .templateFailure(reason: reason, line: line) }

    private func matches(_ text: String, at place: Int) -> Bool {
        var index = place
        for character in text {
            guard index < source.count, source[index] == character else { return false }
            index += 1
        }
        return true
    }

    mutating func tokenize() throws -> [(token: JinjaToken, line: Int)] {
        while position < source.count {
            var end = position
            while end < source.count,
                !(source[end] == "{" && end + 1 < source.count && "{%#".contains(source[end + 1]))
            {
                end += 1
            }
            try appendText(upTo: end)
            if end >= source.count { break }
            position = end + 2
            switch source[end + 1] {
            case "#": try skipComment()
            case "{": try lexTag(.beginOutput, .endOutput, close: "}}")
            default: try lexTag(.beginStatement, .endStatement, close: "%}")
            }
        }
        return tokens
    }

    private mutating func appendText(upTo end: Int) throws {
        var text = Array(source[position..<end])
        if trimsNext { text = Array(text.drop { $0.isWhitespace }) }
        if end + 2 < source.count || end < source.count {
            let marker = end + 2 < source.count ? source[end + 2] : " "
            if marker == "-" {
                while let last = text.last, last.isWhitespace { text.removeLast() }
            } else if end + 1 < source.count, source[end + 1] != "{", marker != "+" {
                var kept = text
                while let last = kept.last, last == " " || last == "\t" { kept.removeLast() }
                // Only at the start of a line, which may be the start of the template.
                let startsLine = kept.isEmpty ? (position == 0 || previousEndsLine) : kept.last == "\n"
                if startsLine { text = kept }
            }
        }
        line += source[position..<end].count { $0 == "\n" }
        if !text.isEmpty { tokens.append((.text(String(text)), line)) }
        trimsNext = false
    }

    /// Whether the character before the current text is a newline (which trimming may have removed).
    private var previousEndsLine: Bool { position > 0 && source[position - 1] == "\n" }

    private mutating func finishTag(trims: Bool, isOutput: Bool) {
        trimsNext = trims
        if !trims, !isOutput, position < source.count, source[position] == "\n" {
            position += 1
            line += 1
        }
    }

    private mutating func skipComment() throws {
        while position < source.count, !matches("#}", at: position) {
            if source[position] == "\n" { line += 1 }
            position += 1
        }
        guard position < source.count else { throw failure("a comment without an end") }
        let trims = source[position - 1] == "-"
        position += 2
        finishTag(trims: trims, isOutput: false)
    }

    private mutating func lexTag(_ begin: JinjaToken, _ end: JinjaToken, close: String) throws {
        tokens.append((begin, line))
        if position < source.count, source[position] == "-" || source[position] == "+" { position += 1 }
        while true {
            while position < source.count, source[position].isWhitespace {
                if source[position] == "\n" { line += 1 }
                position += 1
            }
            guard position < source.count else { throw failure("a tag without an end") }
            if matches("-" + close, at: position) {
                position += 3
                tokens.append((end, line))
                finishTag(trims: true, isOutput: close == "}}")
                return
            }
            if matches(close, at: position) {
                position += 2
                tokens.append((end, line))
                finishTag(trims: false, isOutput: close == "}}")
                return
            }
            try lexToken()
        }
    }

    private mutating func lexToken() throws {
        let character = source[position]
        if character.isLetter || character == "_" {
            let start = position
            while position < source.count,
                source[position].isLetter || source[position].isNumber || source[position] == "_"
            {
                position += 1
            }
            tokens.append((.name(String(source[start..<position])), line))
        } else if character.isNumber {
            let start = position
            while position < source.count, source[position].isNumber { position += 1 }
            if position + 1 < source.count, source[position] == ".", source[position + 1].isNumber {
                position += 1
                while position < source.count, source[position].isNumber { position += 1 }
                tokens.append((.double(Double(String(source[start..<position])) ?? 0), line))
            } else {
                guard let value = Int(String(source[start..<position])) else {
                    throw failure("a number too large")
                }
                tokens.append((.int(value), line))
            }
        } else if character == "'" || character == "\"" {
            tokens.append((.string(try lexString(character)), line))
        } else {
            for symbol in ["==", "!=", "<=", ">=", "//", "**"] where matches(symbol, at: position) {
                position += 2
                tokens.append((.symbol(symbol), line))
                return
            }
            guard "+-*/%~<>=()[]{}.,:|".contains(character) else {
                throw failure("unexpected '\(character)'")
            }
            position += 1
            tokens.append((.symbol(String(character)), line))
        }
    }

    private mutating func lexString(_ quote: Character) throws -> String {
        position += 1
        var text = ""
        while position < source.count, source[position] != quote {
            if source[position] == "\\", position + 1 < source.count {
                position += 1
                switch source[position] {
                case "n": text.append("\n")
                case "t": text.append("\t")
                case "r": text.append("\r")
                case "\\", "'", "\"": text.append(source[position])
                default: text += "\\" + String(source[position])
                }
            } else {
                if source[position] == "\n" { line += 1 }
                text.append(source[position])
            }
            position += 1
        }
        guard position < source.count else { throw failure("a string without an end") }
        position += 1
        return text
    }
}
