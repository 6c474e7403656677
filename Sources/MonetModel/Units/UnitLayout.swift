import MonetCompute

/// The units of a model for interpretability: how many there are, in which groups, and how they are
/// named.
///
/// Units of a Monet are its experts, grouped by router; units of a dense model are its neurons, grouped by
/// layer. A unit is written `group/index`.
public struct UnitLayout: Sendable, Equatable {
    /// What the units are.
    public enum Kind: String, Sendable, Codable {
        case experts
        case neurons
    }

    /// What the units are.
    public let kind: Kind
    /// The layers of each group.
    public let layersOfGroup: [ClosedRange<Int>]
    /// Units per group.
    public let unitsPerGroup: Int
    /// Units per side, E, if a unit is a pair (i, j) with index i · E + j; otherwise nil.
    public let perSide: Int?
    /// Routing heads, H, the upper bound of a unit's score; 1 if there is no routing.
    public let heads: Int

    /// Collects the numbers.
    public init(
        kind: Kind, layersOfGroup: [ClosedRange<Int>], unitsPerGroup: Int, perSide: Int? = nil, heads: Int = 1
    ) {
        self.kind = kind
        self.layersOfGroup = layersOfGroup
        self.unitsPerGroup = unitsPerGroup
        self.perSide = perSide
        self.heads = heads
    }

    /// The number of groups.
    public var groups: Int { layersOfGroup.count }
    /// The number of units in all groups.
    public var count: Int { groups * unitsPerGroup }
    /// The halves i and j of a pair.
    public struct Halves: Sendable, Equatable, Codable {
        public let left: Int
        public let right: Int
    }

    /// The halves of a pair; nil if units are not pairs.
    public func halves(_ index: Int) -> Halves? {
        perSide.map { Halves(left: index / $0, right: index % $0) }
    }
}

extension UnitLayout {
    /// The two numbers of a name such as `5/147040`; nil for another form. Whether a model has the unit is another question.
    public static func numbers(of name: some StringProtocol) -> (group: Int, index: Int)? {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        guard parts.count == 2, let group = parts[0], let index = parts[1] else { return nil }
        return (group, index)
    }
}

/// The activations of one group's units in one forward pass.
public protocol UnitActivations {
    /// The group.
    var group: Int { get }
    /// Reads the scores of tokens, one token after another. The values are copied from the device once.
    func reader() -> any UnitScoreReader
    /// The same for the last `count` tokens of a pass over one sequence.
    func lastRows(_ count: Int) -> any UnitActivations
    /// Which share of the group's weights of units the tokens need.
    func weightShares() -> WeightShares
}

extension UnitActivations {
    public func weightShares() -> WeightShares { WeightShares(ofToken: 1, ofBatch: 1) }
}

/// Shares of a layer's weights of units that tokens need: less than 1 where units are selected.
public struct WeightShares: Sendable {
    /// Mean over tokens.
    public let ofToken: Double
    /// Of all tokens together.
    public let ofBatch: Double

    /// Joins both shares.
    public init(ofToken: Double, ofBatch: Double) {
        self.ofToken = ofToken
        self.ofBatch = ofBatch
    }
}

/// Visits the units that score on a token.
public protocol UnitScoreReader {
    /// Calls `body` with every unit that has a score above zero on a row (a token of the batch). Strengths
    /// are applied, so a removed unit never appears.
    mutating func visit(_ row: Int, _ body: (_ unit: Int, _ score: Float) -> Void)
}
