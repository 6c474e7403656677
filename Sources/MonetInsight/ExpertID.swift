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

    /// Reads `group/index`.
    ///
    /// - Throws: `InsightError.invalidExpert` for another form or an expert outside the model.
    public init(parsing name: String, groups: Int, expertsPerSide: Int) throws {
        let parts = name.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) }
        let total = expertsPerSide * expertsPerSide
        guard parts.count == 2, let group = parts[0], let index = parts[1], (0..<groups).contains(group),
            (0..<total).contains(index)
        else {
            throw InsightError.invalidExpert(
                name: name, expected: "GROUP/EXPERT from 0/0 to \(groups - 1)/\(total - 1)")
        }
        self.init(group: group, index: index)
    }

    public var description: String { "\(group)/\(index)" }
}
