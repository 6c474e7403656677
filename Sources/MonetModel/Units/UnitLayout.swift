import MonetCompute

/// The units of a model that interpretability reads: how many there are, in which groups, and how they are
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
    /// Units of a group.
    public let unitsPerGroup: Int
    /// Units on a side, E, where a unit is a pair (i, j) with index i · E + j; nil where it is no pair.
    public let perSide: Int?
    /// Routing heads, H, which bound a unit's score; 1 where there is no routing.
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

    /// Groups.
    public var groups: Int { layersOfGroup.count }
    /// Units of all groups.
    public var count: Int { groups * unitsPerGroup }
    /// The halves i and j of a pair.
    public struct Halves: Sendable, Equatable, Codable {
        public let left: Int
        public let right: Int
    }

    /// The halves of a pair; nil where units are no pairs.
    public func halves(_ index: Int) -> Halves? {
        perSide.map { Halves(left: index / $0, right: index % $0) }
    }
}

/// What one forward pass leaves of the units of one group.
public protocol UnitActivations {
    /// The group.
    var group: Int { get }
    /// Reads the scores of tokens, one token after another. The values are copied from the device once.
    func reader() -> any UnitScoreReader
    /// The same for the last `count` tokens of a pass over one sequence.
    func lastRows(_ count: Int) -> any UnitActivations
}

/// Visits the units that score on a token.
public protocol UnitScoreReader {
    /// Hands over every unit with a score above zero on a row (a token of the batch), strengths applied: a
    /// removed unit never appears.
    mutating func visit(_ row: Int, _ body: (_ unit: Int, _ score: Float) -> Void)
}
