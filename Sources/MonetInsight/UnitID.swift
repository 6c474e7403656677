import MonetModel

/// A unit of a group: `5/147040` is expert 147040 of the fifth router, or neuron 147040 of layer 5.
public struct UnitID: Hashable, Sendable, Codable, CustomStringConvertible {
    /// The group of units, counted from 0.
    public let group: Int
    /// The index of the unit in its group; for an expert with left half i and right half j, `i · E + j`.
    public let index: Int

    /// Names a unit.
    public init(group: Int, index: Int) {
        self.group = group
        self.index = index
    }

    /// Reads `group/index`.
    ///
    /// - Throws: `InsightError.invalidExpert` for another form or a unit outside the model.
    public init(parsing name: String, in units: UnitLayout) throws {
        let (groups, total) = (units.groups, units.unitsPerGroup)
        guard let (group, index) = UnitLayout.numbers(of: name), (0..<groups).contains(group),
            (0..<total).contains(index)
        else {
            throw InsightError.invalidExpert(
                name: name, expected: "GROUP/EXPERT from 0/0 to \(groups - 1)/\(total - 1)")
        }
        self.init(group: group, index: index)
    }

    public var description: String { "\(group)/\(index)" }
}
