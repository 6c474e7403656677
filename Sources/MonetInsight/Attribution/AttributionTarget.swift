import Foundation
import MonetModel
import MonetText

/// What an attribution explains: a weighted sum of next-token logits after the last token.
public struct AttributionTarget: Sendable, Equatable {
    /// One logit with its weight.
    public struct Term: Sendable, Equatable {
        /// The token's id.
        public let token: Int32
        /// What multiplies its logit.
        public let weight: Float

        /// Joins token and weight.
        public init(token: Int32, weight: Float) { (self.token, self.weight) = (token, weight) }
    }

    /// The sum.
    public let terms: [Term]

    /// A weighted sum of logits.
    public init(_ terms: [Term]) { self.terms = terms }

    /// The logit of one token.
    public init(token: Int32) { terms = [Term(token: token, weight: 1)] }

    /// Reads a metric such as `logit( Paris)-logit( Rome)` or `2*logit(a) + logit(b)`: what stands between the
    /// parentheses is the text of one token, with its space where it begins a word.
    ///
    /// - Throws: `InsightError.invalidMetric` for another form, or a text that is not one token.
    public init(metric: String, tokenizer: Tokenizer) throws {
        func fail(_ reason: String) -> InsightError { .invalidMetric(metric: metric, reason: reason) }
        var rest = Substring(metric)
        var terms: [Term] = []
        func skipSpaces() { rest = rest.drop(while: \.isWhitespace) }
        skipSpaces()
        while !rest.isEmpty {
            var weight: Float = 1
            if rest.first == "+" || rest.first == "-" {
                if rest.first == "-" { weight = -1 }
                rest.removeFirst()
                skipSpaces()
            } else if !terms.isEmpty {
                throw fail("expected + or - before '\(rest.prefix(20))'")
            }
            if let star = rest.firstIndex(of: "*"),
                rest[..<star].allSatisfy({ $0.isNumber || ". ".contains($0) })
            {
                guard let factor = Float(rest[..<star].trimmingCharacters(in: .whitespaces)), factor.isFinite
                else {
                    throw fail("'\(rest[..<star])' is not a number")
                }
                weight *= factor
                rest = rest[rest.index(after: star)...]
                skipSpaces()
            }
            guard rest.hasPrefix("logit(") else {
                throw fail("expected logit(TOKEN) at '\(rest.prefix(20))'")
            }
            rest = rest.dropFirst(6)
            // A token may itself hold a parenthesis: the closing one is followed by a sign or the end.
            let end = rest.indices.first { index in
                let after = rest[rest.index(after: index)...].drop(while: \.isWhitespace)
                return rest[index] == ")" && (after.isEmpty || "+-".contains(after.first ?? " "))
            }
            guard let end else { throw fail("a parenthesis is not closed") }
            terms.append(
                Term(token: try Self.token(String(rest[..<end]), tokenizer, fail), weight: weight))
            rest = rest[rest.index(after: end)...]
            skipSpaces()
        }
        guard !terms.isEmpty else { throw fail("it is empty") }
        self.terms = terms
    }

    /// The token with a text.
    ///
    /// - Throws: `InsightError.invalidMetric` for a text that is not one token.
    public static func token(_ text: String, tokenizer: Tokenizer) throws -> Int32 {
        try token(text, tokenizer) { .invalidMetric(metric: "logit(\(text))", reason: $0) }
    }

    private static func token(_ text: String, _ tokenizer: Tokenizer, _ fail: (String) -> InsightError) throws
        -> Int32
    {
        let matches = (0..<Int32(tokenizer.pieceCount)).filter { (try? tokenizer.displayText($0)) == text }
        if let first = matches.first { return first }
        let pieces = try tokenizer.encode(text).compactMap { try? tokenizer.displayText($0) }
        guard pieces.count > 1 else {
            throw fail(
                "'\(text)' is no token" + (pieces.first.map { "; '\($0)' is one, with its space" } ?? ""))
        }
        throw fail(
            "'\(text)' is \(pieces.count) tokens, \(pieces.map { "'\($0)'" }.joined(separator: " ")), expected one; "
                + "a token that begins a word begins with a space")
    }
}
