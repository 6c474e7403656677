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

    /// Reads a mask file: int64 tensors `removed.{g}`, and `scaled.{g}.index` with float32
    /// `scaled.{g}.strength`.
    ///
    /// - Throws: `ModelError` naming the file and tensor that does not fit the model.
    public init(contentsOfFile path: String, configuration: MonetConfiguration) throws {
        guard configuration.feedForward != .dense else {
            throw ModelError.invalidInput(reason: "\(path): a dense model has no experts to mask")
        }
        self.init(experts: configuration.expertsPerSide)
        let file = try SafetensorsFile(path: path)
        let total = experts * experts
        func indices(_ name: String) throws -> [Int] {
            let tensor = try file.tensor(name)
            guard tensor.dtype == .int64, tensor.shape.count == 1 else {
                throw ModelError.wrongDType(
                    file: path, tensor: name, expected: "a list of I64",
                    found: "\(tensor.dtype.rawValue) \(tensor.shape)")
            }
            let values = tensor.integers()
            if let bad = values.first(where: { $0 < 0 || $0 >= total }) {
                throw ModelError.invalidInput(
                    reason: "\(path): tensor \"\(name)\" names expert \(bad), expected 0 to \(total - 1)")
            }
            return values
        }
        for entry in file.entries {
            let parts = entry.name.split(separator: ".").map(String.init)
            guard parts.count >= 2, let group = Int(parts[1]),
                configuration.routerLayers.indices.contains(group)
            else {
                throw ModelError.malformedSafetensors(
                    file: path, tensor: entry.name,
                    reason:
                        "expected removed.{g}, scaled.{g}.index or scaled.{g}.strength with a group below \(configuration.routerLayers.count)"
                )
            }
            switch (parts[0], parts.count, parts.last) {
            case ("removed", 2, _): remove(try indices(entry.name), group: group)
            case ("scaled", 3, "index"):
                let list = try indices(entry.name)
                let name = "scaled.\(group).strength"
                let strength = try file.tensor(name)
                guard strength.dtype == .float32, strength.shape == [list.count] else {
                    throw ModelError.wrongShape(
                        file: path, tensor: name, expected: [list.count], found: strength.shape)
                }
                let values = strength.floats()
                if let bad = values.first(where: { !$0.isFinite || $0 < 0 }) {
                    throw ModelError.invalidInput(
                        reason: "\(path): tensor \"\(name)\" holds \(bad), expected strengths of 0 or more")
                }
                set(zip(list, values).map { (index: $0, strength: $1) }, group: group)
            case ("scaled", 3, "strength"):
                guard file.contains("scaled.\(group).index") else {
                    throw ModelError.missingTensor(file: path, tensor: "scaled.\(group).index")
                }
            default:
                throw ModelError.unexpectedTensor(file: path, tensor: entry.name)
            }
        }
    }
}
