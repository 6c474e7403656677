import MonetCompute

/// A point in the forward pass whose value can be observed or replaced, with TransformerLens's name:
/// `blocks.3.hook_resid_post`, `blocks.0.attn.hook_z`, `blocks.4.moe.hook_g1`.
public struct HookPoint: Hashable, Sendable, CustomStringConvertible {
    /// The kinds of hook points; rows are tokens, one sequence after another.
    public enum Kind: String, Sendable, CaseIterable {
        /// The residual stream before a layer, `[tokens, d]`; before layer 0, the embeddings.
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
        /// Each head's weighted sum of values, `[tokens, heads, head width]`.
        case z = "attn.hook_z"
        /// Attention probabilities, `[tokens, heads, keys]`: keys are the tokens of the same sequence from
        /// its first on, with 0 for later ones.
        case pattern = "attn.hook_pattern"
        /// Routing probabilities ĝ1 and ĝ2, `[tokens, heads, experts]`, in the layers that own a router.
        case g1 = "moe.hook_g1"
        case g2 = "moe.hook_g2"
        /// Hidden units of a dense feed-forward, `[tokens, units]`.
        case mlpPost = "mlp.hook_post"

        /// Places that only some feed-forward families have, in some layers.
        public static let ofFamilies: Set<Kind> = [.g1, .g2, .mlpPost]
    }

    /// The kind of value.
    public let kind: Kind
    /// The layer.
    public let layer: Int

    /// A hook point in a layer.
    public init(_ kind: Kind, layer: Int) {
        self.kind = kind
        self.layer = layer
    }

    /// The hook point with a name; nil if there is none.
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
    /// Replaces a value: receives it with the tape on which it was computed, and returns one of the same
    /// shape. Values computed with the tape's operations keep their gradients.
    public typealias Write = (_ value: Variable, _ tape: GradientTape) throws -> Variable

    /// Hook points whose values are part of the output, with their gradients in a pass with gradients.
    public var observed: Set<HookPoint> = []
    /// Replacements, in order.
    public private(set) var writes: [HookPoint: [Write]] = [:]

    /// Observes and replaces nothing.
    public init() {}

    /// Observes some hook points.
    public init(observing points: some Sequence<HookPoint>) { observed = Set(points) }

    /// Adds a replacement; observations see the value after replacements.
    public mutating func write(_ point: HookPoint, _ write: @escaping Write) {
        writes[point, default: []].append(write)
    }

    /// Whether anything is observed or replaced.
    public var isEmpty: Bool { observed.isEmpty && writes.isEmpty }

    /// All hook points in use.
    var points: Set<HookPoint> { observed.union(writes.keys) }
}
