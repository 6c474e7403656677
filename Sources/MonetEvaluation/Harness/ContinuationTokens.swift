import Foundation
import MonetFoundation
import MonetText

/// Tokens of contexts and continuations as lm-evaluation-harness makes them.
struct ContinuationTokens {
    let tokenizer: Tokenizer
    /// The most tokens that the model reads at a time.
    let context: Int
    /// Whether a space at the beginning of a text is the one that the tokenizer puts before every text, as
    /// transformers 5 takes it where there is no `tokenizer.json` that says otherwise. SentencePiece itself, and
    /// transformers 4, put one before it.
    private let sharesFirstSpace: Bool

    init(tokenizer: Tokenizer, context: Int) {
        self.tokenizer = tokenizer
        self.context = context
        let path = (tokenizer.path as NSString).deletingLastPathComponent + "/tokenizer.json"
        let normalizer = (try? JSONValue(contentsOfFile: path))?["normalizer"]
        sharesFirstSpace = !(normalizer?.serialized().contains("\"Prepend\"") ?? false)
    }

    /// What stands before a text without context.
    ///
    /// - Throws: `EvaluationError.invalidSetting` for a tokenizer without such a token.
    private func prefix() throws -> Int32 {
        guard let id = tokenizer.beginID ?? tokenizer.endID else {
            throw EvaluationError.invalidSetting(
                name: "the tokenizer \(tokenizer.path)", found: "one without begin and end tokens",
                expected: "one that has either, for texts without a context")
        }
        return id
    }

    /// The tokens of a text, with the begin token if the tokenizer adds one.
    ///
    /// - Throws: `TextError`.
    func encode(_ text: String, addBegin: Bool? = nil) throws -> [Int32] {
        let shared = sharesFirstSpace && text.utf8.first == UInt8(ascii: " ")
        return try tokenizer.encode(
            shared ? String(Substring(text.unicodeScalars.dropFirst())) : text,
            addBegin: addBegin ?? tokenizer.addsBegin,
            parsingSpecial: true)
    }

    /// A context and its continuation, encoded together and divided after as many tokens as the context has alone.
    /// White space at the context's end belongs to the continuation. What is too long loses its beginning.
    ///
    /// - Throws: `TextError`, `EvaluationError.invalidSetting`.
    func query(context: String, continuation: String) throws -> ContinuationScorer.Query {
        if context.isEmpty {
            let prefix = try prefix()
            let tokens = try encode(continuation, addBegin: false)
            return try cut(tokens.first == prefix ? tokens : [prefix] + tokens, first: 1, continuation)
        }
        let trimmed = PythonText.strip(context, left: false)
        let space = String(context.unicodeScalars.dropFirst(trimmed.unicodeScalars.count))
        let first = try encode(trimmed).count
        let tokens = try encode(trimmed + space + continuation)
        return first > 0
            ? try cut(tokens, first: first, continuation)
            : try cut([try prefix()] + tokens, first: 1, continuation)
    }

    private func cut(_ tokens: [Int32], first: Int, _ continuation: String) throws -> ContinuationScorer.Query
    {
        guard first < tokens.count else {
            throw EvaluationError.invalidSetting(
                name: "the continuation", found: "\"\(continuation.prefix(60))\", which adds no token",
                expected: "one or more tokens")
        }
        guard tokens.count - first <= context else {
            throw EvaluationError.invalidSetting(
                name: "the continuation \"\(continuation.prefix(60))\"",
                found: "\(tokens.count - first) tokens",
                expected: "at most the model's context of \(context)")
        }
        let dropped = max(0, tokens.count - context - 1)
        return .init(tokens: Array(tokens.dropFirst(dropped)), first: first - dropped)
    }

    /// The windows in which a text of any length is scored, each token once.
    func windows(of text: String) throws -> [ContinuationScorer.Query] {
        let tokens = try encode(text)
        guard !tokens.isEmpty else { return [] }
        let prefix = try prefix()
        let count = min(context, tokens.count)
        var windows = [ContinuationScorer.Query(tokens: [prefix] + tokens.prefix(count), first: 1)]
        var scored = count
        while scored < tokens.count {
            let end = min(tokens.count, scored + context)
            let start = max(0, end - context - 1)
            windows.append(.init(tokens: Array(tokens[start..<end]), first: scored - start))
            scored = end
        }
        return windows
    }

    /// The prompt of a generation, without its beginning if there would be no room for what is generated, which is less
    /// than the context.
    func prompt(_ text: String, newTokens: Int) throws -> [Int32] {
        let tokens = try encode(text)
        return tokens.isEmpty ? [try prefix()] : Array(tokens.suffix(context - newTokens))
    }
}
