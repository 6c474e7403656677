import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Scores continuations of contexts: log p of each token given all before it.
///
/// Tokens that several queries begin with run once: queries are sorted into trees whose edges are runs of tokens,
/// and each edge runs on the keys and values of those above it. The last token of a continuation never runs, so
/// that answers of one token cost nothing beyond their context. Several trees run at a time, as lanes of one
/// batch. With a batch-invariant backend, a score is the same bit for bit in any company.
package struct ContinuationScorer {
    /// A text to score from some token on.
    package struct Query: Sendable {
        /// All tokens, at least two.
        package let tokens: [Int32]
        /// The first token that is scored, from 1 on.
        package let first: Int
        /// Whether the score has every token.
        package var keepsTokens = false

        package init(tokens: [Int32], first: Int) {
            self.tokens = tokens
            self.first = first
        }
    }

    /// What a query says of one token.
    package struct Token: Sendable, Equatable {
        package let logProbability: Double
        /// Whether it was the most likely one.
        package let isGreedy: Bool
    }

    /// What a query gives.
    package struct Score: Sendable, Equatable {
        /// Sum of log p of the scored tokens.
        package var logLikelihood = 0.0
        /// Whether each of them was the most likely one.
        package var isGreedy = true
        /// The scored tokens in order, if the query keeps them.
        package var tokens: [Token] = []

        package init(logLikelihood: Double = 0, isGreedy: Bool = true) {
            self.logLikelihood = logLikelihood
            self.isGreedy = isGreedy
        }
    }

    /// Rows of a forward pass: enough to read each weight rarely, few enough to stop soon.
    private static let rowsPerPass = 1024
    /// Shared tokens from which queries run as one tree.
    private static let shortestShared = 16
    private static let mostLanes = 32

    let model: MonetLanguageModel
    let backend: any Backend
    let mask: UnitMask?

    /// - `backend`: a processor's batch-invariant one in bfloat16 runs as is fastest for many rows.
    package init(model: MonetLanguageModel, backend: any Backend, mask: UnitMask? = nil) {
        self.model = model
        self.backend = backend.forManyRows
        self.mask = mask
    }

    /// Scores of all queries, in an order that depends on their tokens alone.
    ///
    /// - `report`: called with each query's index and score as soon as it is known; false stops.
    /// - `progress`: called with the tokens of each pass.
    /// - Returns: whether all were scored.
    /// - Throws: `ModelError`, and what `report` throws.
    package func score(
        _ queries: [Query], progress: (Int) -> Void = { _ in }, report: (Int, Score) throws -> Bool
    ) throws -> Bool {
        let vocabulary = Int32(clamping: model.configuration.vocabularySize)
        for query in queries {
            if let id = query.tokens.first(where: { !(0..<vocabulary).contains($0) }) {
                throw ModelError.invalidInput(
                    reason: "the token \(id), expected 0 to \(vocabulary - 1), the model's vocabulary")
            }
        }
        let trees = PrefixTree.forest(
            queries.map { Array($0.tokens.dropLast()) }, shortestShared: Self.shortestShared)
        var work = Work(queries: queries)
        for tree in trees { tree.note(queries) }
        let longest = queries.reduce(0) { max($0, $1.tokens.count) }
        let count = laneCount(longest: longest)
        var jobs = trees[...].reversed().map { Job(tree: $0, base: nil, origin: 0) }
        var lanes: [Lane] = []
        // Caches of lanes that are done, by what they begin with: using one again saves a copy of that.
        var spare: [Int: [KVCache]] = [:]
        var origins = 0
        while !jobs.isEmpty || !lanes.isEmpty {
            // No more than fill a pass: each lane has a copy of the keys and values it begins with.
            while lanes.count < count, lanes.reduce(0, { $0 + $1.waiting }) < Self.rowsPerPass,
                let job = jobs.popLast()
            {
                if spare[job.origin] == nil { spare = [:] }
                lanes.append(Lane(job, spare[job.origin]?.popLast(), model, longest))
            }
            let parts = try advance(&lanes)
            progress(parts.reduce(0) { $0 + $1.count })
            for query in try work.finish(parts, model: model, backend: backend)
            where try !report(query, work.scores[query]) {
                return false
            }
            // A long beginning of many queries has run: its branches go to several lanes.
            var next: [Lane] = []
            for var lane in lanes {
                if let wide = lane.takeWide() {
                    origins += 1
                    jobs += wide.trees.reversed().map { Job(tree: $0, base: wide.base, origin: origins) }
                } else if !lane.isDone {
                    next.append(lane)
                } else if let cache = lane.cache {
                    spare[lane.origin, default: []].append(cache)
                }
            }
            lanes = next
        }
        return true
    }

    /// As many lanes as memory has room for.
    private func laneCount(longest: Int) -> Int {
        let shape = model.configuration
        let bytes = MemoryLimits.product(
            shape.layerCount, 2, shape.keyValueHeads, shape.headWidth, 4, max(1, longest))
        return max(1, min(Self.mostLanes, MemoryLimits.available / 3 / max(1, bytes)))
    }

    /// Rows of a pass that belong to one edge.
    fileprivate struct Part {
        let node: PrefixTree
        /// Where the rows are in the sequence, and in the output.
        let positions: Range<Int>
        let rows: Range<Int>
        let hidden: Tensor
        var count: Int { rows.count }
    }

    /// Runs the next tokens of the lanes, as many as fit into a pass.
    private func advance(_ lanes: inout [Lane]) throws -> [Part] {
        var chosen: [(lane: Int, count: Int)] = []
        var room = Self.rowsPerPass
        for index in lanes.indices where room > 0 {
            let count = min(room, lanes[index].prepare())
            chosen.append((index, count))
            room -= count
        }
        let input = ForwardInput(
            chosen.map { entry in
                ForwardSequence(
                    lanes[entry.lane].next(entry.count), cache: lanes[entry.lane].cache, mask: mask)
            })
        for entry in chosen { lanes[entry.lane].release() }
        let output = try model.forward(input, on: backend)
        var parts: [Part] = []
        var row = 0
        for (place, entry) in chosen.enumerated() {
            let rows = row..<(row + entry.count)
            row = rows.upperBound
            let (node, positions) = lanes[entry.lane].accept(entry.count, output.caches[place])
            parts.append(Part(node: node, positions: positions, rows: rows, hidden: output.hidden.value))
        }
        return parts
    }
}

/// A tree that a lane runs, on what has run before it.
private struct Job {
    let tree: PrefixTree
    /// The keys and values of the tokens before the tree.
    let base: KVCache?
    /// What the base is of: jobs of one number have the same.
    let origin: Int
}

/// One sequence of keys and values that walks through a tree, depth first, and drops what it leaves behind.
private struct Lane {
    private(set) var cache: KVCache?
    /// Edges to run, the next one last.
    private var stack: [PrefixTree]
    /// Tokens of the next edge that have run.
    private var done = 0
    private var wide: (trees: [PrefixTree], base: KVCache)?
    let origin: Int

    /// - `spare`: a cache that begins with the job's base.
    init(_ job: Job, _ spare: KVCache?, _ model: MonetLanguageModel, _ longest: Int) {
        origin = job.origin
        var cache = spare ?? job.base ?? KVCache(configuration: model.configuration, limit: max(longest, 1))
        cache.sharesBeginning = true
        self.cache = cache
        stack = [job.tree]
    }

    var isDone: Bool { stack.isEmpty }

    /// Tokens of the next edge that are left.
    var waiting: Int { stack.last.map { $0.edge.count - done } ?? 0 }

    /// Drops tokens that the next edge does not follow; returns how many of its tokens are left.
    mutating func prepare() -> Int {
        if done == 0, let node = stack.last { cache?.truncate(to: node.start) }
        return waiting
    }

    func next(_ count: Int) -> [Int32] {
        stack.last.map { Array($0.edge[($0.edge.startIndex + done)..<($0.edge.startIndex + done + count)]) }
            ?? []
    }

    /// Lets go of the cache while the pass has it, so that the pass can extend it in place.
    mutating func release() { cache = nil }

    mutating func accept(_ count: Int, _ new: KVCache) -> (node: PrefixTree, positions: Range<Int>) {
        cache = new
        let node = stack[stack.count - 1]
        let start = node.start + done
        done += count
        if done == node.edge.count {
            stack.removeLast()
            done = 0
            if stack.isEmpty, node.isWide {
                wide = (node.children, new)
            } else {
                stack += node.children.reversed()
            }
        }
        return (node, start..<(start + count))
    }

    /// The branches of an edge that many queries share; the lane ends with it.
    mutating func takeWide() -> (trees: [PrefixTree], base: KVCache)? {
        defer { wide = nil }
        return wide
    }
}

/// What is wanted from the rows of each edge, and the scores so far.
private struct Work {
    let queries: [ContinuationScorer.Query]
    var scores: [ContinuationScorer.Score]
    private var missing: [Int]

    init(queries: [ContinuationScorer.Query]) {
        self.queries = queries
        scores = queries.map { _ in .init() }
        missing = queries.map { $0.tokens.count - $0.first }
    }

    /// Rows of logits at a time: each is as wide as the vocabulary, and the output head is read for every block.
    private static let rowsOfLogits = 512

    /// Adds what the rows of a pass say; returns the queries that are complete.
    mutating func finish(
        _ parts: [ContinuationScorer.Part], model: MonetLanguageModel, backend: any Backend
    ) throws -> [Int] {
        guard let hidden = parts.first?.hidden else { return [] }
        let wanted = parts.flatMap { part in
            part.positions.compactMap { position in
                part.node.wanted[position].map { queries in
                    (
                        row: Int32(part.rows.lowerBound + position - part.positions.lowerBound),
                        position: position, queries: queries
                    )
                }
            }
        }
        var complete: [Int] = []
        for start in stride(from: 0, to: wanted.count, by: Self.rowsOfLogits) {
            let block = wanted[start..<min(wanted.count, start + Self.rowsOfLogits)]
            let logits = try model.logits(backend.embed(block.map(\.row), table: hidden), on: backend)
            let width = logits.columnCount
            logits.withFloats { values in
                for (row, entry) in block.enumerated() {
                    let own = UnsafeBufferPointer(rebasing: values[(row * width)..<((row + 1) * width)])
                    let result = RowProbabilities(own)
                    for query in entry.queries {
                        let token = queries[query].tokens[entry.position + 1]
                        let logProbability = Double(own[Int(token)]) - result.logSum
                        let isGreedy = result.best == Int(token)
                        scores[query].logLikelihood += logProbability
                        scores[query].isGreedy = scores[query].isGreedy && isGreedy
                        if queries[query].keepsTokens {
                            scores[query].tokens.append(
                                .init(logProbability: logProbability, isGreedy: isGreedy))
                        }
                        missing[query] -= 1
                        if missing[query] == 0 { complete.append(query) }
                    }
                }
            }
        }
        return complete
    }
}

/// The normalization of a row of logits, and its largest one.
private struct RowProbabilities {
    let logSum: Double
    let best: Int

    init(_ logits: UnsafeBufferPointer<Float>) {
        var (best, largest) = (0, -Float.infinity)
        for (index, value) in logits.enumerated() where value > largest { (best, largest) = (index, value) }
        var sum = 0.0
        for value in logits { sum += Double(exp(value - largest)) }
        logSum = Double(largest) + log(sum)
        self.best = best
    }
}
