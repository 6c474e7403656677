/// Cosines and sines of the rotary embedding, `[positions, head width / 2]` each.
public struct RotaryTable: Sendable {
    /// Cosines of position times frequency.
    public let cosine: Tensor
    /// Sines of position times frequency.
    public let sine: Tensor

    /// Wraps two tables of equal shape.
    public init(cosine: Tensor, sine: Tensor) {
        self.cosine = cosine
        self.sine = sine
    }
}

/// How attention's heads and sequences lie.
public struct AttentionShape: Sendable {
    /// Rotation for every absolute position in use.
    public var rotary: RotaryTable
    /// Query heads.
    public var heads: Int
    /// Key-value heads, a divisor of `heads`.
    public var keyValueHeads: Int
    /// The sequences, in the order of their tokens.
    public var segments: [AttentionSegment]

    /// Collects the extents.
    public init(rotary: RotaryTable, heads: Int, keyValueHeads: Int, segments: [AttentionSegment]) {
        self.rotary = rotary
        self.heads = heads
        self.keyValueHeads = keyValueHeads
        self.segments = segments
    }
}

/// What attention reads: the tokens of one or more sequences, one sequence after the other.
public struct AttentionInput: Sendable {
    /// Projections before rotation, `[tokens, heads × headWidth]`.
    public var query: Tensor
    /// `[tokens, keyValueHeads × headWidth]`.
    public var key: Tensor
    /// `[tokens, keyValueHeads × headWidth]`.
    public var value: Tensor
    /// Heads and sequences.
    public var shape: AttentionShape

    public var rotary: RotaryTable { shape.rotary }
    public var heads: Int { shape.heads }
    public var keyValueHeads: Int { shape.keyValueHeads }
    public var segments: [AttentionSegment] { shape.segments }

    /// Collects the inputs.
    public init(query: Tensor, key: Tensor, value: Tensor, shape: AttentionShape) {
        self.query = query
        self.key = key
        self.value = value
        self.shape = shape
    }
}

/// The tokens of one sequence in an attention call.
public struct AttentionSegment: Sendable {
    /// Tokens in this call.
    public var count: Int
    /// Position of the first of them.
    public var position: Int
    /// Earlier keys and values, and the place for the new ones.
    public var cache: AttentionCache?

    /// Collects the numbers.
    public init(count: Int, position: Int = 0, cache: AttentionCache? = nil) {
        self.count = count
        self.position = position
        self.cache = cache
    }
}

/// One layer's keys and values of one sequence, a row for every key-value head and token, a head's rows
/// together: `[keyValueHeads × capacity, headWidth]`, float32, bfloat16 or rows of int8.
public struct AttentionCache: Sendable {
    /// Rotated keys.
    public let keys: Tensor
    /// Values.
    public let values: Tensor
    /// Where the sequence's first tokens are, if other sequences begin with them too; the rows of this cache are
    /// those of the tokens that follow. Only devices that share beginnings (`Backend.sharesBeginnings`) get such
    /// caches.
    public let beginning: Beginning?

    /// The first rows of a cache that several sequences have in common.
    public struct Beginning: Sendable {
        /// Rotated keys, in the layout of a cache.
        public let keys: Tensor
        /// Values, likewise.
        public let values: Tensor
        /// Tokens.
        public let count: Int

        /// Collects the rows.
        public init(keys: Tensor, values: Tensor, count: Int) {
            self.keys = keys
            self.values = values
            self.count = count
        }
    }

    /// Wraps two tensors of equal shape and type.
    public init(keys: Tensor, values: Tensor, beginning: Beginning? = nil) {
        self.keys = keys
        self.values = values
        self.beginning = beginning
    }
}

/// What attention gives, with what its gradient needs.
public struct AttentionResult: Sendable {
    /// `[tokens, heads × headWidth]`.
    public let output: Tensor
    /// Rotated queries.
    public let query: Tensor
    /// Rotated keys.
    public let key: Tensor
    /// Logarithm of each softmax's denominator, `[tokens, heads]`.
    public let logSumExp: Tensor

    /// Collects the results.
    public init(output: Tensor, query: Tensor, key: Tensor, logSumExp: Tensor) {
        self.output = output
        self.query = query
        self.key = key
        self.logSumExp = logSumExp
    }
}
