import Foundation
import MonetFoundation

/// Experts that alone learn from the documents of a label, so that the label's knowledge can be removed with them.
///
/// Gradients of a label's documents reach weights of feed-forward layers and routers only through its experts, as in
/// selective gradient masking (Shilov et al. 2025, arXiv 2512.05648); other text uses and teaches all experts, and
/// what comes before a layer learns from all of it. Routers learn to send the documents to their experts. A label has the same halves on both sides
/// of every router, and its experts are the pairs of these halves.
public struct ReservedExperts: Sendable, Equatable {
    /// The experts of a label.
    public struct Block: Sendable, Equatable {
        /// The label.
        public let label: String
        /// The halves on either side: expert (i, j) is the label's if both i and j are among them.
        public let halves: Range<Int>

        /// Joins a label and its halves.
        public init(label: String, halves: Range<Int>) { (self.label, self.halves) = (label, halves) }
    }

    /// The file in a checkpoint that has them.
    public static let fileName = "reserved_experts.json"

    /// Experts per side, E.
    public let perSide: Int
    /// The labels' experts, no half of which belongs to two labels.
    public let blocks: [Block]

    /// Reserves a share of the E² experts for each label: √share of the halves, one at least, the last ones first.
    ///
    /// - Throws: `ModelError.invalidInput` if there are fewer halves than the labels need.
    public init(shares: [(label: String, share: Double)], perSide: Int) throws {
        var (blocks, end) = ([Block](), perSide)
        for (label, share) in shares {
            let count = max(1, Int((Double(perSide) * share.squareRoot()).rounded()))
            guard count <= end else {
                throw ModelError.invalidInput(
                    reason:
                        "experts of \(label): \(share) of all experts take \(count) of the \(perSide) halves of "
                        + "each side, and \(end) are left")
            }
            blocks.append(Block(label: label, halves: (end - count)..<end))
            end -= count
        }
        (self.blocks, self.perSide) = (blocks, perSide)
    }

    /// Reads the file of a checkpoint; nil if it has none.
    ///
    /// - Throws: `FileError`, `ModelError.invalidConfiguration`.
    public init?(folder: String) throws {
        let path = folder + "/" + Self.fileName
        guard FileManager.default.fileExists(atPath: path) else { return nil }
        let json = try JSONValue(contentsOfFile: path)
        func fail(_ key: String, _ expected: String) -> ModelError {
            .invalidConfiguration(
                file: path, key: key, found: json[key]?.serialized() ?? "absent", expected: expected)
        }
        guard let perSide = json["experts_per_side"]?.intValue, (1...1 << 20).contains(perSide) else {
            throw fail("experts_per_side", "a number from 1 to \(1 << 20)")
        }
        let expected = "labels with \"first\" and \"count\" of halves below \(perSide), none of them twice"
        guard let members = json["labels"]?.members else { throw fail("labels", expected) }
        self.perSide = perSide
        blocks = try members.map { member in
            guard let first = member.value["first"]?.intValue, let count = member.value["count"]?.intValue,
                first >= 0, count > 0, first < perSide, count <= perSide - first
            else { throw fail("labels", expected) }
            return Block(label: member.key, halves: first..<(first + count))
        }
        let halves = blocks.map(\.halves).sorted { $0.lowerBound < $1.lowerBound }
        guard zip(halves, halves.dropFirst()).allSatisfy({ $0.upperBound <= $1.lowerBound }) else {
            throw fail("labels", expected)
        }
    }

    /// The file's content.
    public var json: JSONValue {
        [
            "experts_per_side": .integer(perSide),
            "labels": .object(
                blocks.map { block in
                    .init(
                        block.label,
                        ["first": .integer(block.halves.lowerBound), "count": .integer(block.halves.count)])
                }),
        ]
    }

    /// A mask that removes a label's experts from every group.
    ///
    /// - `withHalves`: also those that share one half with them, so that no weight of experts that the label's documents changed
    ///   is used any more.
    /// - Throws: `ModelError.invalidInput` for a label without experts, or other sizes of experts.
    public func mask(label: String, withHalves: Bool = false, of units: UnitLayout) throws -> UnitMask {
        guard let block = blocks.first(where: { $0.label == label }) else {
            throw ModelError.invalidInput(
                reason: "no experts are reserved for \(label), only for "
                    + blocks.map(\.label).joined(separator: ", "))
        }
        guard units.unitsPerGroup == perSide * perSide else {
            throw ModelError.invalidInput(
                reason: "experts are reserved of \(perSide * perSide) in a group, and the model has "
                    + "\(units.unitsPerGroup)")
        }
        let all = 0..<perSide
        var removed = block.halves.flatMap { i in
            (withHalves ? all : block.halves).map { i * perSide + $0 }
        }
        if withHalves {
            removed += all.filter { !block.halves.contains($0) }.flatMap { i in
                block.halves.map { i * perSide + $0 }
            }
        }
        var mask = UnitMask(units)
        for group in 0..<units.groups { mask.remove(removed, group: group) }
        return mask
    }
}
