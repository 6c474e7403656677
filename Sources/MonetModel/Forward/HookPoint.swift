import MonetCompute

/// A place in the forward pass whose value can be observed or replaced, under the name that TransformerLens
/// gives it: `blocks.3.hook_resid_post`, `blocks.0.attn.hook_z`, `blocks.4.moe.hook_g1`.
public struct HookPoint: Hashable, Sendable, CustomStringConvertible {
    /// The kinds of places; rows are tokens, one sequence after another.
    public enum Kind: String, Sendable, CaseIterable {
        /// The residual stream before a layer, `[tokens, d]`; of layer 0 the embeddings.
        case residPre = "hook_resid_pre"
        /// The residual stream between attention and feed-forward, `[tokens, d]`.
        case residMid = "hook_resid_mid"
        /// The residual stream after a layer, `[tokens, d]`.
        case residPost = "hook_resid_post"
        /// What attention adds to the residual stream, `[tokens, d]`.
        case attnOut = "hook_attn_out"
        /// What experts or a dense feed-forward add to the residual stream, `[tokens, d]`.
        case mlpOut = "hook_mlp_out"
        /// The normalized residual stream that router and feed-forward read, `[tokens, d]`.
        case mlpIn = "mlp.hook_in"
        /// Queries, keys and values before rotation, `[tokens, heads, head width]`.
        case q = "attn.hook_q"
        case k = "attn.hook_k"
        case v = "attn.hook_v"
        /// Each head's mixture of values, `[tokens, heads, head width]`.
        case z = "attn.hook_z"
        /// Attention probabilities, `[tokens, heads, keys]`: of a token's own sequence from its first token
        /// on, 0 for later ones.
        case pattern = "attn.hook_pattern"
        /// Routing probabilities ĝ1 and ĝ2, `[tokens, heads, experts]`, in the layers that own a router.
        case g1 = "moe.hook_g1"
        case g2 = "moe.hook_g2"
        /// Hidden units of a dense feed-forward, `[tokens, units]`.
        case mlpPost = "mlp.hook_post"
    }

    /// What kind of value.
    public let kind: Kind
    /// The layer.
    public let layer: Int

    /// A place in a layer.
    public init(_ kind: Kind, layer: Int) {
        self.kind = kind
        self.layer = layer
    }

    /// The place of a name; nil if there is none.
    public init?(_ name: String) {
        let parts = name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == "blocks", let layer = Int(parts[1]), layer >= 0,
            let kind = Kind(rawValue: String(parts[2]))
        else { return nil }
        self.init(kind, layer: layer)
    }

    public var description: String { "blocks.\(layer).\(kind.rawValue)" }
}

/// What a forward pass observes and replaces.
public struct Hooks {
    /// Replaces a value: gets it with the tape that it was computed on and returns one of the same shape. What
    /// the tape's operations make of it keeps its gradients.
    public typealias Write = (_ value: Variable, _ tape: GradientTape) throws -> Variable

    /// Places whose values the output holds; those of a pass with gradients keep theirs.
    public var observed: Set<HookPoint> = []
    /// Replacements, in order.
    public private(set) var writes: [HookPoint: [Write]] = [:]

    /// Nothing.
    public init() {}

    /// Observes some places.
    public init(observing points: some Sequence<HookPoint>) { observed = Set(points) }

    /// Adds a replacement; an observed value is the replaced one.
    public mutating func write(_ point: HookPoint, _ write: @escaping Write) {
        writes[point, default: []].append(write)
    }

    /// Whether anything is observed or replaced.
    public var isEmpty: Bool { observed.isEmpty && writes.isEmpty }

    /// All places.
    var points: Set<HookPoint> { observed.union(writes.keys) }
}
