/// An expert of a router group: `5/147040` is expert 147040 of group 5.
public struct ExpertID: Hashable, Sendable, Codable, CustomStringConvertible {
    /// The group of layers that share a router, counted from 0.
    public let group: Int
    /// `i · E + j` of left half i and right half j.
    public let index: Int

    /// Names an expert.
    public init(group: Int, index: Int) {
        self.group = group
        self.index = index
    }

    public var description: String { "\(group)/\(index)" }
}
