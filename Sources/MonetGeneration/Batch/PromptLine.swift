import Foundation
import MonetFoundation
import MonetModel
import MonetText

/// One line of a file of prompts: what to continue, and how.
///
/// A line is a JSON object with `prompt`, `token_ids` or `messages`, and any of `id`, `max_new_tokens`, `temperature`,
/// `top_k`, `top_p`, `min_p`, `repetition_penalty`, `presence_penalty`, `frequency_penalty`, `seed`, `stop`, `masks`,
/// `strengths`, `steer`, `directions` and `replace`; what it does not say is as for all lines.
public struct PromptLine: Sendable {
    /// Its number in the file, from 0.
    public let index: Int
    /// What the line says of its identity, repeated in the result.
    public let id: JSONValue?
    /// The prompt's text, or that of its tokens.
    public let prompt: String
    /// What to run.
    public let request: TextRequest

    /// What a line does not say.
    public struct Defaults {
        /// Settings for all lines; line i draws with the seed plus i.
        public var settings: GenerationSettings
        /// Texts that end every continuation.
        public var stopStrings: [String]
        /// The mask of all lines, to which a line's own strengths are added.
        public var mask: UnitMask?
        /// The steering of all lines, to which a line's own is added.
        public var steering: Steering?
        /// The mask that a name in `masks` stands for.
        public var maskNamed: (String) throws -> UnitMask

        /// Joins the defaults.
        public init(
            settings: GenerationSettings, stopStrings: [String] = [], mask: UnitMask? = nil,
            steering: Steering? = nil, maskNamed: @escaping (String) throws -> UnitMask
        ) {
            (self.settings, self.stopStrings, self.mask) = (settings, stopStrings, mask)
            self.steering = steering
            self.maskNamed = maskNamed
        }
    }

    private static let keys = [
        "id", "prompt", "token_ids", "messages", "max_new_tokens", "temperature", "top_k", "top_p", "min_p",
        "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "masks", "strengths",
        "steer", "directions", "replace",
    ]

    /// Reads a line.
    ///
    /// - Throws: `GenerationError.malformedPrompt` naming the file, the line and the key.
    public init(
        _ json: JSONValue, index: Int, source: String, model: MonetLanguageModel, tokenizer: Tokenizer?,
        _ defaults: Defaults
    ) throws {
        func fail(_ key: String, _ expected: String) -> GenerationError {
            let found = json[key].map { "\"\(key)\" is \($0.serialized().prefix(60)), " } ?? ""
            return .malformedPrompt(source: source, line: index + 1, reason: found + "expected " + expected)
        }
        guard let members = json.members else { throw fail("", "an object") }
        if let unknown = members.first(where: { !Self.keys.contains($0.key) }) {
            throw fail(unknown.key, "the keys " + Self.keys.joined(separator: ", "))
        }
        func number(_ key: String) throws -> Double? {
            guard let value = json[key], !value.isNull else { return nil }
            guard let number = value.doubleValue else { throw fail(key, "a number") }
            return number
        }
        func integer(_ key: String) throws -> Int? {
            guard let value = json[key], !value.isNull else { return nil }
            guard let number = value.intValue, number >= 0 else { throw fail(key, "an integer of 0 or more") }
            return number
        }
        func texts(_ key: String) throws -> [String] {
            guard let value = json[key], !value.isNull else { return [] }
            if let text = value.stringValue { return [text] }
            guard let list = value.arrayValue else { throw fail(key, "a text or a list of texts") }
            return try list.map {
                guard let text = $0.stringValue else { throw fail(key, "a text or a list of texts") }
                return text
            }
        }
        var settings = defaults.settings
        settings.maxNewTokens = try integer("max_new_tokens") ?? settings.maxNewTokens
        settings.sampling.temperature = try number("temperature") ?? settings.sampling.temperature
        settings.sampling.topK = try integer("top_k") ?? settings.sampling.topK
        settings.sampling.topP = try number("top_p") ?? settings.sampling.topP
        settings.sampling.minP = try number("min_p") ?? settings.sampling.minP
        settings.sampling.repetitionPenalty =
            try number("repetition_penalty") ?? settings.sampling.repetitionPenalty
        settings.sampling.presencePenalty =
            try number("presence_penalty") ?? settings.sampling.presencePenalty
        settings.sampling.frequencyPenalty =
            try number("frequency_penalty") ?? settings.sampling.frequencyPenalty
        settings.sampling.seed =
            try integer("seed").map { UInt64($0) } ?? settings.sampling.seed &+ UInt64(index)
        do {
            try settings.sampling.validate()
        } catch {
            throw GenerationError.malformedPrompt(source: source, line: index + 1, reason: "\(error)")
        }
        var stops = defaults.stopStrings + (try texts("stop"))
        let ids: [Int32]
        switch ["prompt", "token_ids", "messages"].filter({ json[$0] != nil }) {
        case ["prompt"]:
            guard let text = json["prompt"]?.stringValue else { throw fail("prompt", "a text") }
            guard let tokenizer else { throw GenerationError.missingTokenizer(purpose: "a text") }
            ids = try tokenizer.encode(text, addBegin: tokenizer.addsBegin)
            prompt = text
        case ["token_ids"]:
            let vocabulary = model.configuration.vocabularySize
            guard let list = json["token_ids"]?.arrayValue else {
                throw fail("token_ids", "a list of token ids")
            }
            let known = list.compactMap(\.intValue).filter { $0 >= 0 && $0 < vocabulary }.map { Int32($0) }
            guard known.count == list.count else {
                throw fail("token_ids", "a list of token ids below \(vocabulary)")
            }
            ids = known
            prompt = try tokenizer?.decode(known) ?? ""
        case ["messages"]:
            guard let tokenizer else { throw GenerationError.missingTokenizer(purpose: "a conversation") }
            guard let template = tokenizer.chatTemplate else {
                throw TextError.missingTemplate(path: tokenizer.chatTemplatePath)
            }
            let parsed = try ChatTemplate(template)
            let text = try parsed.render(
                messages: json["messages"] ?? .null, specialTokens: tokenizer.specialTokenTexts)
            AnswerEnd(parsed, tokenizer)?.add(to: &settings, &stops, for: model.configuration)
            ids = try tokenizer.encode(text, parsingSpecial: true)
            prompt = text
        default: throw fail("", "one of \"prompt\", \"token_ids\" and \"messages\"")
        }
        guard !ids.isEmpty else { throw fail("prompt", "a prompt with one token or more") }
        var mask = defaults.mask
        func add(_ other: UnitMask) { mask = mask.map { $0.union(other) } ?? other }
        for name in try texts("masks") { add(try defaults.maskNamed(name)) }
        if let strengths = json["strengths"], !strengths.isNull {
            guard let members = strengths.members else { throw fail("strengths", "an object") }
            let units = model.units
            var own = UnitMask(units)
            for member in members {
                guard let (group, unit) = UnitLayout.numbers(of: member.key),
                    (0..<units.groups).contains(group), (0..<units.unitsPerGroup).contains(unit),
                    let strength = member.value.doubleValue, (0...1000).contains(strength)
                else {
                    throw fail(
                        "strengths",
                        "names from 0/0 to \(units.groups - 1)/\(units.unitsPerGroup - 1) with numbers from 0 to 1000"
                    )
                }
                own.set([(index: unit, strength: Float(strength))], group: group)
            }
            add(own)
        }
        var steering = defaults.steering ?? Steering()
        do {
            let own = try Steering(
                units: json["steer"], directions: json["directions"], replacements: json["replace"],
                readsFiles: true)
            steering.units += own.units
            steering.replacements += own.replacements
            steering.directions += own.directions
            try model.check(steering)
        } catch let error as ModelError {
            throw GenerationError.malformedPrompt(source: source, line: index + 1, reason: "\(error)")
        }
        self.index = index
        id = json["id"]
        var generation = GenerationRequest(ids, settings: settings, mask: mask)
        if !steering.isEmpty { generation.steering = steering }
        request = TextRequest(
            generation,
            stopStrings: stops)
    }
}
