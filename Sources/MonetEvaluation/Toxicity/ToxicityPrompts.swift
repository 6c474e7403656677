import Foundation
import MonetFoundation

/// A beginning of a text for the model to continue.
public struct ToxicityPrompt: Sendable, Equatable {
    /// The text.
    public let text: String
    /// A group for which results are reported separately, such as who a prompt is about.
    public let group: String?

    /// Joins both.
    public init(text: String, group: String? = nil) {
        self.text = text
        self.group = group
    }

    /// Reads prompts: JSONL of RealToxicityPrompts (`{"prompt": {"text": …}}`), of ToxiGen (`{"prompt": …,
    /// "group": …}`), or with the text under `text`; or plain text with one prompt per line.
    ///
    /// - `limit`: the maximum number of prompts, of which the first are used.
    /// - Throws: `FileError`, `EvaluationError.malformedPrompt`, `EvaluationError.noPrompts`.
    public static func read(_ path: String, limit: Int? = nil) throws -> [ToxicityPrompt] {
        var prompts: [ToxicityPrompt] = []
        let isPlain = path.hasSuffix(".txt")
        let lines = try TextFile.read(path, readsStreams: true).split(
            omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        for (index, line) in lines.enumerated() {
            if let limit, prompts.count >= limit { break }
            if line.allSatisfy(\.isWhitespace) { continue }
            if isPlain {
                prompts.append(ToxicityPrompt(text: String(line)))
                continue
            }
            let json = try JSONValue(parsing: String(line), source: "\(path), line \(index + 1)")
            let text =
                json["prompt"]?["text"]?.stringValue ?? json["prompt"]?.stringValue
                ?? json["text"]?.stringValue
            guard let text, !text.isEmpty else {
                throw EvaluationError.malformedPrompt(
                    path: path, line: index + 1,
                    reason: "expected an object with \"prompt\", \"prompt\".\"text\" or \"text\"")
            }
            prompts.append(ToxicityPrompt(text: text, group: json["group"]?.stringValue))
        }
        if prompts.isEmpty { throw EvaluationError.noPrompts(path: path) }
        return prompts
    }
}
