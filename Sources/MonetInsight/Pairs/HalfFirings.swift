import MonetCompute
import MonetFoundation
import MonetModel

/// On which tokens of some documents each head selects each half of one group, and the classes of the tokens.
package struct HalfFirings {
    /// Tokens whose next token lies in the same window.
    private(set) var tokens = 0
    /// The document's label and the next token of each token; a label below 0 is none.
    private(set) var labels: [Int32] = []
    private(set) var nextTokens: [Int32] = []
    let heads: Int
    let halves: Int
    /// Ascending tokens by head and half: left at `head · halves + half`.
    private(set) var left: [[Int32]]
    private(set) var right: [[Int32]]

    /// Firings that are known: lists of ascending tokens by head and half.
    package init(
        heads: Int, halves: Int, left: [[Int32]], right: [[Int32]], labels: [Int32], nextTokens: [Int32]
    ) {
        (self.heads, self.halves, self.left, self.right) = (heads, halves, left, right)
        (self.labels, self.nextTokens, tokens) = (labels, nextTokens, labels.count)
    }

    init(heads: Int, halves: Int) {
        (self.heads, self.halves) = (heads, halves)
        left = Array(repeating: [], count: heads * halves)
        right = left
    }

    /// Bytes that the lists take.
    var byteCount: Int {
        4 * (2 * tokens + left.reduce(0) { $0 + $1.count } + right.reduce(0) { $0 + $1.count })
    }

    /// Adds the tokens of a batch. The last token of a window has no next one and is left out.
    mutating func add(
        _ batch: DocumentReader.Batch, _ routing: Routing, documents: LabelledDocuments, set: Int
    ) {
        let (lefts, rights) = (routing.left.value.floats(), routing.right.value.floats())
        let width = heads * halves
        var row = 0
        for piece in batch.pieces {
            let label =
                documents.labels(piece.document).indices.contains(set)
                ? documents.labels(piece.document)[set] : -1
            for place in piece.tokens.indices.dropLast() {
                let start = (row + place) * width
                for column in 0..<width {
                    if lefts[start + column] > 0 { left[column].append(Int32(tokens)) }
                    if rights[start + column] > 0 { right[column].append(Int32(tokens)) }
                }
                labels.append(Int32(label))
                nextTokens.append(piece.tokens[place + 1])
                tokens += 1
            }
            row += piece.tokens.count
        }
    }

    /// Pairs to test, evenly in the order of the tokens on which independent halves would fire together, most first.
    ///
    /// - `isRemoved`: pairs that are left out.
    func pairs(_ settings: PairTest.Settings, isRemoved: (Int) -> Bool) -> [Int] {
        var found: [(pair: Int, expected: Double)] = []
        for i in 0..<halves {
            for j in 0..<halves where !isRemoved(i * halves + j) {
                let expected = (0..<heads).reduce(0.0) { sum, head in
                    let (a, b) = (left[head * halves + i].count, right[head * halves + j].count)
                    return sum + Double(a) * Double(b) / Double(max(1, tokens))
                }
                if expected >= settings.minimumExpected { found.append((i * halves + j, expected)) }
            }
        }
        found.sort { ($1.expected, $0.pair) < ($0.expected, $1.pair) }
        let count = min(found.count, max(0, settings.pairsPerGroup))
        return (0..<count).map { found[$0 * found.count / count].pair }
    }

    /// The tokens on which any head selects a half, ascending.
    func any(_ side: ExpertSide, _ half: Int) -> [Int32] {
        let lists = side == .left ? left : right
        if heads == 1 { return lists[half] }
        return Set((0..<heads).flatMap { lists[$0 * halves + half] }).sorted()
    }
}

/// Sets of tokens as bits.
struct TokenSet {
    private var words: [UInt64]

    init(_ tokens: [Int32], of count: Int) {
        words = Array(repeating: 0, count: (count + 63) / 64)
        for token in tokens { words[Int(token) >> 6] |= 1 << UInt64(token & 63) }
    }

    func contains(_ token: Int32) -> Bool { words[Int(token) >> 6] >> UInt64(token & 63) & 1 == 1 }
}
