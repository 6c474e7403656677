import MonetFoundation
import MonetGeneration
import MonetModel

/// The keys of both completion endpoints that say how tokens are drawn.
enum SamplingFields {
    static let fields: [Schema.Field] = [
        .init(
            "model", .string(lengths: 1...1000),
            "A name that /v1/models lists; the model as it is by default."),
        .init("temperature", .number(0...100), "Divides the logits; 0 always takes the most likely token."),
        .init(
            "top_p", .number(0...1), "Draws from the most likely tokens whose probabilities add up to this."),
        .init("n", .integer(1...128), "Answers to each prompt, with the seeds seed, seed + 1, …"),
        .init("stream", .boolean, "Send tokens as they are drawn, as server-sent events."),
        .init(
            "stream_options",
            .object([
                .init("include_usage", .boolean, "Send the usage in a last chunk."),
                .init("include_obfuscation", .constant(false), "Chunks are never padded."),
            ]), "Only with stream."),
        .init(
            "stop",
            .either([.string(lengths: 0...1000), .array(.string(lengths: 0...1000), counts: 0...16)]),
            "Texts that end an answer; they are not part of it."),
        .init(
            "seed", .integer(Int.min...Int.max), "Equal seeds give equal answers, whatever else is running."),
        .init("presence_penalty", .number(-2...2), "Subtracted from the logits of tokens drawn before."),
        .init("frequency_penalty", .number(-2...2), "The same, for every time that they were drawn."),
        .init(
            "logit_bias", .map(.number(-100...100), keys: .number, most: 4096),
            "Added to the logits of tokens, by id."),
        .init(
            "top_k", .integer(0...Int.max), "Draws from the k most likely tokens; 0 from all. Not OpenAI's."),
        .init(
            "min_p", .number(0...1),
            "Draws from tokens at least this share as likely as the most likely one. Not OpenAI's."),
        .init(
            "repetition_penalty", .number(0.000001...100),
            "Divides the logits of tokens that occurred, as in Hugging Face. Not OpenAI's."),
        .init("ignore_eos", .boolean, "Continue after a token that ends the text. Not OpenAI's."),
        .init("user", .string(), "A name of the end user; it changes nothing."),
        .init(
            "monet", MonetExtension.schema, "Edits for this request alone, and what to report of the experts."
        ),
    ]

    /// The settings of a checked request: its keys first, then the checkpoint's generation_config.json, then OpenAI's
    /// defaults.
    ///
    /// - Throws: `APIError`.
    static func settings(_ body: JSONValue, _ served: ServedModel) throws -> GenerationSettings {
        let defaults = served.model.configuration.generation
        var settings = GenerationSettings()
        var sampling = SamplingSettings()
        let temperature = body["temperature"]?.doubleValue
        sampling.temperature = temperature ?? defaults?.temperature ?? 1
        if temperature == nil, defaults?.drawsTokens == false { sampling.temperature = 0 }
        // OpenAI and lm-evaluation-harness write 0 for "the most likely one".
        let topP = body["top_p"]?.doubleValue ?? defaults?.topP ?? 1
        sampling.topP = topP > 0 ? topP : .leastNonzeroMagnitude
        sampling.topK = body["top_k"]?.intValue ?? defaults?.topK ?? 0
        sampling.minP = body["min_p"]?.doubleValue ?? defaults?.minP ?? 0
        sampling.repetitionPenalty =
            body["repetition_penalty"]?.doubleValue ?? defaults?.repetitionPenalty ?? 1
        sampling.presencePenalty = body["presence_penalty"]?.doubleValue ?? 0
        sampling.frequencyPenalty = body["frequency_penalty"]?.doubleValue ?? 0
        sampling.seed =
            body["seed"]?.intValue.map { UInt64(bitPattern: Int64($0)) } ?? UInt64.random(in: 0...UInt64.max)
        let vocabulary = served.model.configuration.vocabularySize
        for member in body["logit_bias"]?.members ?? [] {
            guard let id = Int32(member.key), Int(id) < vocabulary else {
                throw APIError.invalid(
                    "logit_bias", "logit_bias names token \(member.key), expected ids below \(vocabulary)")
            }
            sampling.logitBias[id] = Float(member.value.doubleValue ?? 0)
        }
        settings.sampling = sampling
        if body["ignore_eos"]?.boolValue ?? false { settings.endTokenIDs = [] }
        return settings
    }

    /// The texts that end an answer, the checkpoint's included.
    static func stops(_ body: JSONValue, _ served: ServedModel) throws -> [String] {
        let own = served.model.configuration.generation?.stopStrings ?? []
        guard let stop = body["stop"], !stop.isNull else { return own }
        let texts = stop.stringValue.map { [$0] } ?? stop.arrayValue?.compactMap(\.stringValue) ?? []
        // An empty text stands nowhere, and clients that have no end token send one.
        return own + texts.filter { !$0.isEmpty }
    }
}
