import Foundation
import MonetFoundation

/// Reads a literal as Python's `ast.literal_eval` does; tuples and sets become arrays.
package struct PythonLiteral {
    /// What is no literal, and where.
    package struct Failure: Error, Sendable, Equatable, CustomStringConvertible {
        package let offset: Int
        package let reason: String
        package var description: String { "no Python literal: \(reason) at character \(offset + 1)" }
    }

    private let source: [Unicode.Scalar]
    private var position = 0

    private init(_ text: String) { source = Array(text.unicodeScalars) }

    /// The value of a text.
    ///
    /// - Throws: `Failure`.
    package static func value(of text: String) throws -> JSONValue {
        var reader = PythonLiteral(text)
        // Python strips blanks and tabs before it parses.
        reader.skipSpace()
        let value = try reader.items(until: nil)
        guard reader.position == reader.source.count else {
            throw reader.failure("something after the value")
        }
        return value
    }

    private func failure(_ reason: String) -> Failure { Failure(offset: position, reason: reason) }
    private var current: Unicode.Scalar? { position < source.count ? source[position] : nil }

    private mutating func skipSpace() {
        while let scalar = current, " \t\n\r\u{0c}".unicodeScalars.contains(scalar) { position += 1 }
    }

    /// Values between commas up to a closing bracket: one without a comma is itself.
    private mutating func items(until end: Unicode.Scalar?, depth: Int = 0) throws -> JSONValue {
        var values: [JSONValue] = []
        var hasComma = false
        while true {
            skipSpace()
            if current == end || current == nil { break }
            values.append(try value(depth))
            skipSpace()
            guard current == "," else { break }
            hasComma = true
            position += 1
        }
        skipSpace()
        if let end {
            guard current == end else { throw failure("no '\(end)'") }
            position += 1
        }
        if values.count == 1, !hasComma { return values[0] }
        guard end != nil || !values.isEmpty else { throw failure("nothing") }
        return .array(values)
    }

    private mutating func value(_ depth: Int) throws -> JSONValue {
        guard depth < 64 else { throw failure("values inside more than 64 others") }
        guard let scalar = current else { throw failure("nothing") }
        switch scalar {
        case "[":
            position += 1
            let list = try list(until: "]", depth)
            return .array(list)
        case "(":
            position += 1
            return try items(until: ")", depth: depth + 1)
        case "{": return try braces(depth)
        case "'", "\"": return .string(try text(isRaw: false))
        case "-", "+":
            position += 1
            skipSpace()
            switch try value(depth + 1) {
            case .integer(let value): return .integer(scalar == "-" ? -value : value)
            case .number(let value): return .number(scalar == "-" ? -value : value)
            default: throw failure("a sign before something else than a number")
            }
        case "0"..."9", ".": return try number()
        default: return try name()
        }
    }

    private mutating func list(until end: Unicode.Scalar, _ depth: Int) throws -> [JSONValue] {
        var values: [JSONValue] = []
        while true {
            skipSpace()
            if current == end { break }
            values.append(try value(depth + 1))
            skipSpace()
            if current == "," {
                position += 1
            } else if current != end {
                throw failure("no '\(end)'")
            }
        }
        position += 1
        return values
    }

    /// A dictionary or a set.
    private mutating func braces(_ depth: Int) throws -> JSONValue {
        position += 1
        var members: [JSONValue.Member] = []
        var values: [JSONValue] = []
        var isSet = false
        while true {
            skipSpace()
            if current == "}" { break }
            let key = try value(depth + 1)
            skipSpace()
            if current == ":" {
                position += 1
                skipSpace()
                let value = try value(depth + 1)
                guard let name = key.stringValue else { throw failure("a key that is no text") }
                members.removeAll { $0.key == name }
                members.append(.init(name, value))
            } else {
                isSet = true
                values.append(key)
            }
            skipSpace()
            if current == "," {
                position += 1
            } else if current != "}" {
                throw failure("no '}'")
            }
        }
        position += 1
        guard !isSet || members.isEmpty else { throw failure("a set with keys") }
        return isSet ? .array(values) : .object(members)
    }

    private mutating func name() throws -> JSONValue {
        let start = position
        while let scalar = current, scalar.properties.isAlphabetic || scalar == "_" { position += 1 }
        switch String(String.UnicodeScalarView(source[start..<position])) {
        case "None": return .null
        case "True": return .bool(true)
        case "False": return .bool(false)
        case "r", "R", "u", "U":
            if current == "'" || current == "\"" {
                return .string(try text(isRaw: "rR".unicodeScalars.contains(source[start])))
            }
        default: break
        }
        position = start
        throw failure("a name or a sign")
    }

    private mutating func number() throws -> JSONValue {
        let start = position
        while let scalar = current,
            "0123456789.eE_xXoObBaAcCdDfF".unicodeScalars.contains(scalar)
                || ("+-".unicodeScalars.contains(scalar)
                    && "eE".unicodeScalars.contains(source[position - 1]))
        { position += 1 }
        let text = String(String.UnicodeScalarView(source[start..<position])).replacing("_", with: "")
        // Python refuses numbers with zeros in front.
        let isPadded =
            text.count > 1 && text.first == "0" && text.allSatisfy(\.isNumber)
            && !text.allSatisfy { $0 == "0" }
        if !isPadded, let value = Int(text) { return .integer(value) }
        if !isPadded, let value = Double(text), !text.lowercased().hasPrefix("0x") { return .number(value) }
        position = start
        throw failure("a number that is not supported")
    }

    /// One or more adjacent texts.
    private mutating func text(isRaw: Bool) throws -> String {
        var result = String.UnicodeScalarView()
        try readText(isRaw: isRaw, into: &result)
        while true {
            let here = position
            skipSpace()
            guard current == "'" || current == "\"" else {
                position = here
                return String(result)
            }
            try readText(isRaw: false, into: &result)
        }
    }

    private mutating func readText(isRaw: Bool, into result: inout String.UnicodeScalarView) throws {
        guard let quote = current else { throw failure("no text") }
        let isLong =
            position + 2 < source.count && source[position + 1] == quote && source[position + 2] == quote
        position += isLong ? 3 : 1
        while let scalar = current {
            if scalar == quote,
                !isLong
                    || (position + 2 < source.count && source[position + 1] == quote
                        && source[position + 2] == quote)
            {
                position += isLong ? 3 : 1
                return
            }
            if !isLong, scalar == "\n" { break }
            position += 1
            guard scalar == "\\" else {
                result.append(scalar)
                continue
            }
            if isRaw {
                result.append(scalar)
                if let next = current {
                    result.append(next)
                    position += 1
                }
            } else {
                try escape(into: &result)
            }
        }
        throw failure("a text without its end")
    }

    private mutating func escape(into result: inout String.UnicodeScalarView) throws {
        guard let scalar = current else { throw failure("a text without its end") }
        position += 1
        func code(_ digits: Int) throws -> Unicode.Scalar {
            let end = position + digits
            guard end <= source.count,
                let value = UInt32(String(String.UnicodeScalarView(source[position..<end])), radix: 16),
                let scalar = Unicode.Scalar(value)
            else { throw failure("an escape that is no character") }
            position = end
            return scalar
        }
        switch scalar {
        case "\n": break
        case "\\", "'", "\"": result.append(scalar)
        case "n": result.append("\n")
        case "t": result.append("\t")
        case "r": result.append("\r")
        case "a": result.append("\u{07}")
        case "b": result.append("\u{08}")
        case "f": result.append("\u{0c}")
        case "v": result.append("\u{0b}")
        case "x": result.append(try code(2))
        case "u": result.append(try code(4))
        case "U": result.append(try code(8))
        case "0"..."7":
            var value = scalar.value - 48
            for _ in 0..<2 {
                guard let next = current, ("0"..."7").contains(next) else { break }
                value = value * 8 + next.value - 48
                position += 1
            }
            result.append(Unicode.Scalar(value) ?? "\u{fffd}")
        case "N": throw failure("a character's name")
        default:
            result.append("\\")
            result.append(scalar)
        }
    }
}
