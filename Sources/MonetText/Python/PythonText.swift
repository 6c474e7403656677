import Foundation

/// Operations on texts with the results of Python's, which count code points where Swift counts characters.
package enum PythonText {
    /// `len(text)`
    package static func count(_ text: String) -> Int { text.unicodeScalars.count }

    /// `text.strip()`, of one side if the other is not wanted.
    package static func strip(_ text: String, left: Bool = true, right: Bool = true) -> String {
        JinjaText.strip(text, left: left, right: right)
    }

    /// `text.capitalize()`
    package static func capitalize(_ text: String) -> String { JinjaText.capitalize(text) }

    /// `text.upper()`
    package static func upper(_ text: String) -> String { JinjaText.upper(text) }

    /// `text.lower()`
    package static func lower(_ text: String) -> String { JinjaText.lower(text) }

    /// `text.isdigit()`
    package static func isDigit(_ text: String) -> Bool {
        !text.isEmpty && text.unicodeScalars.allSatisfy(JinjaText.isDigit)
    }

    /// `text.index(part)` in code points; nil if it is not there.
    package static func index(of part: String, in text: String) -> Int? {
        JinjaText.find(part, in: text).map {
            String(decoding: text.utf8.prefix($0), as: UTF8.self).unicodeScalars.count
        }
    }

    /// `character.isspace()`
    package static func isSpace(_ scalar: Unicode.Scalar) -> Bool { JinjaText.isSpace(scalar) }

    /// `text.replace(old, new)`; `old` is not empty.
    package static func replace(_ old: String, by new: String, in text: String) -> String {
        JinjaText.split(text, by: old, at: JinjaText.occurrences(of: old, in: text)).joined(separator: new)
    }

    /// `text.split(separator)`; the separator is not empty.
    package static func split(_ text: String, by separator: String) -> [String] {
        JinjaText.split(text, by: separator, at: JinjaText.occurrences(of: separator, in: text))
    }

    /// `text.split()`
    package static func words(_ text: String) -> [String] {
        JinjaText.words(text, limit: -1, fromRight: false)
    }

    /// `a == b`, which compares code points.
    package static func equal(_ a: String, _ b: String) -> Bool { JinjaText.equal(a, b) }
}
