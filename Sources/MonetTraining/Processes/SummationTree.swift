/// The order in which the gradients of a step's micro-batches are added, whatever process computes which.
///
/// The left part of every sum is the largest power of two that is smaller than the whole: ((0 + 1) + (2 + 3)) + (4 + 5).
/// A process that computes a power of two of micro-batches in a row therefore computes a subtree, and the sums of
/// processes are added in the same order as single micro-batches.
package enum SummationTree {
    /// Adds `count` items in the tree's order: `add(i, j)` adds item j to item i. The sum is then item 0.
    package static func reduce(_ count: Int, add: (Int, Int) throws -> Void) rethrows {
        func sum(_ range: Range<Int>) throws {
            guard range.count > 1 else { return }
            let middle = range.lowerBound + leftPart(of: range.count)
            try sum(range.lowerBound..<middle)
            try sum(middle..<range.upperBound)
            try add(range.lowerBound, middle)
        }
        try sum(0..<count)
    }

    /// The largest power of two below `count`, which is 2 or more.
    private static func leftPart(of count: Int) -> Int {
        1 << (Int.bitWidth - 1 - (count - 1).leadingZeroBitCount)
    }

    /// Whether each of `processes` can compute a subtree of `microBatches`.
    package static func divides(_ microBatches: Int, among processes: Int) -> Bool {
        guard processes > 1 else { return true }
        let each = microBatches / processes
        return microBatches % processes == 0 && each & (each - 1) == 0 && each > 0
    }
}

/// Sums that arrive one after another, added in the order of `SummationTree` while only about log₂ of them are kept.
package struct RunningTreeSum<Item> {
    private var parts: [(size: Int, item: Item)] = []
    private let add: (Item, Item) throws -> Void

    /// - `add`: adds its second argument to its first.
    package init(add: @escaping (Item, Item) throws -> Void) { self.add = add }

    /// Adds the next item.
    package mutating func append(_ item: Item) throws {
        parts.append((1, item))
        while parts.count > 1, parts[parts.count - 2].size == parts[parts.count - 1].size {
            try mergeLast()
        }
    }

    /// The sums so far. A last item is added to them from the last one to the first.
    package var sums: [Item] { parts.map(\.item) }

    private mutating func mergeLast() throws {
        let last = parts.removeLast()
        try add(parts[parts.count - 1].item, last.item)
        parts[parts.count - 1].size += last.size
    }
}
