import Foundation
import MonetFoundation
import MonetText

/// A function of lm-evaluation-harness in Python that task files refer to and that the package has itself.
enum TaskFunction: String, Sendable, Equatable, CaseIterable {
    case hellaswagDocuments = "hellaswag/utils.process_docs"
    /// LightEval's prompt for HellaSwag, which strips nothing.
    case hellaswagClozeDocuments = "lighteval/hellaswag.process_docs"
    case winograndeText = "winogrande/preprocess_winogrande.doc_to_text"
    case winograndeTarget = "winogrande/preprocess_winogrande.doc_to_target"
    case winograndeChoice = "winogrande/preprocess_winogrande.doc_to_choice"
    case winograndeClozeDocuments = "lighteval/winogrande.process_docs"
    case copaText = "copa/utils.doc_to_text"
    case copaTarget = "copa/utils.doc_to_target"
    case copaChoice = "copa/utils.doc_to_choice"
    case wikitextTarget = "wikitext/preprocess_wikitext.wikitext_detokenizer"
    case wikitextResults = "wikitext/preprocess_wikitext.process_results"

    /// A document that the function cannot read.
    struct Failure: Error, CustomStringConvertible { let description: String }

    /// The function that a task file calls by the path of its folder and its name; nil for all others.
    init?(path: String) {
        let parts = path.split(separator: "/").suffix(2)
        self.init(rawValue: parts.joined(separator: "/"))
    }

    /// A document as the function prepares it.
    ///
    /// - Throws: `Failure`.
    func prepared(_ document: JSONValue) throws -> JSONValue {
        switch self {
        case .hellaswagDocuments, .hellaswagClozeDocuments:
            let strips = self == .hellaswagDocuments
            func cleaned(_ text: String) -> String { Self.cleaned(text, strips: strips) }
            let context =
                try Self.text("ctx_a", document) + " "
                + PythonText.capitalize(try Self.text("ctx_b", document))
            guard let endings = document["endings"]?.arrayValue?.map(\.stringValue),
                endings.allSatisfy({ $0 != nil })
            else { throw Failure(description: "'endings' is no list of texts") }
            guard let label = Self.integer(document["label"]) else {
                throw Failure(description: "'label' is no number; the document has no answer")
            }
            let query = try Self.text("activity_label", document) + ": " + context + (strips ? "" : " ")
            return document.with([
                .init("query", .string(cleaned(query))),
                .init("choices", .array(endings.map { .string(cleaned($0 ?? "")) })),
                .init("gold", .integer(label)),
            ])
        case .winograndeClozeDocuments:
            let sentence = try Self.text("sentence", document)
            let parts = PythonText.split(sentence, by: "_")
            guard parts.count == 2 else { throw Failure(description: "'sentence' has not one '_'") }
            let rest = PythonText.strip(parts[1])
            return document.with([
                .init("query", .string(parts[0])),
                .init(
                    "choices",
                    .array([
                        .string(try Self.text("option1", document) + " " + rest),
                        .string(try Self.text("option2", document) + " " + rest),
                    ])),
                .init("gold", .integer(try Self.winograndeLabel(document))),
            ])
        default: return document
        }
    }

    /// The value of a document.
    ///
    /// - Throws: `Failure`.
    func value(of document: JSONValue) throws -> JSONValue {
        switch self {
        case .winograndeText: return .integer(try Self.winograndeLabel(document))
        case .winograndeTarget:
            let (_, rest) = try Self.blank(document)
            return .string(PythonText.strip(rest))
        case .winograndeChoice:
            let (start, _) = try Self.blank(document)
            return .array([
                .string(start + (try Self.text("option1", document))),
                .string(start + (try Self.text("option2", document))),
            ])
        case .copaText:
            let words = ["cause": "because", "effect": "therefore"]
            guard let connector = words[try Self.text("question", document)] else {
                throw Failure(description: "'question' is neither cause nor effect")
            }
            let premise = PythonText.strip(try Self.text("premise", document)).unicodeScalars.dropLast()
            return .string(String(premise) + " " + connector)
        case .copaTarget:
            let isFirst = Self.integer(document["label"]) == 0
            return .string(" " + Self.lowered(try Self.text(isFirst ? "choice1" : "choice2", document)))
        case .copaChoice:
            return .array(
                try ["choice1", "choice2"].map { .string(" " + Self.lowered(try Self.text($0, document))) })
        case .wikitextTarget:
            return .string(try WikitextDetokenizer.text(of: try Self.text("page", document)))
        default: return document
        }
    }

    /// The text whose words and bytes a rolling log-likelihood is divided by, where it is not the scored one.
    ///
    /// - Throws: `Failure`.
    func measuredText(of document: JSONValue) throws -> String? {
        self == .wikitextResults ? try Self.text("page", document) : nil
    }

    // MARK: Parts

    private static func text(_ key: String, _ document: JSONValue) throws -> String {
        guard let text = document[key]?.stringValue else {
            throw Failure(description: "'\(key)' is \(document[key]?.kind ?? "missing"), expected a text")
        }
        return text
    }

    private static func integer(_ value: JSONValue?) -> Int? {
        value?.intValue ?? value?.stringValue.flatMap { Int(PythonText.strip($0)) }
    }

    private static func winograndeLabel(_ document: JSONValue) throws -> Int {
        switch document["answer"]?.stringValue ?? document["answer"]?.intValue.map(String.init) {
        case "1": return 0
        case "2": return 1
        default: throw Failure(description: "'answer' is neither 1 nor 2; the document has no answer")
        }
    }

    /// The text before the first `_`, and after it.
    private static func blank(_ document: JSONValue) throws -> (String, String) {
        let sentence = try text("sentence", document)
        guard let place = sentence.utf8.firstIndex(of: UInt8(ascii: "_")) else {
            throw Failure(description: "'sentence' has no '_'")
        }
        return (String(sentence[..<place]), String(sentence[sentence.utf8.index(after: place)...]))
    }

    private static func cleaned(_ text: String, strips: Bool) -> String {
        var text = strips ? PythonText.strip(text) : text
        text = PythonText.replace(" [title]", by: ". ", in: text)
        // What stands in brackets on one line.
        var result = String.UnicodeScalarView()
        var rest = Substring(text).unicodeScalars
        while let scalar = rest.first {
            if scalar == "[", let end = rest.firstIndex(where: { $0 == "]" || $0 == "\n" }), rest[end] == "]"
            {
                rest = rest[rest.index(after: end)...]
            } else {
                result.append(scalar)
                rest.removeFirst()
            }
        }
        return PythonText.replace("  ", by: " ", in: String(result))
    }

    private static func lowered(_ text: String) -> String {
        let scalars = text.unicodeScalars
        guard let first = scalars.first else { return text }
        return PythonText.lower(String(first)) + String(Substring(scalars.dropFirst()))
    }
}

/// The text of a page of WikiText-2 without the spaces of its tokens, as the harness restores it.
private enum WikitextDetokenizer {
    static func text(of page: String) throws -> String {
        var text = page
        func replace(_ old: String, _ new: String) { text = PythonText.replace(old, by: new, in: text) }
        func substitute(_ pattern: String, _ new: String) throws {
            text = try PythonExpression(pattern).replacing(in: text, with: new)
        }
        replace("s '", "s'")
        try substitute("/' [0-9]/", "/'[0-9]/")
        for sign in ["-", ",", "."] { replace(" @\(sign)@ ", sign) }
        for sign in [":", ";", ".", "!", "?", ","] { replace(" \(sign) ", "\(sign) ") }
        for (open, close) in [("(", ")"), ("[", "]"), ("{", "}"), ("\"", "\""), ("'", "'")] {
            let other = close == "}" || close == "\"" || close == "'" ? close : "\\" + close
            let start = open == "(" || open == "[" ? "\\" + open : open
            let end = close == ")" || close == "]" ? "\\" + close : close
            try substitute("\(start)\\s*([^\(other)]*?)\\s*\(end)", "\(open)\\1\(close)")
        }
        for count in [4, 3, 2] {
            replace(
                Array(repeating: "=", count: count).joined(separator: " "),
                String(repeating: "=", count: count))
        }
        replace(" ° ", "°")
        replace(" \n", "\n")
        replace("\n ", "\n")
        replace(" N ", " 1 ")
        replace(" 's", "'s")
        return text
    }
}

extension JSONValue {
    /// The object with members replaced, or added at its end.
    func with(_ new: [Member]) -> JSONValue {
        var members = self.members ?? []
        for member in new {
            if let place = members.firstIndex(where: { $0.key == member.key }) {
                members[place] = member
            } else {
                members.append(member)
            }
        }
        return .object(members)
    }
}
