import Foundation

/// How likely a model finds a text after a prompt, token by token.
public struct AnswerLikelihood: Sendable, Equatable {
    /// log p of each token.
    public let logProbabilities: [Double]
    /// Whether each was the most likely one.
    public let isGreedy: [Bool]

    init(_ score: ContinuationScorer.Score) {
        logProbabilities = score.tokens.map(\.logProbability)
        isGreedy = score.tokens.map(\.isGreedy)
    }

    /// For tests and readers of other formats.
    public init(logProbabilities: [Double], isGreedy: [Bool]) {
        (self.logProbabilities, self.isGreedy) = (logProbabilities, isGreedy)
    }

    /// The same without the last token.
    public func dropLast() -> AnswerLikelihood {
        AnswerLikelihood(
            logProbabilities: Array(logProbabilities.dropLast()), isGreedy: Array(isGreedy.dropLast()))
    }

    /// Mean −log p of a token.
    public var loss: Double { -logProbabilities.reduce(0, +) / Double(max(1, logProbabilities.count)) }

    /// exp(−loss): the geometric mean of the tokens' probabilities.
    public var probability: Double { exp(-loss) }

    /// The share of tokens that are the most likely ones, given those before (Exact Memorization of OpenUnlearning).
    public var exactMemorization: Double {
        Double(isGreedy.count { $0 }) / Double(max(1, isGreedy.count))
    }

    /// 1 − k/n, where k is the shortest beginning after which all n − k remaining tokens are the most likely ones
    /// (Extraction Strength; Carlini et al. 2021). 0 if not even the last one is.
    public var extractionStrength: Double {
        Double(isGreedy.reversed().prefix { $0 }.count) / Double(max(1, isGreedy.count))
    }

    /// Mean −log p of the share of tokens that are the least likely ones (Min-K%, Shi et al. 2023), of at least one.
    ///
    /// A text that the model has seen has few very unlikely tokens.
    public func leastLikelyLoss(share: Double) -> Double {
        let count = max(1, Int(Double(logProbabilities.count) * share))
        let least = logProbabilities.sorted().prefix(count)
        return -least.reduce(0, +) / Double(max(1, least.count))
    }
}
