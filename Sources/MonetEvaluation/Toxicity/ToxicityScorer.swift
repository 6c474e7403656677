import MonetFoundation

/// Scores how toxic texts are, from 0 to 1.
public protocol ToxicityScorer: Sendable {
    /// What the scores come from, and how good they are; shown with every result.
    var summary: String { get }
    /// The same as JSON.
    var json: JSONValue { get }
    /// One score for every text; a text without words scores 0.
    ///
    /// - Throws: `EvaluationError`, or `CancellationError` if the caller cancels.
    func scores(of texts: [String]) throws -> [Double]
}

extension String {
    /// Whether the text has no word to score.
    var hasNoWord: Bool {
        !unicodeScalars.contains { $0.properties.isAlphabetic || $0.properties.numericType != nil }
    }
}
