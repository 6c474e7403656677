import Synchronization

/// A batch's routing as the expert layers of a group read it.
///
/// What a backend derives from the probabilities, such as lists of the selected experts, is made by
/// the group's first layer and kept here for the others.
public final class ExpertRouting: Sendable {
    /// ĝ1 and ĝ2, `[tokens, heads, experts]` with exact zeros outside the selection.
    public let left: Tensor
    public let right: Tensor
    /// Experts that are removed, weakened or amplified; nil if none is.
    public let strengths: ExpertStrengths?
    private let kept = Mutex<(any Sendable)?>(nil)

    /// Joins both sides' probabilities.
    public init(left: Tensor, right: Tensor, strengths: ExpertStrengths? = nil) {
        self.left = left
        self.right = right
        self.strengths = strengths
    }

    /// What `make` gave the first time.
    func derived<Value: Sendable>(_ make: () -> Value) -> Value {
        kept.withLock { kept in
            if let known = kept as? Value { return known }
            let made = make()
            kept = made
            return made
        }
    }
}

/// Factors on the terms of single experts (i, j) in one router group; 1 where none is given.
///
/// Every product ĝ1_hi · ĝ2_hj of the pair is multiplied by its strength, with no renormalization: 0
/// removes the expert, values above 1 amplify it.
public struct ExpertStrengths: Sendable, Equatable {
    /// Experts on a side, E.
    public let experts: Int
    /// A bit for every pair i · E + j that has a strength of its own.
    private var touched: [UInt64]
    /// How many bits precede each word.
    private var ranks: [Int32]
    private var values: [Float]

    /// - Parameter strengths: by expert index i · E + j; indices must lie in `0..<experts²`.
    public init(experts: Int, strengths: [Int: Float]) {
        self.experts = experts
        touched = Array(repeating: 0, count: (experts * experts + 63) / 64)
        let listed = strengths.filter { $0.value != 1 }.sorted { $0.key < $1.key }
        for (index, _) in listed { touched[index / 64] |= 1 << UInt64(index % 64) }
        values = listed.map(\.value)
        ranks = []
        ranks.reserveCapacity(touched.count)
        var rank: Int32 = 0
        for word in touched {
            ranks.append(rank)
            rank += Int32(word.nonzeroBitCount)
        }
    }

    /// Experts whose strength is not 1.
    public var count: Int { values.count }

    /// Whether the expert's strength is not 1.
    func isTouched(_ index: Int) -> Bool { touched[index / 64] >> UInt64(index % 64) & 1 != 0 }

    /// The strength of the expert i · E + j.
    public subscript(index: Int) -> Float {
        let word = touched[index / 64]
        let bit = UInt64(1) << UInt64(index % 64)
        if word & bit == 0 { return 1 }
        return values[Int(ranks[index / 64]) + (word & (bit - 1)).nonzeroBitCount]
    }
}
