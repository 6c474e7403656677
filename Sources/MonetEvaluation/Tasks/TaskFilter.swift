import Foundation
import MonetFoundation
import MonetText

/// A step of a filter over the texts generated for one document.
enum TaskFilter: Sendable {
    /// What a filter's settings should have been.
    struct Failure: Error, CustomStringConvertible { let description: String }

    case takeFirst
    case takeFirstFew(Int)
    case majorityVote
    case stripWhitespace
    case lowercase
    case uppercase
    case expression(pattern: String, group: Int, fallback: String)
    case multipleChoice(
        pattern: String, group: Int, fallback: String, ignoresCase: Bool, ignoresPunctuation: Bool,
        ignored: [String])
    case map([String: JSONValue], fallback: JSONValue)

    /// The filter of a name, with the settings beside it.
    ///
    /// - Throws: `Failure`.
    init(_ name: String, _ settings: JSONValue) throws {
        func pattern() throws -> String {
            let pattern = settings["regex_pattern"]?.stringValue ?? "#### (\\-?[0-9\\.\\,]+)"
            do { _ = try PythonExpression(pattern) } catch {
                throw Failure(description: "a regex_pattern: \(error)")
            }
            return pattern
        }
        let group = settings["group_select"]?.intValue ?? 0
        let fallback = settings["fallback"]?.stringValue ?? "[invalid]"
        switch name {
        case "take_first": self = .takeFirst
        case "take_first_k":
            guard let count = settings["k"]?.intValue, count > 0 else {
                throw Failure(description: "'k' above 0")
            }
            self = .takeFirstFew(count)
        case "majority_vote": self = .majorityVote
        case "remove_whitespace": self = .stripWhitespace
        case "lowercase": self = .lowercase
        case "uppercase": self = .uppercase
        case "regex": self = .expression(pattern: try pattern(), group: group, fallback: fallback)
        case "multi_choice_regex":
            self = .multipleChoice(
                pattern: try pattern(), group: group, fallback: fallback,
                ignoresCase: settings["ignore_case"]?.boolValue ?? false,
                ignoresPunctuation: settings["ignore_punctuation"]?.boolValue ?? false,
                ignored: settings["regexes_to_ignore"]?.arrayValue?.compactMap(\.stringValue) ?? [])
        case "map":
            let members = settings["mapping_dict"]?.members ?? []
            self = .map(
                Dictionary(members.map { ($0.key, $0.value) }) { $1 },
                fallback: settings["default_value"] ?? .null)
        default:
            throw Failure(
                description:
                    "one of take_first, take_first_k, majority_vote, remove_whitespace, lowercase, uppercase, regex, multi_choice_regex, map"
            )
        }
    }

    /// The texts after this step; of one document.
    ///
    /// - Throws: `Failure`, `PythonExpression.Failure`.
    func apply(_ responses: [JSONValue], document: JSONValue) throws -> [JSONValue] {
        switch self {
        case .takeFirst: return Array(responses.prefix(1))
        case .takeFirstFew(let count):
            guard responses.count >= count else {
                throw Failure(
                    description: "\(count) answers of a document to take, there are \(responses.count)")
            }
            return Array(responses.prefix(count))
        case .majorityVote:
            var best: (value: JSONValue, count: Int)?
            for response in responses {
                let count = responses.count { $0 == response }
                if count > best?.count ?? 0 { best = (response, count) }
            }
            return best.map { [$0.value] } ?? []
        case .stripWhitespace: return responses.map { Self.mapped($0) { PythonText.strip($0) } }
        case .lowercase: return responses.map { Self.mapped($0, PythonText.lower) }
        case .uppercase: return responses.map { Self.mapped($0, PythonText.upper) }
        case .map(let table, let fallback):
            return responses.map { $0.stringValue.flatMap { table[$0] } ?? fallback }
        case .expression(let pattern, let group, let fallback):
            let expression = try PythonExpression(pattern)
            return responses.map {
                .string(Self.match(expression, $0.stringValue ?? "", group) ?? fallback)
            }
        case .multipleChoice(
            let pattern, let group, let fallback, let ignoresCase, let ignoresPunctuation, let ignored):
            let expression = try PythonExpression(pattern)
            func reduced(_ text: String) throws -> String {
                var text = text
                for pattern in ignored { text = try PythonExpression(pattern).replacing(in: text, with: "") }
                if ignoresCase { text = PythonText.lower(text) }
                if ignoresPunctuation {
                    var scalars = text.unicodeScalars
                    scalars.removeAll(where: Self.isPunctuation)
                    text = String(scalars)
                }
                return text
            }
            guard let choices = document["choices"]?.arrayValue?.map(\.stringValue) else {
                throw Failure(
                    description: "the field 'choices' of a document, which multi_choice_regex reads")
            }
            let letters = choices.indices.map { String(UnicodeScalar(UInt8(65 + min($0, 25)))) }
            var labels: [String: String] = [:]
            for (choice, letter) in zip(choices, letters) {
                labels[try reduced(PythonText.strip(choice ?? ""))] = "(\(letter))"
            }
            let texts = labels.keys.sorted { ($0.unicodeScalars.count, $1) > ($1.unicodeScalars.count, $0) }
            let byText = try PythonExpression(
                texts.map(NSRegularExpression.escapedPattern).joined(separator: "|"))
            let byLetter = try PythonExpression(":[\\s]*(\(letters.joined(separator: "|")))")
            return try responses.map { response in
                let text = response.stringValue ?? ""
                if let found = Self.match(expression, text, group, isRequired: false), !found.isEmpty {
                    return .string(found)
                }
                if let found = Self.match(byText, try reduced(text), group), !found.isEmpty {
                    return .string(labels[found] ?? found)
                }
                if let found = Self.match(byLetter, text, group), !found.isEmpty {
                    return .string("(\(found))")
                }
                return .string(fallback)
            }
        }
    }

    private static func mapped(_ value: JSONValue, _ body: (String) -> String) -> JSONValue {
        value.stringValue.map { .string(body($0)) } ?? value
    }

    private static func isPunctuation(_ scalar: Unicode.Scalar) -> Bool {
        switch scalar.properties.generalCategory {
        case .connectorPunctuation, .dashPunctuation, .openPunctuation, .closePunctuation,
            .initialPunctuation,
            .finalPunctuation, .otherPunctuation:
            true
        default: false
        }
    }

    /// The first group that is not empty of the match of an index, from the end if it is negative.
    private static func match(
        _ expression: PythonExpression, _ text: String, _ group: Int, isRequired: Bool = true
    ) -> String? {
        let matches = expression.matches(in: text)
        let index = group < 0 ? matches.count + group : group
        guard matches.indices.contains(index) else { return nil }
        let parts = matches[index]
        let found = parts.count == 1 ? parts[0] : parts.first { !$0.isEmpty }
        return found.map { PythonText.strip($0) }
    }
}
