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
        let new = Tensor(uninitialized: [keyValueHeads * newCapacity, old.columnCount], dtype: dtype)
        copyRows(count, from: old, to: new)
        return new
    }

    /// The first `count` rows of every head.
    private func copyRows(_ count: Int, from source: Tensor, to target: Tensor) {
        guard count > 0 else { return }
        let (from, to) = (source.shape[0] / keyValueHeads, target.shape[0] / keyValueHeads)
        for head in 0..<keyValueHeads {
            let rows = source.slice((head * from)..<(head * from + count))
            target.slice((head * to)..<(head * to + count)).address.copyMemory(
                from: rows.address, byteCount: rows.byteCount)
        }
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
        for layer in keys.indices {
            copyRows(count, from: other.keys[layer], to: keys[layer])
            copyRows(count, from: other.values[layer], to: values[layer])
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
