import Foundation
import MonetCompute
import MonetFoundation

/// Units (experts of a Monet, neurons of a dense model) that are removed, weakened or amplified, by group.
///
///     var mask = UnitMask(model.units)
///     mask.remove([147_040], group: 5)
///     let output = try model.forward(ForwardInput([ids], mask: mask))
///
/// Every product of an expert's routing probabilities is multiplied by its strength, 0 if removed, with no
/// renormalization; an expert (i, j) of the g-th router has index i · E + j. A neuron's activation is multiplied
/// likewise. A mask of a forward pass applies in addition to the model's own.
public struct UnitMask: Sendable, Equatable, CustomStringConvertible {
    /// Units per group.
    public let unitsPerGroup: Int
    private var strengths: [Int: [Int: Float]] = [:]
    private var compiled: [Int: UnitStrengths] = [:]

    /// A mask that changes nothing.
    public init(unitsPerGroup: Int) {
        self.unitsPerGroup = unitsPerGroup
    }

    /// A mask for a model's units that changes nothing.
    public init(_ units: UnitLayout) { self.init(unitsPerGroup: units.unitsPerGroup) }

    /// Groups with masked units.
    public var groups: [Int] { strengths.keys.sorted() }

    /// The number of units in a group with a strength other than 1.
    public func count(group: Int) -> Int { compiled[group]?.count ?? 0 }

    /// The number of units in all groups with a strength other than 1.
    public var count: Int { compiled.values.reduce(0) { $0 + $1.count } }

    /// The units of a group whose strength is not 1, by index.
    public func entries(group: Int) -> [(index: Int, strength: Float)] {
        (strengths[group] ?? [:]).filter { $0.value != 1 }.sorted { $0.key < $1.key }
            .map { (index: $0.key, strength: $0.value) }
    }

    /// All entries in a form that tells masks apart, such as `0:17=0.0,45=0.5;3:2=0.0`.
    public var description: String {
        groups.filter { count(group: $0) > 0 }.map { group in
            "\(group):" + entries(group: group).map { "\($0.index)=\($0.strength)" }.joined(separator: ",")
        }.joined(separator: ";")
    }

    /// The strength of a unit; 1 unless it is masked.
    public func strength(of index: Int, group: Int) -> Float { strengths[group]?[index] ?? 1 }

    /// Removes units of a group.
    public mutating func remove(_ indices: some Sequence<Int>, group: Int) {
        set(indices.map { ($0, 0) }, group: group)
    }

    /// Sets the strengths of units in a group: 0 removes a unit, 1 leaves it unchanged, more amplifies it.
    /// Indices must be in `0..<unitsPerGroup`.
    public mutating func set(_ values: some Sequence<(index: Int, strength: Float)>, group: Int) {
        var known = strengths[group] ?? [:]
        for (index, strength) in values {
            precondition(index >= 0 && index < unitsPerGroup, "unit \(index) of \(unitsPerGroup)")
            known[index] = strength
        }
        strengths[group] = known
        compiled[group] = UnitStrengths(units: unitsPerGroup, strengths: known)
    }

    /// The strengths of a group; nil if all are 1.
    func strengths(group: Int) -> UnitStrengths? {
        compiled[group].flatMap { $0.count > 0 ? $0 : nil }
    }

    /// A mask that removes a random share of every group's units, as a baseline for other masks.
    public static func random(share: Double, of units: UnitLayout, seed: UInt64) -> UnitMask {
        var mask = UnitMask(units)
        var generator = SplitMix64(seed: seed)
        for group in 0..<units.groups {
            let removed = (0..<units.unitsPerGroup).filter { _ in
                Double(generator.next() >> 11) * 0x1p-53 < share
            }
            mask.remove(removed, group: group)
        }
        return mask
    }

    /// The mask applied in part: at 0 as it is, at 1 not at all, and above 1 reversed, so that removed
    /// units are amplified by `strength`.
    public func applied(strength: Float) -> UnitMask {
        mapped { max(0, 1 + ($0 - 1) * (1 - strength)) }
    }

    /// Both masks together: strengths are multiplied.
    public func union(_ other: UnitMask) -> UnitMask {
        var result = self
        for group in other.groups {
            result.set(
                other.entries(group: group).map {
                    (index: $0.index, strength: strength(of: $0.index, group: group) * $0.strength)
                }, group: group)
        }
        return result
    }

    /// The units that both name, with this mask's strengths.
    public func intersection(_ other: UnitMask) -> UnitMask {
        filtered { group, index in other.strength(of: index, group: group) != 1 }
    }

    /// The units that `other` does not name.
    public func subtracting(_ other: UnitMask) -> UnitMask {
        filtered { group, index in other.strength(of: index, group: group) == 1 }
    }

    private func filtered(_ keeps: (_ group: Int, _ index: Int) -> Bool) -> UnitMask {
        var result = UnitMask(unitsPerGroup: unitsPerGroup)
        for group in groups {
            result.set(entries(group: group).filter { keeps(group, $0.index) }, group: group)
        }
        return result
    }

    private func mapped(_ change: (Float) -> Float) -> UnitMask {
        var result = UnitMask(unitsPerGroup: unitsPerGroup)
        for group in groups {
            result.set(
                entries(group: group).map { (index: $0.index, strength: change($0.strength)) }, group: group)
        }
        return result
    }

    /// A mask of equally many units in every group, chosen at random.
    public func randomOfEqualSize(seed: UInt64) -> UnitMask {
        var result = UnitMask(unitsPerGroup: unitsPerGroup)
        var generator = SplitMix64(seed: seed)
        for group in groups {
            var chosen: Set<Int> = []
            while chosen.count < count(group: group) {
                chosen.insert(Int(generator.next() % UInt64(unitsPerGroup)))
            }
            result.remove(chosen, group: group)
        }
        return result
    }
}
