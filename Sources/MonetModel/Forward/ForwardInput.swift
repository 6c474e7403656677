import MonetCompute
import Synchronization

/// The input of a forward pass: sequences, and what to observe and to change in the pass.
///
///     var input = ForwardInput([[1, 5, 17]])
///     input.hooks.observed = [HookPoint(.residPost, layer: 3)]
///     let output = try model.forward(input)
public struct ForwardInput {
    /// One or more sequences of any length.
    public var sequences: [ForwardSequence]
    /// Which statistics normalize routers.
    public var statistics = RouterStatisticsSource.running
    /// Measures the routers' auxiliary losses, and adds their gradients in a pass with gradients.
    public var objective: RouterObjectiveSettings?
    /// What to observe and to replace.
    public var hooks = Hooks()
    /// Whether a pass with gradients keeps only what enters each group of layers and computes the rest again on the way
    /// back: less memory for a third more work.
    public var recomputesActivations = false
    /// Whether the output contains units that are not needed for the pass itself, such as neurons.
    public var keepsUnits = false

    /// A batch of sequences.
    public init(_ sequences: [ForwardSequence]) { self.sequences = sequences }

    /// Token ids, each list a sequence, all with the same strengths.
    public init(_ tokens: [[Int32]], mask: UnitMask? = nil) {
        sequences = tokens.map { ForwardSequence($0, mask: mask) }
    }
}

/// One sequence of a batch.
public struct ForwardSequence {
    /// Its new tokens, in order.
    public var segments: [ForwardSegment]
    /// The cache of its earlier tokens; the output has the cache with the new ones.
    public var cache: KVCache?
    /// Strengths of units for this sequence alone, in addition to the model's own.
    public var mask: UnitMask?
    /// Units to force and directions to add for this sequence alone.
    public var steering: Steering?
    /// The experts through which alone this sequence's gradients reach the feed-forward layers; nil for all.
    public var reserved: ReservedExperts.Block?

    /// A sequence of segments.
    public init(segments: [ForwardSegment], cache: KVCache? = nil, mask: UnitMask? = nil) {
        self.segments = segments
        self.cache = cache
        self.mask = mask
    }

    /// A sequence of token ids.
    public init(_ tokens: [Int32], cache: KVCache? = nil, mask: UnitMask? = nil) {
        self.init(segments: [.tokens(tokens)], cache: cache, mask: mask)
    }

    /// The number of new tokens.
    public var count: Int { segments.reduce(0) { $0 + $1.count } }

    /// The ids of new tokens; −1 for embeddings.
    public var ids: [Int32] {
        segments.flatMap { segment -> [Int32] in
            switch segment {
            case .tokens(let ids): ids
            case .embeddings(let rows): Array(repeating: -1, count: rows.value.rowCount)
            }
        }
    }
}

/// A part of a sequence: tokens, or embeddings in their place.
public enum ForwardSegment {
    case tokens([Int32])
    /// `[n, d]`; gradients flow into it.
    case embeddings(Variable)

    /// The number of tokens in the segment.
    public var count: Int {
        switch self {
        case .tokens(let ids): ids.count
        case .embeddings(let rows): rows.value.rowCount
        }
    }
}

/// Which statistics normalize a router's logits.
public enum RouterStatisticsSource: Sendable {
    /// The running ones, as in inference.
    case running
    /// Those of the batch, as in training, which are part of the output.
    case batch
}

/// Which auxiliary losses of routers are measured, and their weights in the objective.
public struct RouterObjectiveSettings: Sendable {
    /// Which probabilities the uniformity loss averages.
    public var uniformity: UniformitySource
    /// Weights of the two auxiliary losses in the total, already divided by accumulation steps.
    public var uniformityWeight: Float
    public var ambiguityWeight: Float
    /// The uniformity loss of a batch that the pass is a part of; nil if it is the whole batch.
    public var batch: UniformityBatch?

    /// Collects the settings; weights of 0 only measure.
    public init(
        uniformity: UniformitySource = .selected, uniformityWeight: Float = 0, ambiguityWeight: Float = 0
    ) {
        self.uniformity = uniformity
        self.uniformityWeight = uniformityWeight
        self.ambiguityWeight = ambiguityWeight
    }
}

/// Mean routing probabilities of a batch that several passes make up.
///
/// The uniformity loss is the logarithm of a mean over the batch, so that the gradient of each pass depends on all of
/// them: the means are set after the forward passes and before the first backward pass.
public final class UniformityBatch: Sendable {
    private let stored = Mutex<[Int: [Tensor]]>([:])

    /// By the layer that owns the router: left and right, `[heads, experts]` each.
    public var means: [Int: [Tensor]] {
        get { stored.withLock { $0 } }
        set { stored.withLock { $0 = newValue } }
    }

    /// Without means, every pass uses its own.
    public init() {}
}
