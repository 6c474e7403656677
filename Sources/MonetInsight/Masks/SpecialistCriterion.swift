/// When a unit counts as the specialist of a label.
public struct SpecialistCriterion: Sendable, Equatable {
    /// Minimum ratio of the mean score on the label to that on the next label.
    public var ratio: Double
    /// Minimum number of tokens that the unit fires on. Any unit that fires once is a perfect specialist of
    /// that token's label, which says nothing about it.
    public var minimumCount: Int
    /// Minimum share of tokens that the unit fires on.
    public var minimumFrequency: Double

    /// By default the paper's ratio of 2 (section 5), for units that fire on 50 tokens or more.
    public init(ratio: Double = 2, minimumCount: Int = 50, minimumFrequency: Double = 0) {
        self.ratio = ratio
        self.minimumCount = minimumCount
        self.minimumFrequency = minimumFrequency
    }
}
