import MonetCompute

/// Keys and values of the tokens seen so far, for every layer.
public final class KVCache {
    /// Sequences side by side.
    public let sequences: Int
    /// Tokens that fit into each.
    public private(set) var capacity: Int
    /// Tokens held by each sequence.
    public var count: Int { tokens.first?.count ?? 0 }
    /// The tokens whose keys and values are held.
    public private(set) var tokens: [[Int32]]
    /// Whether keys were rotated for a length beyond the model's own, by dynamic scaling.
    private(set) var isStretched = false
    /// Tokens that each sequence may reach.
    public let limit: Int
    private let keyWidth: Int
    private var keys: [Tensor]
    private var values: [Tensor]

    /// An empty cache that grows up to `limit` tokens, the model's context by default.
    public init(configuration: MonetConfiguration, sequences: Int = 1, limit: Int? = nil) {
        self.sequences = sequences
        self.limit = limit ?? configuration.contextLength
        keyWidth = configuration.keyValueHeads * configuration.headWidth
        tokens = Array(repeating: [], count: sequences)
        capacity = 0
        keys = Array(
            repeating: Tensor(uninitialized: [sequences, 0, keyWidth]), count: configuration.layerCount)
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
        AttentionCache(keys: keys[index], values: values[index])
    }

    func append(_ sequences: [[Int32]], isStretched: Bool) {
        for (index, sequence) in sequences.enumerated() { tokens[index] += sequence }
        self.isStretched = isStretched
    }

    /// Forgets all but the first `length` tokens.
    public func truncate(to length: Int) {
        for index in tokens.indices { tokens[index] = Array(tokens[index].prefix(max(0, length))) }
    }
}
