/// Sequences of tokens that share their beginnings: each edge stands for tokens that run once for all below it.
final class PrefixTree {
    /// The tokens of the edge, and how many are before it.
    let edge: ArraySlice<Int32>
    let start: Int
    fileprivate(set) var children: [PrefixTree] = []
    /// Sequences that pass along the edge.
    private let members: [Int]
    /// Positions whose rows are wanted, with the sequences that want them.
    private(set) var wanted: [Int: [Int]] = [:]
    /// Whether so much branches off that several lanes should run it.
    private(set) var isWide = false

    private init(edge: ArraySlice<Int32>, start: Int, members: [Int]) {
        (self.edge, self.start, self.members) = (edge, start, members)
    }

    /// Trees of sequences none of which is empty; those that share fewer than `shortestShared` tokens and less
    /// than half of the shorter one have trees of their own.
    static func forest(_ sequences: [[Int32]], shortestShared: Int) -> [PrefixTree] {
        let order = sequences.indices.sorted { sequences[$0].lexicographicallyPrecedes(sequences[$1]) }
        var trees: [PrefixTree] = []
        var cluster: [Int] = []
        func finish() {
            if !cluster.isEmpty { trees.append(tree(cluster, sequences, from: 0)) }
            cluster = []
        }
        for index in order {
            if let last = cluster.last {
                let shared = common(sequences[last], sequences[index], from: 0)
                let shorter = min(sequences[last].count, sequences[index].count)
                if shared < shortestShared, 2 * shared < shorter { finish() }
            }
            cluster.append(index)
        }
        finish()
        for tree in trees { tree.noteWidth(shortestShared) }
        return trees
    }

    private static func common(_ a: [Int32], _ b: [Int32], from start: Int) -> Int {
        var place = start
        let end = min(a.count, b.count)
        while place < end, a[place] == b[place] { place += 1 }
        return place
    }

    /// The tree of sorted sequences that agree in their first `start` tokens.
    private static func tree(_ members: [Int], _ sequences: [[Int32]], from start: Int) -> PrefixTree {
        let (first, last) = (sequences[members[0]], sequences[members[members.count - 1]])
        let end = common(first, last, from: start)
        let node = PrefixTree(edge: first[start..<end], start: start, members: members)
        let longer = members.drop { sequences[$0].count == end }
        var place = longer.startIndex
        while place < longer.endIndex {
            let token = sequences[longer[place]][end]
            var next = place
            while next < longer.endIndex, sequences[longer[next]][end] == token { next += 1 }
            node.children.append(tree(Array(longer[place..<next]), sequences, from: end))
            place = next
        }
        return node
    }

    private var tokenCount: Int { edge.count + children.reduce(0) { $0 + $1.tokenCount } }

    private func noteWidth(_ shortestShared: Int) {
        isWide = children.count > 1 && edge.count >= shortestShared && tokenCount - edge.count > 512
    }

    /// Notes which rows the sequences want: from the one before the first token that is scored, to the last.
    func note(_ queries: [ContinuationScorer.Query]) {
        for query in members {
            let first = max(start, queries[query].first - 1)
            let end = min(start + edge.count, queries[query].tokens.count - 1)
            for position in first..<max(first, end) { wanted[position, default: []].append(query) }
        }
        for child in children { child.note(queries) }
    }
}
