import Foundation
import MonetCompute
import MonetFoundation

/// Experts that are removed, weakened or amplified, by router group.
///
///     var mask = ExpertMask(experts: 512)
///     mask.remove([147_040], group: 5)
///     context.mask = mask
///
/// Group g is that of the g-th router; an expert (i, j) has index i · E + j. Every product of its
/// routing probabilities is multiplied by its strength, 0 if removed, with no renormalization.
public struct ExpertMask: Sendable, Equatable {
    /// Experts on a side, E.
    public let experts: Int
    private var strengths: [Int: [Int: Float]] = [:]
    private var compiled: [Int: ExpertStrengths] = [:]

    /// A mask that changes nothing.
    public init(experts: Int) {
        self.experts = experts
    }

    /// Groups with masked experts.
    public var groups: [Int] { strengths.keys.sorted() }

    /// How many experts of a group have a strength other than 1.
    public func count(group: Int) -> Int { compiled[group]?.count ?? 0 }

    /// How many experts of all groups have a strength other than 1.
    public var count: Int { compiled.values.reduce(0) { $0 + $1.count } }

    /// The experts of a group whose strength is not 1, by index.
    public func entries(group: Int) -> [(index: Int, strength: Float)] {
        (strengths[group] ?? [:]).filter { $0.value != 1 }.sorted { $0.key < $1.key }
            .map { (index: $0.key, strength: $0.value) }
    }

    /// The strength of an expert; 1 unless it is masked.
    public func strength(of index: Int, group: Int) -> Float { strengths[group]?[index] ?? 1 }

    /// Removes experts of a group.
    public mutating func remove(_ indices: some Sequence<Int>, group: Int) {
        set(indices.map { ($0, 0) }, group: group)
    }

    /// Gives experts of a group strengths: 0 removes, 1 leaves as is, more amplifies. Indices must lie in
    /// `0..<experts²`.
    public mutating func set(_ values: some Sequence<(index: Int, strength: Float)>, group: Int) {
        var known = strengths[group] ?? [:]
        for (index, strength) in values {
            precondition(index >= 0 && index < experts * experts, "expert \(index) of \(experts * experts)")
            known[index] = strength
        }
        strengths[group] = known
        compiled[group] = ExpertStrengths(experts: experts, strengths: known)
    }

    /// The strengths of a group; nil if all are 1.
    func strengths(group: Int) -> ExpertStrengths? {
        compiled[group].flatMap { $0.count > 0 ? $0 : nil }
    }

    /// A mask of a share of every group's experts, chosen at random: what a deliberate one is compared with.
    public static func random(share: Double, configuration: MonetConfiguration, seed: UInt64) -> ExpertMask {
        var mask = ExpertMask(experts: configuration.expertsPerSide)
        var generator = SplitMix64(seed: seed)
        let total = configuration.expertsPerSide * configuration.expertsPerSide
        for group in configuration.routerLayers.indices {
            let removed = (0..<total).filter { _ in Double(generator.next() >> 11) * 0x1p-53 < share }
            mask.remove(removed, group: group)
        }
        return mask
    }

    /// The mask applied in part: 0 as it is, 1 not at all, above 1 the other way, so that removed
    /// experts are amplified by `strength`.
    public func applied(strength: Float) -> ExpertMask {
        mapped { max(0, 1 + ($0 - 1) * (1 - strength)) }
    }

    /// Both masks at once: strengths multiply.
    public func union(_ other: ExpertMask) -> ExpertMask {
        var result = self
        for group in other.groups {
            result.set(
                other.entries(group: group).map {
                    (index: $0.index, strength: strength(of: $0.index, group: group) * $0.strength)
                }, group: group)
        }
        return result
    }

    /// The experts that both name, with this mask's strengths.
    public func intersection(_ other: ExpertMask) -> ExpertMask {
        filtered { group, index in other.strength(of: index, group: group) != 1 }
    }

    /// The experts that `other` does not name.
    public func subtracting(_ other: ExpertMask) -> ExpertMask {
        filtered { group, index in other.strength(of: index, group: group) == 1 }
    }

    private func filtered(_ keeps: (_ group: Int, _ index: Int) -> Bool) -> ExpertMask {
        var result = ExpertMask(experts: experts)
        for group in groups {
            result.set(entries(group: group).filter { keeps(group, $0.index) }, group: group)
        }
        return result
    }

    private func mapped(_ change: (Float) -> Float) -> ExpertMask {
        var result = ExpertMask(experts: experts)
        for group in groups {
            result.set(
                entries(group: group).map { (index: $0.index, strength: change($0.strength)) }, group: group)
        }
        return result
    }

    /// A mask of as many experts in every group as this one, chosen at random.
    public func randomOfEqualSize(seed: UInt64) -> ExpertMask {
        var result = ExpertMask(experts: experts)
        var generator = SplitMix64(seed: seed)
        for group in groups {
            var chosen: Set<Int> = []
            while chosen.count < count(group: group) {
                chosen.insert(Int(generator.next() % UInt64(experts * experts)))
            }
            result.remove(chosen, group: group)
        }
        return result
    }
}
