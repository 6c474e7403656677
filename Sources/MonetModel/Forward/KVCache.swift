import MonetCompute
import Synchronization

/// Keys and values of one sequence's tokens so far, for every layer.
///
/// A cache is a value: a forward pass takes one and returns another with the new tokens, and the first one
/// can still be continued differently. Both share memory for common tokens; the second continuation copies.
public struct KVCache: Sendable {
    /// The tokens whose keys and values are stored; −1 for embeddings.
    public private(set) var tokens: [Int32] = []
    /// Whether keys were rotated for a length beyond the model's own, by dynamic scaling.
    private(set) var isStretched = false
    /// Maximum length of the sequence in tokens.
    public let limit: Int
    /// How keys and values are stored: float32, bfloat16 or rows of int8.
    public let dtype: DType
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
    /// Bytes that keys and values take at the current capacity.
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
                copying: count, of: buffer, claimed: needed, on: backend)
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
    let capacity: Int
    private let keys: [Tensor]
    private let values: [Tensor]
    private let filled: Mutex<Int>

    init(
        _ configuration: MonetConfiguration, dtype: DType, capacity: Int, copying count: Int,
        of other: KVBuffer?, claimed: Int, on backend: any Backend
    ) throws {
        let (heads, width) = (configuration.keyValueHeads, configuration.headWidth)
        self.capacity = capacity
        filled = Mutex(claimed)
        func tensors(_ sources: [Tensor]?) throws -> [Tensor] {
            try (0..<configuration.layerCount).map { layer in
                let new = try backend.empty([heads * capacity, width], dtype: dtype)
                guard count > 0, let sources, let other else { return new }
                for head in 0..<heads {
                    let (from, to) = (head * other.capacity, head * capacity)
                    try backend.copy(
                        sources[layer].slice(from..<(from + count)), into: new.slice(to..<(to + count)))
                }
                return new
            }
        }
        keys = try tensors(other?.keys)
        values = try tensors(other?.values)
    }

    var byteCount: Int { (keys + values).reduce(0) { $0 + $1.byteCount } }

    /// Takes the rows of new tokens, unless another continuation has them or there is no room.
    func claim(from count: Int, to end: Int) -> Bool {
        filled.withLock { filled in
            guard filled == count, end <= capacity else { return false }
            filled = end
            return true
        }
    }

    /// Releases rows that nothing reads.
    func release(from count: Int) { filled.withLock { $0 = min($0, count) } }

    func layer(_ index: Int) -> AttentionCache { AttentionCache(keys: keys[index], values: values[index]) }
}
