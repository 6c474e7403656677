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
    public func tokenIDs(_ key: String) throws -> [Int]? {
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
