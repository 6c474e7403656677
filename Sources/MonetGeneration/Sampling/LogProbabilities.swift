import Foundation

/// Log-probabilities of a distribution over the vocabulary.
public struct LogProbabilities: Sendable {
    private let logits: [Float]
    private let logSum: Double

    /// The softmax of `logits`, before any sampling setting.
    public init(_ logits: [Float]) {
        self.logits = logits
        let largest = Double(logits.max() ?? 0)
        logSum = largest + log(logits.reduce(0.0) { $0 + exp(Double($1) - largest) })
    }

    /// Size of the vocabulary.
    var count: Int { logits.count }
    /// log p(id).
    public subscript(id: Int32) -> Double { Double(logits[Int(id)]) - logSum }

    /// The `count` most likely tokens, most likely first.
    public func top(_ count: Int) -> [TokenProbability] {
        var best: [TokenProbability] = []
        for (index, logit) in logits.enumerated() {
            let value = Double(logit) - logSum
            if best.count == count, let last = best.last, value <= last.logProbability { continue }
            let place = best.firstIndex { $0.logProbability < value } ?? best.count
            best.insert(TokenProbability(id: Int32(index), logProbability: value), at: place)
            if best.count > count { best.removeLast() }
        }
        return best
    }
}

/// A token and its log-probability.
public struct TokenProbability: Sendable, Equatable, Codable {
    /// The token.
    public let id: Int32
    /// Natural logarithm of its probability.
    public let logProbability: Double
}
