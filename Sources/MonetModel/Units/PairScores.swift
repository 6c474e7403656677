import MonetCompute

/// The routing scores of tokens in one router group: Σ_h ĝ1_hi · ĝ2_hj for every expert (i, j) that a head
/// selects, times its strength. It is created once and filled for one token after another.
struct PairScores: UnitScoreReader {
    private let routing: ExpertRouting
    private let left: [Float]
    private let right: [Float]
    private let heads: Int
    private let experts: Int
    private var sums: [Float]
    private var lefts: [(expert: Int, value: Float)] = []
    private var rights: [(expert: Int, value: Float)] = []
    /// Experts with a product above zero, in the order of heads.
    private var indices: [Int] = []

    init(_ routing: ExpertRouting) {
        self.routing = routing
        left = routing.left.floats()
        right = routing.right.floats()
        heads = routing.left.shape[1]
        experts = routing.left.shape[2]
        sums = Array(repeating: 0, count: experts * experts)
    }

    mutating func visit(_ row: Int, _ body: (_ unit: Int, _ score: Float) -> Void) {
        read(row)
        let strengths = routing.strengths.first { $0.rows.contains(row) }
        for index in indices {
            guard let strengths, strengths.isTouched(index) else {
                body(index, sums[index])
                continue
            }
            let score = sums[index] * strengths[index]
            if score > 0 { body(index, score) }
        }
    }

    /// Replaces the scores with those of a row of both sides' probabilities.
    private mutating func read(_ row: Int) {
        for index in indices { sums[index] = 0 }
        indices.removeAll(keepingCapacity: true)
        for head in 0..<heads {
            let start = (row * heads + head) * experts
            Self.select(left[start..<(start + experts)], &lefts)
            Self.select(right[start..<(start + experts)], &rights)
            for (i, leftValue) in lefts {
                for (j, rightValue) in rights {
                    let index = i * experts + j
                    let product = leftValue * rightValue
                    // Products of tiny probabilities can underflow to zero; such an expert did not fire.
                    guard product > 0 else { continue }
                    if sums[index] == 0 { indices.append(index) }
                    sums[index] += product
                }
            }
        }
    }

    private static func select(_ values: ArraySlice<Float>, _ list: inout [(expert: Int, value: Float)]) {
        list.removeAll(keepingCapacity: true)
        for (place, value) in values.enumerated() where value > 0 { list.append((place, value)) }
    }
}
