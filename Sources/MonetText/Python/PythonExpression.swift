import Foundation

/// A regular expression in the syntax of Python's `re`, matched by Foundation's engine.
///
/// Both agree in nearly everything; what is written differently (names of groups, `\Z`, brackets inside sets,
/// braces that stand for themselves) is rewritten. Groups are known by their numbers alone.
package struct PythonExpression {
    /// What is wrong with a pattern or a replacement.
    package struct Failure: Error, Sendable, Equatable, CustomStringConvertible {
        package let description: String
    }

    private let expression: NSRegularExpression
    private let names: [String: Int]

    /// - Throws: `Failure`.
    package init(_ pattern: String) throws {
        var translation = PythonExpressionTranslation(pattern)
        let translated = try translation.run()
        names = translation.names
        do {
            expression = try NSRegularExpression(pattern: translated, options: [.useUnixLineSeparators])
        } catch {
            throw Failure(description: "the pattern '\(pattern)' is no regular expression that is supported")
        }
    }

    /// `re.findall(text)`: of each match the texts of its groups, or the whole where there are none.
    package func matches(in text: String) -> [[String]] {
        found(in: text).map { match in
            let groups = match.numberOfRanges > 1 ? 1..<match.numberOfRanges : 0..<1
            return groups.map { Self.part(match.range(at: $0), text) }
        }
    }

    /// `re.sub(replacement, text, count)`; a count of 0 replaces all.
    ///
    /// - Throws: `Failure` for a replacement with an unknown group.
    package func replacing(in text: String, with replacement: String, count: Int = 0) throws -> String {
        var result = ""
        var end = 0
        for (number, match) in found(in: text).enumerated() where count == 0 || number < count {
            result += Self.part(NSRange(end..<match.range.location), text)
            result += try expanded(replacement, match, text)
            end = match.range.location + match.range.length
        }
        return result + Self.part(NSRange(end..<text.utf16.count), text)
    }

    private func found(in text: String) -> [NSTextCheckingResult] {
        expression.matches(in: text, range: NSRange(0..<text.utf16.count))
    }

    private static func part(_ range: NSRange, _ text: String) -> String {
        guard range.location != NSNotFound else { return "" }
        let start = text.utf16.index(text.utf16.startIndex, offsetBy: range.location)
        let end = text.utf16.index(start, offsetBy: range.length)
        return String(decoding: text.utf16[start..<end].map { $0 }, as: UTF16.self)
    }

    /// The replacement with the groups that it refers to.
    private func expanded(_ replacement: String, _ match: NSTextCheckingResult, _ text: String) throws
        -> String
    {
        var result = ""
        var rest = Substring(replacement)
        func group(_ number: Int?) throws -> String {
            guard let number, number < match.numberOfRanges else {
                throw Failure(
                    description: "the replacement '\(replacement)' refers to a group that is not there")
            }
            return Self.part(match.range(at: number), text)
        }
        while let character = rest.popFirst() {
            guard character == "\\", let next = rest.popFirst() else {
                result.append(character)
                continue
            }
            switch next {
            case "n": result += "\n"
            case "t": result += "\t"
            case "r": result += "\r"
            case "\\": result += "\\"
            case "g" where rest.first == "<":
                let name = rest.dropFirst().prefix { $0 != ">" }
                rest = rest.dropFirst(name.count + 2)
                result += try group(Int(name) ?? names[String(name)])
            case "0"..."9":
                var digits = String(next)
                if let second = rest.first, ("0"..."9").contains(second) {
                    digits.append(second)
                    rest.removeFirst()
                }
                result += try group(Int(digits))
            default: throw Failure(description: "the replacement '\(replacement)' has '\\\(next)'")
            }
        }
        return result
    }
}

/// Rewrites a pattern of Python's for Foundation's engine.
struct PythonExpressionTranslation {
    private let source: [Unicode.Scalar]
    private let pattern: String
    private var position = 0
    private var result = String.UnicodeScalarView()
    private var groups = 0
    /// Numbers of the groups that have names.
    private(set) var names: [String: Int] = [:]
    /// White space for Python that the engine's `\s` leaves out.
    private static let furtherSpace = "\\x{0b}\\x{1c}-\\x{1f}\\x{85}"

    init(_ pattern: String) {
        self.pattern = pattern
        source = Array(pattern.unicodeScalars)
    }

    mutating func run() throws -> String {
        while let scalar = at(position) {
            position += 1
            switch scalar {
            case "\\": try escape(inSet: false)
            case "[": try set()
            case "(": try group()
            case "{": quantifier()
            case "}": add("\\}")
            default: result.append(scalar)
            }
        }
        return String(result)
    }

    private func at(_ index: Int) -> Unicode.Scalar? { index < source.count ? source[index] : nil }
    private mutating func add(_ text: String) { result.append(contentsOf: text.unicodeScalars) }
    private func failure(_ reason: String) -> PythonExpression.Failure {
        .init(description: "the pattern '\(pattern)' has \(reason)")
    }

    private mutating func escape(inSet: Bool) throws {
        guard let scalar = at(position) else { throw failure("a backslash at its end") }
        position += 1
        switch scalar {
        case "Z" where !inSet: add("\\z")
        case "s": add(inSet ? "\\s" + Self.furtherSpace : "[\\s" + Self.furtherSpace + "]")
        case "S" where !inSet: add("[^\\s" + Self.furtherSpace + "]")
        case "b" where inSet: add("\\x{08}")
        default:
            result.append("\\")
            result.append(scalar)
        }
    }

    private mutating func set() throws {
        result.append("[")
        if at(position) == "^" {
            result.append("^")
            position += 1
        }
        // A bracket that comes first stands for itself.
        if at(position) == "]" {
            add("\\]")
            position += 1
        }
        while let scalar = at(position) {
            position += 1
            switch scalar {
            case "]":
                result.append("]")
                return
            case "\\": try escape(inSet: true)
            // These make sets of sets in the engine.
            case "[", "&", "|", "~": add("\\" + String(scalar))
            case "-" where at(position) == "-": add("\\-")
            default: result.append(scalar)
            }
        }
        throw failure("a set without ']'")
    }

    private mutating func group() throws {
        guard at(position) == "?" else {
            if at(position) != "*" { groups += 1 }
            result.append("(")
            return
        }
        guard at(position + 1) == "P" else {
            result.append("(")
            return
        }
        let sign = at(position + 2)
        guard let end = source[position...].firstIndex(of: sign == "<" ? ">" : ")"), end > position + 3 else {
            throw failure("a group without a name")
        }
        let name = String(String.UnicodeScalarView(source[(position + 3)..<end]))
        position = end + 1
        switch sign {
        case "<":
            groups += 1
            names[name] = groups
            result.append("(")
        case "=":
            guard let number = names[name] else { throw failure("the unknown group '\(name)'") }
            add("(?:\\\(number))")
        default: throw failure("'(?P'")
        }
    }

    /// A number of repetitions, or a brace that stands for itself.
    private mutating func quantifier() {
        guard let end = source[position...].firstIndex(of: "}") else { return add("\\{") }
        let parts = String(String.UnicodeScalarView(source[position..<end]))
            .split(separator: ",", omittingEmptySubsequences: false)
        guard (1...2).contains(parts.count), parts.contains(where: { !$0.isEmpty }),
            parts.allSatisfy({ $0.utf8.allSatisfy { (48...57).contains($0) } })
        else { return add("\\{") }
        let numbers = parts.map(String.init)
        add("{" + (numbers[0].isEmpty ? "0" : numbers[0]) + (numbers.count > 1 ? "," + numbers[1] : "") + "}")
        position = end + 1
    }
}
