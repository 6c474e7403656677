import MonetCompute

/// A point in the forward pass whose value can be observed or replaced, named as in TransformerLens where it has
/// such a point: `blocks.3.hook_resid_post`, `blocks.0.attn.hook_z`. `mlp.hook_in`, `moe.hook_g1` and
/// `moe.hook_g2` have no counterpart there.
public struct HookPoint: Hashable, Sendable, CustomStringConvertible {
    /// The kinds of hook points; rows are tokens, one sequence after another. Feed-forward families add theirs.
    public struct Kind: RawRepresentable, Hashable, Sendable {
        /// The part of the name after the layer.
        public let rawValue: String

        /// A kind of a name.
        public init(rawValue: String) { self.rawValue = rawValue }

        /// The residual stream before a layer, `[tokens, d]`; before layer 0, the embeddings.
        public static let residPre = Kind(rawValue: "hook_resid_pre")
        /// The residual stream between attention and feed-forward, `[tokens, d]`.
        public static let residMid = Kind(rawValue: "hook_resid_mid")
        /// The residual stream after a layer, `[tokens, d]`.
        public static let residPost = Kind(rawValue: "hook_resid_post")
        /// What attention adds to the residual stream, `[tokens, d]`.
        public static let attnOut = Kind(rawValue: "hook_attn_out")
        /// What experts or a dense feed-forward add to the residual stream, `[tokens, d]`.
        public static let mlpOut = Kind(rawValue: "hook_mlp_out")
        /// The normalized residual stream that router and feed-forward read, `[tokens, d]`.
        public static let mlpIn = Kind(rawValue: "mlp.hook_in")
        /// Queries before rotation, `[tokens, heads, head width]`.
        public static let q = Kind(rawValue: "attn.hook_q")
        /// Keys before rotation, `[tokens, key-value heads, head width]`.
        public static let k = Kind(rawValue: "attn.hook_k")
        /// Values, `[tokens, key-value heads, head width]`.
        public static let v = Kind(rawValue: "attn.hook_v")
        /// Each head's weighted sum of values, `[tokens, heads, head width]`.
        public static let z = Kind(rawValue: "attn.hook_z")
        /// Attention probabilities, `[tokens, heads, keys]`: keys are the tokens of the same sequence from
        /// its first on, with 0 for later ones.
        public static let pattern = Kind(rawValue: "attn.hook_pattern")

        /// The kinds that every layer has, whatever its feed-forward family.
        public static let ofEveryLayer: [Kind] = [
            residPre, residMid, residPost, attnOut, mlpOut, mlpIn, q, k, v, z, pattern,
        ]
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

    /// The hook point with a name `blocks.{layer}.{kind}`; nil for another form. Whether a model has it,
    /// `MonetLanguageModel.check(_:)` tells.
    public init?(_ name: String) {
        let parts = name.split(separator: ".", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0] == "blocks", let layer = Int(parts[1]), layer >= 0,
            parts[2].contains("hook_")
        else { return nil }
        self.init(Kind(rawValue: String(parts[2])), layer: layer)
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
