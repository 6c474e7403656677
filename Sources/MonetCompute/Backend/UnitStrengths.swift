/// Factors on the terms of single units of one group, 1 where none is given: units are experts i · E + j,
/// or hidden units of a dense feed-forward.
///
/// Every product ĝ1_hi · ĝ2_hj of an expert is multiplied by its strength, with no renormalization: 0
/// removes the expert, values above 1 amplify it. A hidden unit's activation is multiplied alike.
public struct UnitStrengths: Sendable, Equatable {
    /// Units of the group.
    public let units: Int
    /// A bit for every unit that has a strength of its own.
    private var touched: [UInt64]
    /// How many bits precede each word.
    private var ranks: [Int32]
    private var values: [Float]

    /// - `strengths`: by unit; indices must lie in `0..<units`.
    public init(units: Int, strengths: [Int: Float]) {
        self.units = units
        touched = Array(repeating: 0, count: (units + 63) / 64)
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

    /// Units whose strength is not 1.
    public var count: Int { values.count }

    /// Whether the unit's strength is not 1.
    public func isTouched(_ index: Int) -> Bool { touched[index / 64] >> UInt64(index % 64) & 1 != 0 }

    /// The strength of a unit.
    public subscript(index: Int) -> Float {
        let word = touched[index / 64]
        let bit = UInt64(1) << UInt64(index % 64)
        if word & bit == 0 { return 1 }
        return values[Int(ranks[index / 64]) + (word & (bit - 1)).nonzeroBitCount]
    }
}

/// The strengths that hold for some rows of a batch, those of one sequence: a model's own and a request's
/// multiply.
public struct RowStrengths: Sendable, Equatable {
    /// Rows, that is tokens of the batch.
    public let rows: Range<Int>
    /// What multiplies.
    public let factors: [UnitStrengths]

    /// Joins rows and their factors.
    public init(rows: Range<Int>, factors: [UnitStrengths]) {
        self.rows = rows
        self.factors = factors
    }

    /// Whether any factor of the unit is not 1.
    public func isTouched(_ index: Int) -> Bool { factors.contains { $0.isTouched(index) } }

    /// The unit's strength, the product of all factors.
    public subscript(index: Int) -> Float { factors.reduce(1) { $0 * $1[index] } }
}
