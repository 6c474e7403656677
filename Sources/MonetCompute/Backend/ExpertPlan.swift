/// One half of an expert (i, j): the left one is i, the right one j.
public enum ExpertSide: String, Sendable, CaseIterable {
    case left
    case right

    /// The other half.
    public var other: ExpertSide { self == .left ? .right : .left }
}

/// Equations 6 to 15 as a plan of terms: which side's hidden units reach which part of the output, and how.
///
/// Every side s in `hidden` has units σ(Uˢ h + bˢ) of each of its experts. Every projection writes one part
/// of the output through the down-matrices of one side's experts. Its sources are the hidden units that
/// these matrices multiply:
///
/// - the side's own units are *weighted*: those of expert i by Σ_h ĝ_hi;
/// - the other side's are *mixed* (equation 12): expert j receives Σ_h ĝ_hj Σ_i ĝ'_hi a_i;
/// - the output bias of expert i is weighted by Σ_h ĝ_hi.
///
/// The dense, the gathered and the packed execution run this plan, its gradient follows from it, and
/// attribution reads the terms of single pairs from it. With strengths s_ij on pairs, every ĝ_hi ĝ'_hj is
/// multiplied by s_ij, and Σ_h ĝ_hi becomes Σ_h ĝ_hi Σ_j s_ij ĝ'_hj.
public struct ExpertPlan: Sendable, Equatable {
    /// A down-projection: one part of the output, written by one side's experts.
    public struct Projection: Sendable, Equatable {
        /// Whose matrices and output biases.
        public let side: ExpertSide
        /// Whose hidden units, each through a matrix of its own.
        public let sources: [ExpertSide]

        /// Joins the side and its sources.
        public init(side: ExpertSide, sources: [ExpertSide]) {
            self.side = side
            self.sources = sources
        }

        /// Whether a source's units are mixed into this side's experts rather than weighted.
        public func mixes(_ source: ExpertSide) -> Bool { source != side }
    }

    /// The sides with hidden units.
    public let hidden: [ExpertSide]
    /// One for every equal part of the output, first columns first.
    public let projections: [Projection]

    /// Joins hidden sides and projections.
    public init(hidden: [ExpertSide], projections: [Projection]) {
        self.hidden = hidden
        self.projections = projections
    }

    /// Equations 6 to 12, y = Σ_j V_j c_j + Σ_j (Σ_h ĝ2_hj) b²_j: left units, mixed into right experts.
    public static let horizontal = ExpertPlan(
        hidden: [.left], projections: [Projection(side: .right, sources: [.left])])

    /// Equations 13 to 15: both sides have units; left experts write the upper half of the output (V¹¹, V¹²),
    /// right experts the lower half (V²¹, V²²).
    public static let vertical = ExpertPlan(
        hidden: [.left, .right],
        projections: [
            Projection(side: .left, sources: [.left, .right]),
            Projection(side: .right, sources: [.left, .right]),
        ])
}
