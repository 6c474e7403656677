import Foundation
import MonetCompute
import MonetModel
import MonetText

/// What is to be explained after a sequence: a token that a user named, the most likely one, or a metric.
public struct ExplainedPrediction: Sendable {
    /// The sum of logits.
    public let target: AttributionTarget
    /// The token's text, or the metric.
    public let name: String
    /// The probability of the token; nil for a metric.
    public let probability: Double?

    /// How a user names what is to be explained.
    public enum Choice: Sendable {
        /// The most likely token.
        case mostLikely
        /// The token with a text, or with an id.
        case token(String)
        case id(Int32)
        /// A sum of logits (`AttributionTarget.init(metric:tokenizer:)`).
        case metric(String)
    }

    /// Reads a choice, and finds the probability of its token.
    ///
    /// - `tokenizer`: needed for texts and metrics.
    /// - Throws: `InsightError.invalidMetric`, `InsightError.invalidSetting`, `ModelError`.
    public init(
        _ choice: Choice, after ids: [Int32], model: MonetLanguageModel, tokenizer: Tokenizer?,
        mask: UnitMask? = nil, backend: any Backend = CPUBackend()
    ) throws {
        func needed() throws -> Tokenizer {
            guard let tokenizer else {
                throw InsightError.invalidSetting(
                    name: "the tokenizer", found: "none", expected: "one, to read texts of tokens")
            }
            return tokenizer
        }
        guard !ids.isEmpty else {
            throw InsightError.invalidSetting(
                name: "the text", found: "without tokens", expected: "one token or more")
        }
        var chosen: Int32?
        switch choice {
        case .metric(let metric):
            target = try AttributionTarget(metric: metric, tokenizer: needed())
            (name, probability) = (metric, nil)
            return
        case .token(let text): chosen = try AttributionTarget.token(text, tokenizer: needed())
        case .id(let id): chosen = id
        case .mostLikely: break
        }
        let output = try model.forward(ForwardInput([ids], mask: mask), on: backend)
        let logits = try model.logits(output.hidden.value.slice((ids.count - 1)..<ids.count), on: backend)
            .floats()
        let most = logits.indices.max { (logits[$0], $1) < (logits[$1], $0) } ?? 0
        let id = chosen ?? Int32(most)
        guard logits.indices.contains(Int(id)) else {
            throw InsightError.invalidSetting(
                name: "the target", found: "\(id)", expected: "a token of the vocabulary of \(logits.count)")
        }
        let largest = logits.max() ?? 0
        let sum = logits.reduce(0.0) { $0 + exp(Double($1 - largest)) }
        target = AttributionTarget(token: id)
        name = tokenizer.flatMap { try? $0.displayText(id) } ?? "\(id)"
        probability = exp(Double(logits[Int(id)] - largest)) / sum
    }
}
