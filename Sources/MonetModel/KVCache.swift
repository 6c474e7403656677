import MonetCompute

/// Keys and values of one sequence's tokens so far, for every layer.
public final class KVCache {
    /// Tokens that fit at present.
    public private(set) var capacity = 0
    /// Tokens held.
    public var count: Int { tokens.count }
    /// The tokens whose keys and values are held.
    public private(set) var tokens: [Int32] = []
    /// Whether keys were rotated for a length beyond the model's own, by dynamic scaling.
    private(set) var isStretched = false
    /// Tokens that the sequence may reach.
    public let limit: Int
    /// How keys and values are stored: float32, bfloat16 or rows of int8.
    public let dtype: DType
    private let keyValueHeads: Int
    private var keys: [Tensor]
    private var values: [Tensor]

    /// An empty cache that grows up to `limit` tokens, the model's context by default.
    public init(configuration: MonetConfiguration, limit: Int? = nil, dtype: DType = .float32) {
        self.limit = limit ?? configuration.contextLength
        self.dtype = dtype
        keyValueHeads = configuration.keyValueHeads
        keys = Array(
            repeating: Tensor(uninitialized: [0, configuration.headWidth], dtype: dtype),
            count: configuration.layerCount)
        values = keys
    }

    /// Bytes that keys and values take at the present capacity.
    public var byteCount: Int { (keys + values).reduce(0) { $0 + $1.byteCount } }

    /// Makes room for `tokens` more.
    ///
    /// - Throws: `ModelError.contextExceeded`.
    func reserve(_ tokens: Int) throws {
        let needed = count + tokens
        guard needed <= limit else { throw ModelError.contextExceeded(tokens: needed, context: limit) }
        if needed <= capacity { return }
        let newCapacity = min(limit, max(needed, capacity * 2, 256))
        for layer in keys.indices {
            keys[layer] = grown(keys[layer], to: newCapacity, keeping: count)
            values[layer] = grown(values[layer], to: newCapacity, keeping: count)
        }
        capacity = newCapacity
    }

    private func grown(_ old: Tensor, to newCapacity: Int, keeping count: Int) -> Tensor {
        let new = Tensor(uninitialized: [newCapacity * keyValueHeads, old.columnCount], dtype: dtype)
        let kept = count * keyValueHeads
        if kept > 0 {
            new.address.copyMemory(from: old.address, byteCount: old.slice(0..<kept).byteCount)
        }
        return new
    }

    func layer(_ index: Int) -> AttentionCache {
        AttentionCache(keys: keys[index], values: values[index])
    }

    func append(_ new: [Int32], isStretched: Bool) {
        tokens += new
        self.isStretched = isStretched
    }

    /// Forgets all but the first `length` tokens.
    public func truncate(to length: Int) { tokens = Array(tokens.prefix(max(0, length))) }

    /// Takes over the first `count` tokens of another cache of the same model and type, whose keys and
    /// values do not depend on what follows them.
    func adopt(_ count: Int, from other: KVCache) throws {
        truncate(to: 0)
        try reserve(count)
        let rows = 0..<(count * keyValueHeads)
        for layer in keys.indices {
            for (target, source) in [(keys[layer], other.keys[layer]), (values[layer], other.values[layer])] {
                let part = source.slice(rows)
                target.address.copyMemory(from: part.address, byteCount: part.byteCount)
            }
        }
        tokens = Array(other.tokens.prefix(count))
    }

    /// A cache of the same kind with the first `count` tokens of this one.
    public func copy(first count: Int, configuration: MonetConfiguration) throws -> KVCache {
        let result = KVCache(configuration: configuration, limit: limit, dtype: dtype)
        try result.adopt(min(count, self.count), from: self)
        return result
    }
}
