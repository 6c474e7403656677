import MonetCompute

/// Keys and values of the tokens seen so far, for every layer.
public final class KVCache {
    /// Sequences side by side.
    public let sequences: Int
    /// Tokens that fit into each.
    public private(set) var capacity: Int
    /// Tokens held by each sequence.
    public private(set) var count = 0
    private let limit: Int
    private let keyWidth: Int
    private let holdsUnrotatedKeys: Bool
    private var keys: [Tensor]
    private var values: [Tensor]

    /// An empty cache that grows up to `limit` tokens, the model's context by default.
    public init(configuration: MonetConfiguration, sequences: Int = 1, limit: Int? = nil) {
        self.sequences = sequences
        self.limit = limit ?? configuration.contextLength
        keyWidth = configuration.keyValueHeads * configuration.headWidth
        holdsUnrotatedKeys = RotaryEmbedding(configuration).changesWithLength
        capacity = 0
        keys = Array(repeating: Tensor(uninitialized: [sequences, 0, keyWidth]), count: configuration.layerCount)
        values = keys
    }

    /// Makes room for `tokens` more.
    ///
    /// - Throws: `ModelError.contextExceeded`.
    func reserve(_ tokens: Int) throws {
        let needed = count + tokens
        guard needed <= limit else { throw ModelError.contextExceeded(tokens: needed, context: limit) }
        if needed <= capacity { return }
        let newCapacity = min(limit, max(needed, capacity * 2, 256))
        for layer in keys.indices {
            keys[layer] = grown(keys[layer], to: newCapacity)
            values[layer] = grown(values[layer], to: newCapacity)
        }
        capacity = newCapacity
    }

    private func grown(_ old: Tensor, to newCapacity: Int) -> Tensor {
        let new = Tensor(uninitialized: [sequences, newCapacity, keyWidth])
        for sequence in 0..<sequences where count > 0 {
            let bytes = count * keyWidth * 4
            let source = old.address + sequence * capacity * keyWidth * 4
            (new.address + sequence * newCapacity * keyWidth * 4).copyMemory(from: source, byteCount: bytes)
        }
        return new
    }

    func layer(_ index: Int) -> AttentionCache {
        AttentionCache(keys: keys[index], values: values[index], holdsUnrotatedKeys: holdsUnrotatedKeys)
    }

    func advance(by tokens: Int) { count += tokens }

    /// Forgets all but the first `tokens` tokens.
    public func truncate(to tokens: Int) { count = min(count, max(0, tokens)) }
}
