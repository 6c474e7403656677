import MonetFoundation

/// Checked access to the keys of a `config.json`. Errors name the file, the key, what was found and expected.
public struct ConfigurationKeys: Sendable {
    let json: JSONValue
    let file: String
    /// Far larger than any dimension of a model.
    private let largestSize = 1 << 24

    /// An error that names the file and the key.
    public func invalid(_ key: String, _ found: String, _ expected: String) -> ModelError {
        .invalidConfiguration(file: file, key: key, found: found, expected: expected)
    }

    /// Whether the key is present and not null.
    public func has(_ key: String) -> Bool { json[key].map { !$0.isNull } ?? false }

    /// A key's value as messages show it.
    public func describe(_ key: String) -> String { describe(json[key]) }

    private func describe(_ value: JSONValue?) -> String { value.map { $0.serialized() } ?? "absent" }

    /// A key's text.
    public func string(_ key: String) throws -> String {
        guard let value = json[key]?.stringValue else { throw invalid(key, describe(json[key]), "a string") }
        return value
    }

    /// A key's text; nil if it is absent.
    public func optionalString(_ key: String) throws -> String? { has(key) ? try string(key) : nil }

    /// Checks `hidden_act`.
    public func requireActivation(_ name: String) throws {
        let found = try optionalString("hidden_act") ?? name
        guard found == name else { throw invalid("hidden_act", "\"\(found)\"", "\"\(name)\"") }
    }

    /// A key's positive integer.
    public func size(_ key: String, default fallback: Int? = nil, limit: Int? = nil) throws -> Int {
        if !has(key), let fallback { return fallback }
        let limit = limit ?? largestSize
        guard let value = json[key]?.intValue, value >= 1, value <= limit else {
            throw invalid(key, describe(json[key]), "an integer from 1 to \(limit)")
        }
        return value
    }

    /// A key's number in a range.
    public func number(_ key: String, default fallback: Double, in range: ClosedRange<Double>) throws
        -> Double
    {
        if !has(key) { return fallback }
        guard let value = json[key]?.doubleValue, value.isFinite, range.contains(value) else {
            throw invalid(
                key, describe(json[key]), "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return value
    }

    /// A key's Boolean value.
    public func bool(_ key: String, default fallback: Bool) throws -> Bool {
        if !has(key) { return fallback }
        guard let value = json[key]?.boolValue else {
            throw invalid(key, describe(json[key]), "true or false")
        }
        return value
    }

    /// A key's token ids, one or a list; nil if it is absent.
    ///
    /// - `allowsNone`: whether ids below 0 stand for no token, as in `generation_config.json`.
    public func tokenIDs(_ key: String, allowsNone: Bool = false) throws -> [Int]? {
        guard has(key), let value = json[key] else { return nil }
        let values = value.arrayValue ?? [value]
        return try values.compactMap {
            if allowsNone, let id = $0.intValue, id < 0 { return nil }
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

    // MARK: Rotary embedding

    /// The base and the scaling of rotary frequencies: `rope_theta` and `rope_scaling`, or both in
    /// `rope_parameters`, as transformers 5 writes them.
    ///
    /// - Throws: `ModelError.invalidConfiguration`, also for settings that would change the frequencies in a way
    ///   that is not known here.
    func rope() throws -> (theta: Double, scaling: MonetConfiguration.RopeScaling?) {
        let thetas = 1e-3...1e12
        let theta = try number("rope_theta", default: 10000, in: thetas)
        guard has("rope_parameters") else { return (theta, try ropeScaling("rope_scaling")) }
        let scaling = try ropeScaling("rope_parameters")
        guard let value = json["rope_parameters"]?["rope_theta"], !value.isNull else {
            return (theta, scaling)
        }
        guard let found = value.doubleValue, thetas.contains(found) else {
            throw invalid(
                "rope_parameters.rope_theta", describe(value),
                "a number from \(thetas.lowerBound) to \(thetas.upperBound)")
        }
        return (found, scaling)
    }

    private func ropeScaling(_ key: String) throws -> MonetConfiguration.RopeScaling? {
        guard has(key), let value = json[key] else { return nil }
        guard let members = value.members else { throw invalid(key, describe(value), "null or an object") }
        let type = value["rope_type"] ?? value["type"] ?? "default"
        guard let name = type.stringValue, ["default", "linear", "dynamic"].contains(name) else {
            throw invalid(
                "\(key).rope_type", describe(type), "\"default\", \"linear\" or \"dynamic\"")
        }
        for member in members where !member.value.isNull {
            let isKnown =
                switch member.key {
                case "type", "rope_type": member.value == type || member.value.stringValue == name
                case "rope_theta": key == "rope_parameters"
                case "factor": true
                case "partial_rotary_factor": member.value.doubleValue == 1
                case "original_max_position_embeddings":
                    member.value.intValue == (json["max_position_embeddings"]?.intValue ?? 2048)
                default: false
                }
            guard isKnown else {
                throw invalid(
                    "\(key).\(member.key)", describe(member.value),
                    "no such setting: it would change the rotary embedding, and is not supported")
            }
        }
        if name == "default" { return nil }
        guard let factor = value["factor"]?.doubleValue, factor >= 1, factor <= 1e6 else {
            throw invalid("\(key).factor", describe(value["factor"]), "a number from 1 to 1000000")
        }
        return name == "linear" ? .linear(factor: factor) : .dynamic(factor: factor)
    }

    // MARK: Settings of other architectures

    /// Settings that transformers applies in relatives of Llama, with the value that changes nothing.
    private static let neutral: [(key: String, value: JSONValue)] = [
        ("attention_multiplier", .null), ("attn_logit_softcapping", .null), ("clip_qkv", .null),
        ("embedding_multiplier", 1.0), ("final_logit_softcapping", .null), ("layer_types", .null),
        ("logit_scale", 1.0), ("logits_scaling", 1.0), ("no_rope_layers", .null),
        ("partial_rotary_factor", 1.0), ("qk_layernorm", false), ("query_pre_attn_scalar", .null),
        ("residual_multiplier", 1.0), ("rope_interleaved", false), ("scale_embeddings", false),
        ("scale_embedding", false), ("sliding_window", .null), ("use_qk_norm", false),
        ("use_sliding_window", false), ("mlp_bias", false), ("is_encoder_decoder", false),
        ("add_cross_attention", false),
    ]

    /// Checks that no setting asks for other mathematics than a Llama decoder's.
    ///
    /// - Throws: `ModelError.invalidConfiguration` that names the key.
    func requireLlamaDecoder() throws {
        for (key, expected) in Self.neutral where has(key) {
            guard let found = json[key], found != expected else { continue }
            if let number = expected.doubleValue, found.doubleValue == number { continue }
            if key == "layer_types",
                found.arrayValue?.allSatisfy({ $0.stringValue == "full_attention" }) ?? false
            {
                continue
            }
            // Without its switch the width of the window has no effect.
            if key == "sliding_window", json["use_sliding_window"]?.boolValue == false { continue }
            throw invalid(
                key, describe(found), "\(expected.serialized()) or no such key: it changes what is computed")
        }
    }
}
