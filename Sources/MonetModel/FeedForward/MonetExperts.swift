import MonetCompute
import MonetFoundation

/// The sizes of Monet's experts and routers.
public struct ExpertSettings: Sendable, Equatable {
    /// Hidden units per expert, m.
    public var width = 16
    /// Routing heads, H.
    public var heads = 8
    /// Experts per side, E; a layer has E².
    public var perSide = 512
    /// The number of experts a head selects on average, k.
    public var topK = 8
    /// Layers that share a router, G.
    public var layersPerRouter = 4

    /// The sizes of the 1.4B model, as a starting point.
    public init() {}

    /// Collects the sizes.
    public init(width: Int, heads: Int, perSide: Int, topK: Int, layersPerRouter: Int) {
        self.width = width
        self.heads = heads
        self.perSide = perSide
        self.topK = topK
        self.layersPerRouter = layersPerRouter
    }
}

/// The names of an expert layer's tensors in the order of its plan, without `moe.` and `.weight`.
public struct ExpertTensorNames: Sendable {
    /// Up-projections, each of which has a bias.
    public let up: [String]
    /// For every projection, its matrices, its output bias, and the packed form of the matrices.
    public let down: [(matrices: [String], bias: String, packed: String)]
}

/// A family whose units are pairs (i, j) of expert halves under a product router: the common part of the
/// horizontal and the vertical decomposition, which each state their plan and the names of their tensors.
public protocol MonetExperts: FeedForwardFamily {
    /// The equations.
    static var plan: ExpertPlan { get }
    /// The tensors.
    static var names: ExpertTensorNames { get }
    /// The sizes.
    var settings: ExpertSettings { get set }
    /// A family with these sizes.
    init(_ settings: ExpertSettings)
}

extension MonetExperts {
    public static var identity: ModelIdentity {
        ModelIdentity(
            modelType: "monet", architecture: "MonetForCausalLM", activation: "relu2",
            code: CheckpointCode(
                module: "modeling_monet", configuration: "MonetConfig",
                source: PackageResources.modeling_monet_py))
    }

    public static func describes(_ keys: ConfigurationKeys) throws -> Bool {
        try keys.optionalString("model_type").map { $0.hasPrefix(identity.modelType) } ?? false
            && keys.optionalString("moe_decompose") == name
    }

    public init(_ keys: ConfigurationKeys) throws {
        try keys.requireActivation(Self.identity.activation)
        self.init(
            ExpertSettings(
                width: try keys.size("moe_dim"), heads: try keys.size("moe_heads"),
                perSide: try keys.size("moe_experts"), topK: try keys.size("moe_topk"),
                layersPerRouter: try keys.size("moe_groups")))
    }

    public init(replacing other: any FeedForwardFamily, in configuration: MonetConfiguration) throws {
        guard let experts = other as? any MonetExperts else {
            throw ModelError.invalidInput(
                reason: "a model of the family \(type(of: other).name) has no expert sizes to take over")
        }
        self.init(experts.settings)
    }

    public var members: [(String, JSONValue)] {
        [
            ("intermediate_size", .null), ("mlp_bias", .null), ("moe_decompose", .string(Self.name)),
            ("moe_dim", .integer(settings.width)), ("moe_experts", .integer(settings.perSide)),
            ("moe_groups", .integer(settings.layersPerRouter)), ("moe_heads", .integer(settings.heads)),
            ("moe_topk", .integer(settings.topK)),
        ]
    }

    public func validate(
        hiddenSize: Int, _ require: (Bool, _ key: String, _ found: Int, _ expected: String) throws -> Void
    ) throws {
        let (sides, parts) = (Self.plan.hidden.count, Self.plan.projections.count)
        try require(
            settings.topK <= settings.perSide, "moe_topk", settings.topK,
            "at most moe_experts \(settings.perSide)")
        try require(
            settings.width % sides == 0, "moe_dim", settings.width,
            "an even number for \(Self.name) experts")
        try require(
            hiddenSize % parts == 0, "hidden_size", hiddenSize, "an even number for \(Self.name) experts")
    }

    // MARK: Tensors

    /// Hidden units per expert, on each side that has any.
    private var unitsPerSide: Int { settings.width / Self.plan.hidden.count }

    public func tensors(layer: Int, hiddenSize d: Int) -> [TensorShape] {
        let (heads, experts, hidden) = (settings.heads, settings.perSide, settings.perSide * unitsPerSide)
        var result: [TensorShape] = []
        func add(_ name: String, _ shape: [Int], _ role: TensorShape.Role) {
            result.append(TensorShape(name: name, shape: shape, role: role))
        }
        if hasRouter(layer) {
            for side in 1...2 {
                add("router.w\(side).weight", [heads * experts, d], .router)
                add("router.norm\(side).running_mean", [heads], .runningMean)
                add("router.norm\(side).running_var", [heads], .runningVariance)
                add("router.norm\(side).num_batches_tracked", [], .batchCount)
            }
        }
        let part = d / Self.plan.projections.count
        for name in Self.names.up {
            add("moe.\(name).weight", [hidden, d], .expert)
            add("moe.\(name).bias", [hidden], .expertBias)
        }
        for down in Self.names.down {
            for name in down.matrices { add("moe.\(name).weight", [part, hidden], .expert) }
        }
        for down in Self.names.down { add("moe.\(down.bias)", [experts, part], .expertBias) }
        return result
    }

    public var packedTensors: [PackedTensor] {
        Self.names.down.map { down in
            PackedTensor(
                name: "moe.\(down.packed).weight", sources: down.matrices.map { "moe.\($0).weight" },
                experts: settings.perSide)
        }
    }

    public func layer(_ parameters: LayerParameters) throws -> any FeedForwardLayer {
        ExpertLayer(
            weights: try weights(parameters),
            router: hasRouter(parameters.layer) ? try Router(settings, parameters) : nil)
    }

    /// The weights of a layer in the order of the plan, in the layout in which the model stores them.
    func weights(_ parameters: LayerParameters) throws -> ExpertWeights<Parameter> {
        ExpertWeights(
            Self.plan,
            up: try Self.names.up.map {
                .init(weight: try parameters("moe.\($0).weight"), bias: try parameters("moe.\($0).bias"))
            },
            down: try Self.names.down.map { down in
                let packed = parameters.optional("moe.\(down.packed).weight")
                return .init(
                    try packed.map { .rows($0) }
                        ?? .columns(try down.matrices.map { try parameters("moe.\($0).weight") }),
                    bias: try parameters("moe.\(down.bias)"))
            })
    }

    public func hasRouter(_ layer: Int) -> Bool { layer % settings.layersPerRouter == 0 }

    public func hooks(_ layer: Int) -> [HookPoint.Kind] { hasRouter(layer) ? [.g1, .g2] : [] }

    // MARK: Units

    public func units(layerCount: Int) -> UnitLayout {
        UnitLayout(
            kind: .experts,
            layersOfGroup: stride(from: 0, to: layerCount, by: settings.layersPerRouter).map {
                $0...(min(layerCount, $0 + settings.layersPerRouter) - 1)
            },
            unitsPerGroup: settings.perSide * settings.perSide, perSide: settings.perSide,
            heads: settings.heads)
    }

    /// Assumes that heads select independently.
    public func activeShare(selectedPerHead: Double) -> Double {
        1 - pow(1 - min(1, selectedPerHead / Double(settings.perSide)), settings.heads)
    }

    public func linearized(
        at point: FeedForwardPoint, _ parameters: LayerParameters, on backend: any Backend
    ) throws -> any LinearizedFeedForward {
        try LinearizedExperts(point, weights(parameters).map(\.tensor), on: backend)
    }

    public var fingerprintNumbers: [Int] {
        [
            settings.perSide, settings.heads, settings.topK, settings.layersPerRouter, settings.width,
            Self.plan.hidden.count - 1,
        ]
    }

    public var summary: [(String, String)] {
        let e = settings.perSide
        return [
            ("", "Monet, \(Self.name) decomposition"),
            ("experts in a layer", "\((e * e).grouped) (\(e) × \(e))"),
            ("hidden units of an expert", "\(settings.width)"), ("routing heads", "\(settings.heads)"),
            ("selected per head and side", "about \(settings.topK)"),
        ]
    }
}

extension HookPoint.Kind {
    /// Routing probabilities ĝ1, `[tokens, heads, experts]`, in the layers that own a router.
    public static let g1 = HookPoint.Kind(rawValue: "moe.hook_g1")
    /// Routing probabilities ĝ2, `[tokens, heads, experts]`, in the layers that own a router.
    public static let g2 = HookPoint.Kind(rawValue: "moe.hook_g2")
}

private func pow(_ base: Double, _ exponent: Int) -> Double {
    (0..<exponent).reduce(1) { product, _ in product * base }
}
