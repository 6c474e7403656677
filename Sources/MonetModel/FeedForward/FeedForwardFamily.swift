import MonetCompute
import MonetFoundation

/// A kind of feed-forward block, with everything that the rest of the package must know about it: its keys in
/// `config.json`, its tensors, its layer, and its units for interpretability.
///
/// A family is a value with its own settings. One file defines it, `FeedForwardFamilies.all` lists it, and
/// nothing else names it.
public protocol FeedForwardFamily: Sendable, Equatable {
    /// The name on the command line and, for experts, in `moe_decompose`.
    static var name: String { get }
    /// The suffix of preset names, such as `vd` in `1.4B-vd`.
    static var presetEnding: String { get }
    /// How a `config.json` identifies this family.
    static var identity: ModelIdentity { get }

    /// Whether a `config.json` describes this family.
    static func describes(_ keys: ConfigurationKeys) throws -> Bool
    /// Reads the family's own keys.
    ///
    /// - Throws: `ModelError.invalidConfiguration`.
    init(_ keys: ConfigurationKeys) throws
    /// The family with about as many parameters as another one in a model of this shape.
    ///
    /// - Throws: `ModelError.invalidInput` if there is no such conversion.
    init(replacing other: any FeedForwardFamily, in configuration: MonetConfiguration) throws

    /// The family's own keys of `config.json`.
    var members: [(String, JSONValue)] { get }
    /// Checks that the settings are consistent with each other and with the model's width.
    ///
    /// - `require`: throws an error that names a key, what was found and what was expected.
    func validate(
        hiddenSize: Int, _ require: (Bool, _ key: String, _ found: Int, _ expected: String) throws -> Void
    ) throws

    /// The tensors of a layer, without the layer's prefix, in the order of files.
    func tensors(layer: Int, hiddenSize: Int) -> [TensorShape]
    /// Tensors that inference reads packed by expert, in place of their sources.
    var packedTensors: [PackedTensor] { get }
    /// The block of one layer.
    ///
    /// - Throws: `ModelError.missingTensor`.
    func layer(_ parameters: LayerParameters) throws -> any FeedForwardLayer
    /// Whether a layer owns a router.
    func hasRouter(_ layer: Int) -> Bool
    /// The places that a layer has beside those of every layer.
    func hooks(_ layer: Int) -> [HookPoint.Kind]

    /// The units for interpretability: experts or neurons.
    func units(layerCount: Int) -> UnitLayout
    /// Share of a layer's expert weights that one token needs, if a head selects this many of a side's experts.
    func activeShare(selectedPerHead: Double) -> Double
    /// The block of one layer, linearized where a pass has been.
    ///
    /// - Throws: `ModelError.invalidInput` for weights in another layout than that of checkpoints, or a pass that
    ///   did not keep units.
    func linearized(
        at point: FeedForwardPoint, _ parameters: LayerParameters, on backend: any Backend
    ) throws -> any LinearizedFeedForward
    /// The same weights with a mask made permanent in them, if that changes nothing else; nil if the mask
    /// must be stored separately.
    ///
    /// - Returns: the parameters, how many parts of them changed, and what these are, as in "3 right halves".
    func bake(_ mask: UnitMask, into parameters: [Parameter], layerCount: Int) throws -> BakedMask?
    /// The numbers that distinguish models of the family by their shape, for fingerprints.
    var fingerprintNumbers: [Int] { get }
    /// What `monet info` shows: pairs of a name and a value.
    var summary: [(String, String)] { get }
}

extension FeedForwardFamily {
    public var packedTensors: [PackedTensor] { [] }
    public func hasRouter(_ layer: Int) -> Bool { false }
    public func hooks(_ layer: Int) -> [HookPoint.Kind] { [] }
    public func activeShare(selectedPerHead: Double) -> Double { 1 }
    public func linearized(
        at point: FeedForwardPoint, _ parameters: LayerParameters, on backend: any Backend
    ) throws -> any LinearizedFeedForward {
        throw ModelError.invalidInput(reason: "\(Self.name) feed-forward blocks have no linear form")
    }
    public func bake(_ mask: UnitMask, into parameters: [Parameter], layerCount: Int) throws -> BakedMask? {
        nil
    }
    /// Whether both are the same family with the same settings.
    public func isEqual(to other: any FeedForwardFamily) -> Bool { (other as? Self) == self }
}

/// Weights in which a mask is made permanent.
public struct BakedMask: Sendable {
    /// All parameters, with the changed ones replaced.
    public let parameters: [Parameter]
    /// The number of parts that changed.
    public let parts: Int
    /// What changed, after the number: "right halves, whose V and b are zero".
    public let description: String

    /// Joins the parameters and what changed in them.
    public init(parameters: [Parameter], parts: Int, description: String) {
        self.parameters = parameters
        self.parts = parts
        self.description = description
    }
}

/// How a `config.json` identifies the kind of model.
public struct ModelIdentity: Sendable {
    /// `model_type`.
    public let modelType: String
    /// `architectures`.
    public let architecture: String
    /// `hidden_act`.
    public let activation: String
    /// The PyTorch code, for models that transformers does not include.
    public let code: CheckpointCode?

    /// Collects the names.
    public init(modelType: String, architecture: String, activation: String, code: CheckpointCode?) {
        self.modelType = modelType
        self.architecture = architecture
        self.activation = activation
        self.code = code
    }
}

/// The PyTorch code of a family, which checkpoint folders contain so that transformers can open them.
///
/// It defines a configuration and `ModelIdentity.architecture`, and the same with `Masked` before their names for
/// checkpoints with a mask in a separate file.
public struct CheckpointCode: Sendable {
    /// The module's name.
    public let module: String
    /// The configuration's class.
    public let configuration: String
    /// The module's text.
    public let source: [UInt8]

    /// Names and text of a module.
    public init(module: String, configuration: String, source: [UInt8]) {
        self.module = module
        self.configuration = configuration
        self.source = source
    }
}

/// The feed-forward families of the package.
public enum FeedForwardFamilies {
    /// All of them; the first is the default.
    public static let all: [any FeedForwardFamily.Type] = [
        VerticalExperts.self, HorizontalExperts.self, DenseFeedForward.self,
    ]

    /// The family of a name.
    public static func named(_ name: String) -> (any FeedForwardFamily.Type)? {
        all.first { $0.name == name }
    }

    /// Their names.
    public static var names: [String] { all.map { $0.name } }
}

/// A tensor that inference reads in another layout than that of published checkpoints.
public struct PackedTensor: Sendable {
    /// The name of the packed tensor, without the layer's prefix.
    public let name: String
    /// The checkpoint's matrices from which it is packed.
    public let sources: [String]
    /// The number of experts whose columns become rows.
    public let experts: Int

    /// Names the tensors.
    public init(name: String, sources: [String], experts: Int) {
        self.name = name
        self.sources = sources
        self.experts = experts
    }
}

/// The parameters of one layer by their names without the layer's prefix.
public struct LayerParameters: Sendable {
    /// The layer.
    public let layer: Int
    private let all: ParameterSet

    /// The parameters of `layer` among all.
    public init(_ all: ParameterSet, layer: Int) {
        self.layer = layer
        self.all = all
    }

    private var prefix: String { "model.layers.\(layer)." }

    /// The parameter of a name.
    ///
    /// - Throws: `ModelError.missingTensor`.
    public func callAsFunction(_ name: String) throws -> Parameter { try all(prefix + name) }

    /// The parameter of a name; nil if the model has none.
    public func optional(_ name: String) -> Parameter? { try? all(prefix + name) }
}

/// The feed-forward block of one layer.
public protocol FeedForwardLayer: Sendable {
    /// The block's output `[tokens, d]` for the normalized residual stream `h` `[tokens, d]`.
    ///
    /// - `shared`: what the preceding layer passed on to its group, such as routing; replaced by the first
    ///   layer of a group.
    /// - `pass`: the forward pass, which holds parameters, strengths and hooks.
    func callAsFunction(_ h: Variable, shared: inout (any UnitActivations)?, _ pass: ForwardPass) throws
        -> Variable
    /// The block with its weights in the layout that a device runs fastest for inference.
    func prepared(on backend: any Backend) throws -> any FeedForwardLayer
}
