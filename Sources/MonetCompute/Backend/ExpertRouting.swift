import Synchronization

/// A batch's routing as the expert layers of a group read it.
///
/// What a device derives from the probabilities, such as lists of the selected experts, is made by the
/// group's first layer and kept here for the others.
public final class ExpertRouting: Sendable {
    /// ĝ1 and ĝ2, `[tokens, heads, experts]` with exact zeros outside the selection.
    public let left: Tensor
    public let right: Tensor
    /// Strengths of experts that are removed, weakened or amplified, for ranges of tokens in ascending order;
    /// tokens in none of them have all strengths 1.
    public let strengths: [RowStrengths]
    /// Whether each head's probabilities sum to 1, which the factorized equations use. Where they may not, as after
    /// a replacement, or where their own derivatives are asked for, the sums over pairs are computed as written.
    public let isNormalized: Bool
    /// Rows, that is tokens, of which the same holds one by one: their heads' probabilities may not sum to 1.
    public let unnormalizedRows: [Range<Int>]
    private let kept = Mutex<(any Sendable)?>(nil)

    /// Joins both sides' probabilities and the strengths on their pairs.
    public init(
        left: Tensor, right: Tensor, strengths: [RowStrengths] = [], isNormalized: Bool = true,
        unnormalizedRows: [Range<Int>] = []
    ) {
        self.unnormalizedRows = unnormalizedRows
        self.isNormalized = isNormalized
        self.left = left
        self.right = right
        self.strengths = strengths
    }

    /// What `make` gave the first time, for a device's own lists.
    public func derived<Value: Sendable>(_ make: () throws -> Value) rethrows -> Value {
        try kept.withLock { kept in
            if let known = kept as? Value { return known }
            let made = try make()
            kept = made
            return made
        }
    }
}

/// A routing through which the weights of an expert layer and its probabilities get their gradients, in place of the one
/// that it runs with: some experts learn and others do not.
public struct ExpertLearning {
    /// ĝ1 and ĝ2 with zeros where no gradient flows, `[tokens, heads, experts]`.
    public let left: Variable
    public let right: Variable
    /// The same as expert layers read it.
    public let routing: ExpertRouting

    /// Joins the probabilities and their routing.
    public init(left: Variable, right: Variable, routing: ExpertRouting) {
        (self.left, self.right, self.routing) = (left, right, routing)
    }
}
