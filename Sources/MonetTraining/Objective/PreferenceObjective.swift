import Foundation
import MonetCompute
import MonetModel
import MonetText

/// Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, equation 7): the tuned model is to prefer the
/// chosen answer more than the model that it started from does.
///
/// The loss of a pair is −log σ(m) with the margin m = β · ((log π(chosen) − log π₀(chosen)) − (log π(rejected) −
/// log π₀(rejected))).
package struct PreferenceObjective: Sendable {
    /// β, how much a difference of log-probabilities counts.
    package let beta: Double
    /// π₀, which stays as it is.
    package let reference: MonetLanguageModel

    /// Joins both.
    package init(beta: Double, reference: MonetLanguageModel) {
        (self.beta, self.reference) = (beta, reference)
    }

    /// What pairs gave.
    package struct Result: Sendable, Equatable {
        /// The sum of the pairs' losses.
        package var loss = 0.0
        /// The sum of their margins.
        package var margin = 0.0
        /// Pairs with a positive margin.
        package var correct = 0.0
        package var pairs = 0

        package init() {}

        /// Adds a pair, and returns ∂loss/∂log π(chosen), the negative of ∂loss/∂log π(rejected).
        package mutating func add(margin: Double, beta: Double) -> Double {
            // −log σ(m) = log(1 + e⁻ᵐ), without overflow.
            loss += max(0, -margin) + log1p(exp(-abs(margin)))
            self.margin += margin
            correct += margin > 0 ? 1 : 0
            pairs += 1
            let refusal = margin > 0 ? exp(-margin) / (1 + exp(-margin)) : 1 / (1 + exp(margin))
            return -beta * refusal
        }
    }

    /// The losses of a batch's pairs; in a pass with gradients, `share` of their sum becomes a loss of the pass.
    ///
    /// - `output`: of the batch's sequences, chosen and rejected in turn.
    package func callAsFunction(
        _ output: ForwardOutput, model: MonetLanguageModel, batch: BatchStream.Batch, share: Double,
        backend: any Backend
    ) throws -> Result {
        let own = try sums(
            model.crossEntropy(of: output.hidden.value, targets: batch.targets, on: backend), batch)
        let before = try reference.forward(ForwardInput(batch.inputs), on: backend)
        let base = try sums(
            reference.crossEntropy(of: before.hidden.value, targets: batch.targets, on: backend), batch)
        var result = Result()
        var scales: [Float] = []
        for pair in 0..<(batch.inputs.count / 2) {
            let (chosen, rejected) = (2 * pair, 2 * pair + 1)
            // Sums are of −log π.
            let margin = beta * ((base[chosen] - own[chosen]) - (base[rejected] - own[rejected]))
            let slope = share * result.add(margin: margin, beta: beta)
            scales += [Float(-slope), Float(slope)]
        }
        _ = try model.crossEntropy(
            output, targets: batch.targets, sequences: zip(batch.inputs, scales).map { ($0.count, $1) })
        return result
    }

    /// The sum over each sequence of a batch.
    private func sums(_ losses: Tensor, _ batch: BatchStream.Batch) -> [Double] {
        let values = losses.floats()
        var place = 0
        return batch.inputs.map { input in
            defer { place += input.count }
            return values[place..<(place + input.count)].reduce(0.0) { $0 + Double($1) }
        }
    }
}
