import Foundation
import MonetCompute
import MonetFoundation

/// The shape of a model: the keys of `config.json`.
public struct MonetConfiguration: Sendable, Equatable {
    /// How a checkpoint's weights are stored if they are quantized: rows of 8- or 4-bit numbers, with experts
    /// in the packed layout.
    public enum Quantization: Int, Sendable, CaseIterable {
        case int8 = 8
        case int4 = 4

        /// The version of the row layout in files; 4-bit rows are at their second.
        var layout: Int { self == .int8 ? 1 : 2 }
    }

    /// How rotary frequencies are scaled for long contexts.
    public enum RopeScaling: Sendable, Equatable {
        /// Positions are divided by the factor.
        case linear(factor: Double)
        /// The base grows with the length beyond `maxPositionEmbeddings`.
        case dynamic(factor: Double)
    }

    /// The kind of the feed-forward blocks.
    public var feedForward: any FeedForwardFamily = VerticalExperts()
    public var vocabularySize = 32000
    /// Width of the residual stream, d.
    public var hiddenSize = 2048
    public var layerCount = 24
    public var attentionHeads = 16
    public var keyValueHeads = 16
    /// Width of one attention head.
    public var headWidth = 128
    public var attentionBias = false
    public var maxPositionEmbeddings = 2048
    public var rmsNormEpsilon = 1e-6
    public var ropeTheta = 10000.0
    public var ropeScaling: RopeScaling?
    public var tieWordEmbeddings = false
    public var initializerRange = 0.02
    public var beginTokenID: Int? = 1
    /// Ids that end a text.
    public var endTokenIDs = [2]
    public var dtype = DType.float32
    public var quantization: Quantization?

    /// The mask file in an edited checkpoint's folder.
    public var expertMaskFile: String?
    /// What the checkpoint's `generation_config.json` says; nil if it has none.
    public var generation: GenerationDefaults?
    /// Keys of `config.json` that have no effect here, which files written from this configuration repeat.
    public var otherMembers: [JSONValue.Member] = []

    /// The 1.4B vertical model, as a starting point.
    public init() {}

    /// The sizes of Monet's experts; nil in a model of another family. Setting them has no effect there.
    public var experts: ExpertSettings? {
        get { (feedForward as? any MonetExperts)?.settings }
        set {
            guard let newValue, var family = feedForward as? any MonetExperts else { return }
            family.settings = newValue
            feedForward = family
        }
    }

    /// Layers that own a router.
    public var routerLayers: [Int] { (0..<layerCount).filter(feedForward.hasRouter) }

    /// The context length in tokens, including rotary scaling.
    public var contextLength: Int {
        switch ropeScaling {
        case nil: maxPositionEmbeddings
        case .linear(let factor), .dynamic(let factor): Int(Double(maxPositionEmbeddings) * factor)
        }
    }

    /// Ids that end a text: those of `generation_config.json`, or else of `config.json`, as in transformers.
    public var stopTokenIDs: [Int] { generation?.endTokenIDs ?? endTokenIDs }

    // MARK: Reading

    /// The suffix of `model_type` for models with a mask in a separate file.
    private static let maskedEnding = "_masked"

    /// Reads `config.json`.
    ///
    /// - Throws: `FileError` for unreadable or malformed files, `ModelError.invalidConfiguration`.
    public init(contentsOfFile path: String) throws {
        try self.init(json: JSONValue(contentsOfFile: path), file: path)
    }

    /// Reads the keys of a parsed `config.json`; `file` names it in errors.
    public init(json: JSONValue, file: String) throws {
        let keys = ConfigurationKeys(json: json, file: file)
        guard json.members != nil else { throw keys.invalid("", "\(json.kind)", "an object") }
        let modelType = try keys.string("model_type")
        guard let family = try FeedForwardFamilies.all.first(where: { try $0.describes(keys) }) else {
            let types = Set(FeedForwardFamilies.all.map { $0.identity.modelType })
            guard types.contains(where: { modelType == $0 || modelType == $0 + Self.maskedEnding }) else {
                throw keys.invalid(
                    "model_type", "\"\(modelType)\"",
                    types.sorted().map { "\"\($0)\"" }.joined(separator: " or "))
            }
            throw keys.invalid(
                "moe_decompose", keys.describe("moe_decompose"),
                FeedForwardFamilies.all.filter { modelType.hasPrefix($0.identity.modelType) }
                    .map { "\"\($0.name)\"" }.joined(separator: " or "))
        }
        feedForward = try family.init(keys)
        if modelType == family.identity.modelType + Self.maskedEnding {
            let name = try keys.string("expert_mask")
            guard !name.isEmpty, !name.contains("/") else {
                throw keys.invalid("expert_mask", "\"\(name)\"", "the name of a file in the folder")
            }
            expertMaskFile = name
        } else if modelType != family.identity.modelType {
            throw keys.invalid(
                "model_type", "\"\(modelType)\"",
                "\"\(family.identity.modelType)\" or \"\(family.identity.modelType + Self.maskedEnding)\"")
        }
        vocabularySize = try keys.size("vocab_size")
        hiddenSize = try keys.size("hidden_size")
        layerCount = try keys.size("num_hidden_layers", limit: 4096)
        attentionHeads = try keys.size("num_attention_heads")
        keyValueHeads = try keys.size("num_key_value_heads", default: attentionHeads)
        guard hiddenSize % attentionHeads == 0 || keys.has("head_dim") else {
            throw keys.invalid(
                "num_attention_heads", "\(attentionHeads)", "a divisor of hidden_size \(hiddenSize)")
        }
        headWidth = try keys.size("head_dim", default: hiddenSize / attentionHeads)
        attentionBias = try keys.bool("attention_bias", default: false)
        maxPositionEmbeddings = try keys.size("max_position_embeddings", default: 2048)
        rmsNormEpsilon = try keys.number("rms_norm_eps", default: 1e-6, in: 0...1)
        (ropeTheta, ropeScaling) = try keys.rope()
        try keys.requireLlamaDecoder()
        tieWordEmbeddings = try keys.bool("tie_word_embeddings", default: false)
        initializerRange = try keys.number("initializer_range", default: 0.02, in: 0...100)
        beginTokenID = try keys.tokenIDs("bos_token_id")?.first
        endTokenIDs = try keys.tokenIDs("eos_token_id") ?? []
        quantization = try keys.quantization()
        for key in ["torch_dtype", "dtype"] {
            guard let name = try keys.optionalString(key) else { continue }
            guard let type = DType(userName: name) else {
                throw keys.invalid(key, "\"\(name)\"", "float32, bfloat16 or float16")
            }
            dtype = type
        }
        try validate(file: file)
        let own = Set((self.json().members ?? []).map(\.key)).subtracting(Self.passive.map(\.key))
            .union(["rope_parameters", "dtype", "head_dim", "expert_mask", "quantization_config"])
            .union(["_name_or_path"])
        otherMembers = (json.members ?? []).filter { !own.contains($0.key) }
    }

    /// Keys that other readers expect and that have no effect here.
    private static let passive: [(key: String, value: JSONValue)] = [
        ("attention_dropout", 0.0), ("output_router_probs", false), ("pretraining_tp", 1),
        ("transformers_version", "4.44.2"), ("use_cache", true),
    ]

    /// Checks that the values are consistent.
    ///
    /// - Throws: `ModelError.invalidConfiguration`.
    public func validate(file: String = "configuration") throws {
        func require(_ condition: Bool, _ key: String, _ found: CustomStringConvertible, _ expected: String)
            throws
        {
            if !condition {
                throw ModelError.invalidConfiguration(
                    file: file, key: key, found: "\(found)", expected: expected)
            }
        }
        try require(
            attentionHeads % keyValueHeads == 0, "num_key_value_heads", keyValueHeads,
            "a divisor of num_attention_heads \(attentionHeads)")
        try require(headWidth % 2 == 0, "head_dim", headWidth, "an even number, as rotary embedding needs")
        try feedForward.validate(hiddenSize: hiddenSize) { condition, key, found, expected in
            try require(condition, key, found, expected)
        }
        let parameters = shapes().reduce(0.0) { $0 + $1.shape.reduce(1.0) { $0 * Double($1) } }
        try require(parameters < 1e13, "hidden_size", hiddenSize, "a model of fewer than 10^13 parameters")
        for (key, ids) in [("bos_token_id", beginTokenID.map { [$0] } ?? []), ("eos_token_id", endTokenIDs)] {
            for id in ids {
                try require(id < vocabularySize, key, id, "a token id below vocab_size \(vocabularySize)")
            }
        }
    }

    // MARK: Writing

    /// The `config.json` of a checkpoint with weights of type `dtype`, as the authors' code reads it.
    ///
    /// - `module`: the Python module in the folder that defines the model; by default the family's.
    public func json(module: String? = nil) -> JSONValue {
        let scaling: JSONValue =
            switch ropeScaling {
            case nil: .null
            case .linear(let factor): ["type": "linear", "factor": .number(factor)]
            case .dynamic(let factor): ["type": "dynamic", "factor": .number(factor)]
            }
        let identity = type(of: feedForward).identity
        let isMasked = expertMaskFile != nil
        var members: [(String, JSONValue)] = [
            ("architectures", [.string((isMasked ? "Masked" : "") + identity.architecture)]),
            ("attention_bias", .bool(attentionBias)),
            ("bos_token_id", beginTokenID.map { .integer($0) } ?? .null),
            (
                "eos_token_id",
                endTokenIDs.isEmpty
                    ? .null
                    : endTokenIDs.count == 1
                        ? .integer(endTokenIDs[0]) : .array(endTokenIDs.map { .integer($0) })
            ),
            ("hidden_act", .string(identity.activation)),
            ("hidden_size", .integer(hiddenSize)),
            ("initializer_range", .number(initializerRange)),
            ("max_position_embeddings", .integer(maxPositionEmbeddings)),
            ("model_type", .string(identity.modelType + (isMasked ? Self.maskedEnding : ""))),
            ("num_attention_heads", .integer(attentionHeads)),
            ("num_hidden_layers", .integer(layerCount)),
            ("num_key_value_heads", .integer(keyValueHeads)),
            ("rms_norm_eps", .number(rmsNormEpsilon)),
            ("rope_scaling", scaling),
            ("rope_theta", .number(ropeTheta)),
            ("tie_word_embeddings", .bool(tieWordEmbeddings)),
            ("torch_dtype", .string(dtype.torchName)),
            ("vocab_size", .integer(vocabularySize)),
        ]
        members += feedForward.members
        if let code = identity.code {
            let prefix = (module ?? code.module) + "." + (isMasked ? "Masked" : "")
            members.append(
                (
                    "auto_map",
                    [
                        "AutoConfig": .string(prefix + code.configuration),
                        "AutoModelForCausalLM": .string(prefix + identity.architecture),
                    ]
                ))
        }
        // A family's own keys are not repeated from the file.
        let known = Set(members.map(\.0))
        members += otherMembers.filter { !known.contains($0.key) }.map { ($0.key, $0.value) }
        let present = Set(members.map(\.0))
        members += Self.passive.filter { !present.contains($0.key) }
        if headWidth * attentionHeads != hiddenSize { members.append(("head_dim", .integer(headWidth))) }
        if let expertMaskFile { members.append(("expert_mask", .string(expertMaskFile))) }
        if let quantization {
            members.append(
                (
                    "quantization_config",
                    [
                        "bits": .integer(quantization.rawValue), "layout": .integer(quantization.layout),
                        "quant_method": "monet",
                    ]
                ))
        }
        return .object(members.sorted { $0.0 < $1.0 }.map { .init($0.0, $0.1) })
    }

    public static func == (a: MonetConfiguration, b: MonetConfiguration) -> Bool {
        var (x, y) = (a, b)
        (x.otherMembers, y.otherMembers) = ([], [])
        return x.feedForward.isEqual(to: y.feedForward) && x.json() == y.json()
            && a.generation == b.generation
    }
}
