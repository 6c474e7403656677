import MonetCompute
import MonetFoundation
import MonetModel

/// On which tokens of some documents each head selects each half of one group, and the classes of the tokens.
struct HalfFirings {
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
