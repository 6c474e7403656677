import MonetCompute

/// A feed-forward block at one input, linearized: routing probabilities and the activations' gates keep the values
/// that they have there.
///
/// With σ(z) = max(0, z)² written as max(0, z) · z and its first factor held, every unit's output is affine in the block's
/// input h, and equal to the true one at the point. So are the parts that follow from a gradient at the output: a unit's
/// contribution v · y_u is its input gradient times h, plus what its biases contribute.
public protocol LinearizedFeedForward {
    /// v · y_u of every unit u that has a term at a token, for a gradient v of the output, `[tokens, d]`.
    ///
    /// - `visit`: called with the token, the unit and the contribution, one token after another.
    func contributions(
        of gradient: Tensor, _ visit: (_ token: Int, _ unit: Int, _ contribution: Double) -> Void) throws
    /// The score of a unit at a token: its routing score, or a neuron's absolute activation.
    func score(_ term: UnitTerm) -> Double
    /// The outputs y_u of units at tokens, `[terms, d]`.
    func outputs(_ terms: [UnitTerm]) throws -> [Float]
    /// The outputs that units would have for other inputs of the block, with their scores held and nothing linearized.
    ///
    /// - `inputs`: h of each term, `[terms, d]`.
    func outputs(_ terms: [UnitTerm], forInputs inputs: [Float]) throws -> [Float]
    /// Gradient with respect to h of v · y for the whole block, and what the biases contribute at each token.
    ///
    /// - `gradient`: v, `[tokens, d]`.
    func inputGradient(of gradient: Tensor) throws -> (gradient: Tensor, biases: [Double])
    /// Gradient with respect to h of v · y_u for single units, `[terms, d]`, and what each unit's biases contribute.
    ///
    /// - `gradients`: v of each term, `[terms, d]`.
    func inputGradients(_ terms: [UnitTerm], of gradients: [Float]) throws -> (
        gradients: [Float], biases: [Double]
    )
}

/// A unit at a token.
public struct UnitTerm: Hashable, Sendable {
    /// Row of the batch.
    public let token: Int
    /// The unit's index in its group.
    public let unit: Int

    /// Joins both.
    public init(token: Int, unit: Int) { (self.token, self.unit) = (token, unit) }
}

/// A layer's input and units at which it is linearized.
public struct FeedForwardPoint {
    /// The block's input h, `[tokens, d]`.
    public let input: Tensor
    /// The activations of its group of units.
    public let units: any UnitActivations
    /// Strengths of units for rows.
    public let strengths: [RowStrengths]

    /// Joins them.
    public init(input: Tensor, units: any UnitActivations, strengths: [RowStrengths]) {
        (self.input, self.units, self.strengths) = (input, units, strengths)
    }
}
