import Foundation
import MonetCompute
import MonetModel

/// Perplexity of a long text, read in overlapping windows so that tokens have a context.
public struct Perplexity: Sendable {
    /// The number of tokens scored.
    public private(set) var tokens = 0
    /// Sum of −log p over them.
    public private(set) var negativeLogLikelihood = 0.0

    /// Tokens for which the reference model's most likely next token is the same.
    public private(set) var agreements = 0
    /// Sum of the divergence KL(reference ‖ model) over the tokens scored.
    public private(set) var divergence = 0.0

    /// Share of tokens for which both models' most likely next token is the same.
    public var agreement: Double { tokens > 0 ? Double(agreements) / Double(tokens) : .nan }
    /// Mean divergence from the reference, in nats.
    public var meanDivergence: Double { tokens > 0 ? divergence / Double(tokens) : .nan }
    /// exp of the loss.
    public var value: Double { tokens > 0 ? exp(negativeLogLikelihood / Double(tokens)) : .nan }
    /// Mean −log p.
    public var loss: Double { tokens > 0 ? negativeLogLikelihood / Double(tokens) : .nan }

    /// Scores every token but the first.
    ///
    /// - `window`: tokens per window.
    /// - `stride`: new tokens scored by each window after the first.
    /// - `reference`: a model with the same vocabulary to compare predictions with, such as the one from
    ///   which this one was quantized.
    /// - `mask`, `steering`: changes of the model, not of the reference; positions are those of a window.
    /// - `progress`: called with the tokens scored so far; false stops.
    /// - Throws: `GenerationError.invalidSetting`, `ModelError`.
    public init(
        of ids: [Int32], model: MonetLanguageModel, window: Int, stride: Int,
        backend: any Backend = CPUBackend(),
        reference: MonetLanguageModel? = nil, mask: UnitMask? = nil, steering: Steering? = nil,
        progress: (Perplexity) -> Bool = { _ in true }
    ) throws {
        guard ids.count >= 2 else {
            throw GenerationError.invalidSetting(
                name: "text", found: "\(ids.count) tokens", expected: "two or more")
        }
        guard window >= 2, window <= model.configuration.contextLength else {
            throw GenerationError.invalidSetting(
                name: "context", found: "\(window)",
                expected: "from 2 to the model's \(model.configuration.contextLength)")
        }
        guard stride >= 1, stride < window else {
            throw GenerationError.invalidSetting(
                name: "stride", found: "\(stride)", expected: "from 1 to \(window - 1), less than the context"
            )
        }
        if let reference, reference.configuration.vocabularySize != model.configuration.vocabularySize {
            throw GenerationError.invalidSetting(
                name: "reference", found: "\(reference.configuration.vocabularySize) pieces",
                expected: "the model's \(model.configuration.vocabularySize)")
        }
        var scored = 1
        while scored < ids.count {
            let end = scored == 1 ? min(ids.count, window) : min(ids.count, scored + stride)
            let start = max(0, end - window)
            let part = Array(ids[start..<end])
            // Position i predicts token i + 1.
            let targets = (start..<end).map { $0 + 1 >= scored && $0 + 1 < end ? ids[$0 + 1] : -1 }
            var sequence = ForwardSequence(part, mask: mask)
            sequence.steering = steering
            let output = try model.forward(ForwardInput([sequence]), on: backend)
            let losses = try model.crossEntropy(output, targets: targets).floats()
            negativeLogLikelihood += losses.reduce(0.0) { $0 + Double($1) }
            tokens += targets.count { $0 >= 0 }
            if let reference {
                let other = try reference.forward(ForwardInput([part]), on: backend)
                try compare(
                    targets.indices.filter { targets[$0] >= 0 },
                    { try model.logits(output.hidden.value.slice($0..<($0 + 1)), on: backend).floats() },
                    { try reference.logits(other.hidden.value.slice($0..<($0 + 1)), on: backend).floats() })
            }
            scored = end
            guard progress(self) else { return }
        }
    }

    /// Adds the agreement and divergence of two models' logits at some rows.
    private mutating func compare(
        _ rows: [Int], _ logits: (Int) throws -> [Float], _ reference: (Int) throws -> [Float]
    ) throws {
        for row in rows {
            let (found, expected) = (LogProbabilities(try logits(row)), LogProbabilities(try reference(row)))
            let (first, second) = (found.top(1).first?.id, expected.top(1).first?.id)
            if first == second { agreements += 1 }
            for id in 0..<Int32(expected.count) {
                let p = expected[id]
                divergence += exp(p) * (p - found[id])
            }
        }
    }
}
