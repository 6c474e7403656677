import MonetCompute

/// The routing scores of one token in one router group: Σ_h ĝ1_hi · ĝ2_hj for every expert (i, j) that
/// a head selects. Made once and filled token after token.
struct PairScores {
    private let heads: Int
    private let experts: Int
    private var sums: [Float]
    private var lefts: [(expert: Int, value: Float)] = []
    private var rights: [(expert: Int, value: Float)] = []
    /// Experts with a score above zero, in the order of heads.
    private(set) var indices: [Int] = []

    init(heads: Int, experts: Int) {
        self.heads = heads
        self.experts = experts
        sums = Array(repeating: 0, count: experts * experts)
    }

    /// An expert's score.
    subscript(index: Int) -> Float { sums[index] }

    /// Hands over every expert with a score above zero.
    func visit(_ body: (_ index: Int, _ score: Float) -> Void) {
        sums.withUnsafeBufferPointer { sums in for index in indices { body(index, sums[index]) } }
    }

    /// Replaces the scores by those of a row of both sides' probabilities `[tokens, heads, experts]`.
    mutating func read(_ row: Int, left: UnsafePointer<Float>, right: UnsafePointer<Float>) {
        sums.withUnsafeMutableBufferPointer { sums in for index in indices { sums[index] = 0 } }
        indices.removeAll(keepingCapacity: true)
        let width = heads * experts
        for head in 0..<heads {
            Self.select(left + row * width + head * experts, experts, &lefts)
            Self.select(right + row * width + head * experts, experts, &rights)
            for (i, leftValue) in lefts {
                for (j, rightValue) in rights {
                    let index = i * experts + j
                    let product = leftValue * rightValue
                    // Products of tiny probabilities can vanish: such an expert did not fire.
                    guard product > 0 else { continue }
                    if sums[index] == 0 { indices.append(index) }
                    sums[index] += product
                }
            }
        }
    }

    private static func select(
        _ values: UnsafePointer<Float>, _ count: Int, _ list: inout [(expert: Int, value: Float)]
    ) {
        list.removeAll(keepingCapacity: true)
        for expert in 0..<count where values[expert] > 0 { list.append((expert, values[expert])) }
    }
}
