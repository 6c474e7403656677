import Foundation
import MonetCompute
import MonetFoundation

/// The shape of a model: the keys of `config.json`.
public struct MonetConfiguration: Sendable, Equatable {
    /// What takes the feed-forward block's place.
    public enum FeedForward: String, Sendable, CaseIterable {
        /// Monet experts, equations 6 to 12.
        case horizontal
        /// Monet experts, equations 13 to 15.
        case vertical
        /// SwiGLU, as in Llama: the model that Monet is compared with.
        case dense
    }

    /// How a checkpoint's weights are stored if not as floating-point numbers: rows of 8- or 4-bit
    /// numbers, experts in the packed layout.
    public enum Quantization: Int, Sendable, CaseIterable {
        case int8 = 8
        case int4 = 4

        /// Which order of a row's bytes files have: the second of 4-bit rows.
        var layout: Int { self == .int8 ? 1 : 2 }
    }

    /// How rotary frequencies are stretched for long contexts.
    public enum RopeScaling: Sendable, Equatable {
        /// Positions divided by the factor.
        case linear(factor: Double)
        /// The base grows with the length beyond `maxPositionEmbeddings`.
        case dynamic(factor: Double)
    }

    public var feedForward: FeedForward = .vertical
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

    /// Hidden units of one expert, m.
    public var expertWidth = 16
    /// Routing heads, H.
    public var routingHeads = 8
    /// Experts on a side, E; a layer has E².
    public var expertsPerSide = 512
    /// The number of experts a head selects on average, k.
    public var topK = 8
    /// Layers that share a router, G.
    public var layersPerRouter = 4
    /// Hidden units of the dense feed-forward.
    public var intermediateSize = 5632
    /// The file of strengths in an edited checkpoint's folder.
    public var expertMaskFile: String?

    /// The 1.4B vertical model, to change from.
    public init() {}

    /// Whether layer `layer` owns a router.
    public func hasRouter(_ layer: Int) -> Bool { feedForward != .dense && layer % layersPerRouter == 0 }

    /// Layers that own a router.
    public var routerLayers: [Int] { (0..<layerCount).filter(hasRouter) }

    /// Tokens that fit; stretched contexts count.
    public var contextLength: Int {
        switch ropeScaling {
        case nil: maxPositionEmbeddings
        case .linear(let factor), .dynamic(let factor): Int(Double(maxPositionEmbeddings) * factor)
        }
    }

    // MARK: Reading

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
        switch modelType {
        case "monet", "monet_masked":
            let decomposition = try keys.string("moe_decompose")
            guard let kind = FeedForward(rawValue: decomposition), kind != .dense else {
                throw keys.invalid("moe_decompose", "\"\(decomposition)\"", "\"vertical\" or \"horizontal\"")
            }
            feedForward = kind
            try keys.requireActivation("relu2")
            expertWidth = try keys.size("moe_dim")
            routingHeads = try keys.size("moe_heads")
            expertsPerSide = try keys.size("moe_experts")
            topK = try keys.size("moe_topk")
            layersPerRouter = try keys.size("moe_groups")
            if modelType == "monet_masked" {
                let name = try keys.string("expert_mask")
                guard !name.isEmpty, !name.contains("/") else {
                    throw keys.invalid("expert_mask", "\"\(name)\"", "the name of a file in the folder")
                }
                expertMaskFile = name
            }
        case "llama":
            feedForward = .dense
            try keys.requireActivation("silu")
            intermediateSize = try keys.size("intermediate_size")
        default:
            throw keys.invalid("model_type", "\"\(modelType)\"", "\"monet\", \"monet_masked\" or \"llama\"")
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
        ropeTheta = try keys.number("rope_theta", default: 10000, in: 1e-3...1e12)
        ropeScaling = try keys.ropeScaling()
        tieWordEmbeddings = try keys.bool("tie_word_embeddings", default: false)
        initializerRange = try keys.number("initializer_range", default: 0.02, in: 0...100)
        beginTokenID = try keys.tokenIDs("bos_token_id")?.first
        endTokenIDs = try keys.tokenIDs("eos_token_id") ?? []
        quantization = try keys.quantization()
        if let name = try keys.optionalString("torch_dtype") {
            guard let type = DType(userName: name) else {
                throw keys.invalid("torch_dtype", "\"\(name)\"", "float32, bfloat16 or float16")
            }
            dtype = type
        }
        try validate(file: file)
    }

    /// Checks that the numbers fit together.
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
        if feedForward != .dense {
            try require(topK <= expertsPerSide, "moe_topk", topK, "at most moe_experts \(expertsPerSide)")
            if feedForward == .vertical {
                try require(
                    expertWidth % 2 == 0, "moe_dim", expertWidth, "an even number for vertical experts")
                try require(
                    hiddenSize % 2 == 0, "hidden_size", hiddenSize, "an even number for vertical experts")
            }
        }
        let parameters = shapes().reduce(0.0) { $0 + $1.shape.reduce(1.0) { $0 * Double($1) } }
        try require(parameters < 1e13, "hidden_size", hiddenSize, "a model of fewer than 10^13 parameters")
        for id in endTokenIDs + (beginTokenID.map { [$0] } ?? []) {
            try require(
                id < vocabularySize, "eos_token_id", id, "a token id below vocab_size \(vocabularySize)")
        }
    }

    // MARK: Writing

    /// The `config.json` of a checkpoint with weights of `dtype`, as the authors' code reads it.
    public func json() -> JSONValue {
        let scaling: JSONValue =
            switch ropeScaling {
            case nil: .null
            case .linear(let factor): ["type": "linear", "factor": .number(factor)]
            case .dynamic(let factor): ["type": "dynamic", "factor": .number(factor)]
            }
        let isMonet = feedForward != .dense
        let isMasked = expertMaskFile != nil
        let code = isMasked ? "modeling_masked_monet.Masked" : "modeling_monet."
        var members: [(String, JSONValue)] = [
            (
                "architectures",
                [
                    isMasked
                        ? "MaskedMonetForCausalLM" : isMonet ? "MonetForCausalLM" : "LlamaForCausalLM"
                ]
            ),
            ("attention_bias", .bool(attentionBias)),
            ("attention_dropout", 0.0),
        ]
        if isMonet {
            members.append(
                (
                    "auto_map",
                    [
                        "AutoConfig": .string(code + "MonetConfig"),
                        "AutoModelForCausalLM": .string(code + "MonetForCausalLM"),
                    ]
                ))
        }
        members += [
            ("bos_token_id", beginTokenID.map { .integer($0) } ?? .null),
            (
                "eos_token_id",
                endTokenIDs.isEmpty
                    ? .null
                    : endTokenIDs.count == 1
                        ? .integer(endTokenIDs[0]) : .array(endTokenIDs.map { .integer($0) })
            ),
        ]
        if headWidth * attentionHeads != hiddenSize { members.append(("head_dim", .integer(headWidth))) }
        members += [
            ("hidden_act", isMonet ? "relu2" : "silu"),
            ("hidden_size", .integer(hiddenSize)),
            ("initializer_range", .number(initializerRange)),
            ("intermediate_size", isMonet ? .null : .integer(intermediateSize)),
            ("max_position_embeddings", .integer(maxPositionEmbeddings)),
            ("mlp_bias", isMonet ? .null : false),
            ("model_type", isMasked ? "monet_masked" : isMonet ? "monet" : "llama"),
        ]
        if let expertMaskFile { members.append(("expert_mask", .string(expertMaskFile))) }
        if isMonet {
            members += [
                ("moe_decompose", .string(feedForward.rawValue)),
                ("moe_dim", .integer(expertWidth)),
                ("moe_experts", .integer(expertsPerSide)),
                ("moe_groups", .integer(layersPerRouter)),
                ("moe_heads", .integer(routingHeads)),
                ("moe_topk", .integer(topK)),
            ]
        }
        members += [
            ("num_attention_heads", .integer(attentionHeads)),
            ("num_hidden_layers", .integer(layerCount)),
            ("num_key_value_heads", .integer(keyValueHeads)),
        ]
        if isMonet { members.append(("output_router_probs", false)) }
        members += [
            ("pretraining_tp", 1)
        ]
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
        members += [
            ("rms_norm_eps", .number(rmsNormEpsilon)),
            ("rope_scaling", scaling),
            ("rope_theta", .number(ropeTheta)),
            ("tie_word_embeddings", .bool(tieWordEmbeddings)),
            ("torch_dtype", .string(dtype.torchName)),
            ("transformers_version", "4.44.2"),
            ("use_cache", .bool(!isMasked)),
            ("vocab_size", .integer(vocabularySize)),
        ]
        return .object(members.map { .init($0.0, $0.1) })
    }
}

/// Checked access to the keys of a configuration.
private struct ConfigurationKeys {
    let json: JSONValue
    let file: String
    /// No extent of a model comes near.
    private let largestSize = 1 << 24

    func invalid(_ key: String, _ found: String, _ expected: String) -> ModelError {
        .invalidConfiguration(file: file, key: key, found: found, expected: expected)
    }

    func has(_ key: String) -> Bool { json[key].map { !$0.isNull } ?? false }

    private func describe(_ value: JSONValue?) -> String { value.map { $0.serialized() } ?? "absent" }

    func string(_ key: String) throws -> String {
        guard let value = json[key]?.stringValue else { throw invalid(key, describe(json[key]), "a string") }
        return value
    }

    func optionalString(_ key: String) throws -> String? { has(key) ? try string(key) : nil }

    func requireActivation(_ name: String) throws {
        let found = try optionalString("hidden_act") ?? name
        guard found == name else { throw invalid("hidden_act", "\"\(found)\"", "\"\(name)\"") }
    }

    func size(_ key: String, default fallback: Int? = nil, limit: Int? = nil) throws -> Int {
        if !has(key), let fallback { return fallback }
        let limit = limit ?? largestSize
        guard let value = json[key]?.intValue, value >= 1, value <= limit else {
            throw invalid(key, describe(json[key]), "an integer from 1 to \(limit)")
        }
        return value
    }

    func number(_ key: String, default fallback: Double, in range: ClosedRange<Double>) throws -> Double {
        if !has(key) { return fallback }
        guard let value = json[key]?.doubleValue, value.isFinite, range.contains(value) else {
            throw invalid(
                key, describe(json[key]), "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    func bool(_ key: String, default fallback: Bool) throws -> Bool {
        if !has(key) { return fallback }
        guard let value = json[key]?.boolValue else {
            throw invalid(key, describe(json[key]), "true or false")
        }
        return value
    }

    func tokenIDs(_ key: String) throws -> [Int]? {
        guard has(key), let value = json[key] else { return nil }
        let values = value.arrayValue ?? [value]
        return try values.map {
            guard let id = $0.intValue, id >= 0, id <= largestSize else {
                throw invalid(key, describe(value), "a token id or a list of them")
            }
            return id
        }
    }

    func quantization() throws -> MonetConfiguration.Quantization? {
        guard has("quantization_config"), let value = json["quantization_config"] else { return nil }
        guard value["quant_method"]?.stringValue == "monet", let bits = value["bits"]?.intValue,
            let quantization = MonetConfiguration.Quantization(rawValue: bits)
        else {
            throw invalid(
                "quantization_config", describe(value),
                "null or {\"quant_method\": \"monet\", \"bits\": 8 or 4}")
        }
        let layout = value["layout"] ?? 1
        guard layout.intValue == quantization.layout else {
            throw invalid(
                "quantization_config.layout", describe(layout),
                "\(quantization.layout): rows of \(bits) bits were laid out otherwise; convert the model again"
            )
        }
        return quantization
    }

    func ropeScaling() throws -> MonetConfiguration.RopeScaling? {
        guard has("rope_scaling"), let value = json["rope_scaling"] else { return nil }
        guard value.members != nil else {
            throw invalid("rope_scaling", describe(value), "null or an object")
        }
        let type = (value["rope_type"] ?? value["type"])?.stringValue
        if type == "default" { return nil }
        guard type == "linear" || type == "dynamic" else {
            throw invalid("rope_scaling", describe(value), "type \"linear\" or \"dynamic\"")
        }
        guard let factor = value["factor"]?.doubleValue, factor >= 1, factor <= 1e6 else {
            throw invalid("rope_scaling", describe(value), "a factor of at least 1")
        }
        return type == "linear" ? .linear(factor: factor) : .dynamic(factor: factor)
    }
}
