import MonetCompute
import Synchronization

/// Keys and values of one sequence's tokens so far, for every layer.
///
/// A cache is a value: a forward pass takes one and returns another with the new tokens, and the first one
/// can still be continued differently. Both share memory for common tokens; the second continuation copies, unless
/// beginnings are shared.
public struct KVCache: Sendable {
    /// The tokens whose keys and values are stored; −1 for embeddings.
    public private(set) var tokens: [Int32] = []
    /// Whether keys were rotated for a length beyond the model's own, by dynamic scaling.
    private(set) var isStretched = false
    /// Maximum length of the sequence in tokens.
    public let limit: Int
    /// How keys and values are stored: float32, bfloat16 or rows of int8.
    public let dtype: DType
    /// Whether continuations of one cache share the memory of what they begin with, where the device can; otherwise
    /// all but the first copy it. Sharing suits many short continuations of a long text.
    public var sharesBeginning = false
    private var buffer: KVBuffer?

    /// An empty cache that grows up to `limit` tokens, the model's context by default.
    public init(configuration: MonetConfiguration, limit: Int? = nil, dtype: DType = .float32) {
        self.limit = limit ?? configuration.contextLength
        self.dtype = dtype
    }

    /// The number of tokens stored.
    public var count: Int { tokens.count }
    /// The number of tokens for which memory is allocated.
    public var capacity: Int { buffer?.capacity ?? 0 }
    /// Bytes that keys and values take at the current capacity, without what other caches share with this one.
    public var byteCount: Int { buffer?.byteCount ?? 0 }

    /// Removes all but the first `length` tokens.
    public mutating func truncate(to length: Int) {
        tokens = Array(tokens.prefix(max(0, length)))
        // Nothing else reads the rows that follow, so they can be overwritten in place.
        if isKnownUniquelyReferenced(&buffer) { buffer?.release(from: tokens.count) }
    }

    /// The first `length` tokens, whose keys and values do not depend on what follows them.
    public func prefix(_ length: Int) -> KVCache {
        var result = self
        result.tokens = Array(tokens.prefix(max(0, length)))
        return result
    }

    /// The cache with these tokens appended; their keys and values are yet to be written.
    ///
    /// - Throws: `ModelError.contextExceeded`.
    func appending(
        _ new: [Int32], isStretched: Bool, _ configuration: MonetConfiguration, on backend: any Backend
    ) throws -> KVCache {
        let needed = count + new.count
        guard needed <= limit else { throw ModelError.contextExceeded(tokens: needed, context: limit) }
        var result = self
        if !(buffer?.claim(from: count, to: needed) ?? false) {
            let room = needed <= capacity ? capacity : min(limit, max(needed, capacity * 2, 256))
            result.buffer = try KVBuffer(
                configuration, dtype: dtype, capacity: room,
                copying: count, of: buffer, sharing: sharesBeginning && backend.sharesBeginnings,
                claimed: needed, on: backend)
        }
        result.tokens += new
        result.isStretched = isStretched
        return result
    }

    func layer(_ index: Int) -> AttentionCache? { buffer?.layer(index) }
}

/// The memory of caches that share their first tokens. The number of rows in use determines which cache may
/// write the next ones.
private final class KVBuffer: Sendable {
    /// Tokens for which there is room, those of the beginning included.
    let capacity: Int
    private let keys: [Tensor]
    private let values: [Tensor]
    /// The memory of the first tokens, if it is another buffer's.
    private let beginning: (buffer: KVBuffer, count: Int)?
    private let filled: Mutex<Int>

    init(
        _ configuration: MonetConfiguration, dtype: DType, capacity: Int, copying count: Int,
        of other: KVBuffer?, sharing: Bool, claimed: Int, on backend: any Backend
    ) throws {
        let (heads, width) = (configuration.keyValueHeads, configuration.headWidth)
        self.capacity = capacity
        filled = Mutex(claimed)
        if sharing, let other, count >= Self.shortestShared {
            beginning =
                other.beginning.map { ($0.buffer, min($0.count, count)) } ?? (other, count)
        } else {
            beginning = nil
        }
        let shared = beginning?.count ?? 0
        let room = capacity - shared
        func tensors(_ path: KeyPath<KVBuffer, [Tensor]>) throws -> [Tensor] {
            try (0..<configuration.layerCount).map { layer in
                let new = try backend.empty([heads * room, width], dtype: dtype)
                guard count > shared, let other else { return new }
                for head in 0..<heads {
                    // A buffer that has a beginning itself holds what follows it.
                    var (first, target) = (shared, head * room)
                    for (source, rows) in other.parts(of: shared..<count) {
                        let from = head * source.ownCapacity + first - source.sharedCount
                        try backend.copy(
                            source[keyPath: path][layer].slice(from..<(from + rows)),
                            into: new.slice(target..<(target + rows)))
                        first += rows
                        target += rows
                    }
                }
                return new
            }
        }
        keys = try tensors(\.keys)
        values = try tensors(\.values)
    }

    /// Tokens that a beginning must have to be worth two reads in place of one.
    private static let shortestShared = 32

    private var sharedCount: Int { beginning?.count ?? 0 }
    private var ownCapacity: Int { capacity - sharedCount }

    /// The buffers that hold some tokens, with how many of these each holds.
    private func parts(of tokens: Range<Int>) -> [(KVBuffer, Int)] {
        guard let beginning, tokens.lowerBound < beginning.count else { return [(self, tokens.count)] }
        let end = min(tokens.upperBound, beginning.count)
        let first = (beginning.buffer, end - tokens.lowerBound)
        return end < tokens.upperBound ? [first, (self, tokens.upperBound - end)] : [first]
    }

    var byteCount: Int { (keys + values).reduce(0) { $0 + $1.byteCount } }

    /// Takes the rows of new tokens, unless another continuation has them or there is no room.
    func claim(from count: Int, to end: Int) -> Bool {
        filled.withLock { filled in
            guard filled == count, count >= sharedCount, end <= capacity else { return false }
            filled = end
            return true
        }
    }

    /// Releases rows that nothing reads.
    func release(from count: Int) { filled.withLock { $0 = min($0, count) } }

    func layer(_ index: Int) -> AttentionCache {
        AttentionCache(
            keys: keys[index], values: values[index],
            beginning: beginning.map {
                .init(keys: $0.buffer.keys[index], values: $0.buffer.values[index], count: $0.count)
            })
    }
}
