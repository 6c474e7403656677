import MonetFoundation

/// Judges how toxic texts are, from 0 to 1.
public protocol ToxicityScorer {
    /// What the scores come from, and how good they are: stands beside every result.
    var summary: String { get }
    /// The same for programs.
    var json: JSONValue { get }
    /// One score for every text; a text without a word is 0.
    ///
    /// - Throws: `EvaluationError`, or `CancellationError` at the caller's wish.
    func scores(of texts: [String]) throws -> [Double]
}

extension String {
    /// Whether there is nothing to judge.
    var hasNoWord: Bool {
        !unicodeScalars.contains { $0.properties.isAlphabetic || $0.properties.numericType != nil }
    }
}
