import MonetFoundation

/// A checkpoint's `generation_config.json`: the tokens that end a text, and how tokens are drawn unless a caller
/// says otherwise.
public struct GenerationDefaults: Sendable, Equatable {
    /// All keys of the file, in its order.
    public let members: [JSONValue.Member]
    /// Ids that end a text, which take precedence over those of `config.json`; nil if the file has none.
    public let endTokenIDs: [Int]?
    /// Whether tokens are drawn rather than the most likely ones taken; nil if the file does not say.
    public let drawsTokens: Bool?
    /// Divides the logits.
    public let temperature: Double?
    /// The number of most likely tokens to draw from; 0 is all.
    public let topK: Int?
    /// The share of probability to draw from.
    public let topP: Double?
    /// The smallest probability to draw from, as a share of the largest.
    public let minP: Double?
    /// Penalty on tokens that have already occurred.
    public let repetitionPenalty: Double?
    /// Maximum number of new tokens.
    public let maxNewTokens: Int?
    /// Maximum number of tokens of prompt and answer together.
    public let maxLength: Int?
    /// Texts that end a generation.
    public let stopStrings: [String]
    /// Keys that would change what is generated and are not supported, with their values.
    public let unsupported: [JSONValue.Member]

    /// Settings of transformers that change nothing, each with its neutral value beside null.
    private static let neutral: [(key: String, value: JSONValue)] = [
        ("num_beams", 1), ("num_beam_groups", 1), ("diversity_penalty", 0.0), ("penalty_alpha", 0.0),
        ("typical_p", 1.0), ("epsilon_cutoff", 0.0), ("eta_cutoff", 0.0), ("no_repeat_ngram_size", 0),
        ("encoder_repetition_penalty", 1.0), ("encoder_no_repeat_ngram_size", 0), ("min_length", 0),
        ("min_new_tokens", 0), ("bad_words_ids", .null), ("force_words_ids", .null), ("constraints", .null),
        ("forced_bos_token_id", .null), ("forced_eos_token_id", .null), ("suppress_tokens", .null),
        ("begin_suppress_tokens", .null), ("sequence_bias", .null), ("guidance_scale", 1.0),
        ("exponential_decay_length_penalty", .null), ("watermarking_config", .null), ("top_h", .null),
        ("dola_layers", .null), ("token_healing", false), ("remove_invalid_values", false),
    ]

    /// Reads a file for a model with this vocabulary.
    ///
    /// - Throws: `FileError`, `ModelError.invalidConfiguration` naming the file, the key, and what was expected.
    public init(contentsOfFile path: String, vocabularySize: Int) throws {
        let json = try JSONValue(contentsOfFile: path)
        let keys = ConfigurationKeys(json: json, file: path)
        guard let members = json.members else { throw keys.invalid("", json.kind, "an object") }
        self.members = members
        for key in ["bos_token_id", "eos_token_id", "pad_token_id"] {
            // A negative id stands for none.
            for id in try keys.tokenIDs(key, allowsNone: true) ?? [] where id >= vocabularySize {
                throw keys.invalid(key, "\(id)", "a token id below vocab_size \(vocabularySize)")
            }
        }
        endTokenIDs = try keys.tokenIDs("eos_token_id", allowsNone: true)
        drawsTokens = keys.has("do_sample") ? try keys.bool("do_sample", default: true) : nil
        func number(_ key: String, _ range: ClosedRange<Double>) throws -> Double? {
            keys.has(key) ? try keys.number(key, default: 0, in: range) : nil
        }
        func count(_ key: String) throws -> Int? {
            guard keys.has(key) else { return nil }
            guard let value = json[key]?.intValue, value >= 0 else {
                throw keys.invalid(key, keys.describe(key), "a number of 0 or more")
            }
            return value
        }
        temperature = try number("temperature", 0...1e6)
        topK = try count("top_k")
        topP = try number("top_p", 0...1)
        minP = try number("min_p", 0...1)
        repetitionPenalty = try number("repetition_penalty", 1e-6...1e6)
        maxNewTokens = try count("max_new_tokens")
        maxLength = try count("max_length")
        let stops = json["stop_strings"]
        let texts = stops.map { $0.isNull ? [] : $0.arrayValue ?? [$0] } ?? []
        stopStrings = try texts.map {
            guard let text = $0.stringValue, !text.isEmpty else {
                throw keys.invalid("stop_strings", keys.describe("stop_strings"), "a text or a list of texts")
            }
            return text
        }
        unsupported = members.filter { member in
            guard !member.value.isNull, member.value != [],
                let expected = Self.neutral.first(where: { $0.key == member.key })?.value
            else { return false }
            return member.value != expected
                && (expected.doubleValue == nil || member.value.doubleValue != expected.doubleValue)
        }
    }
}
