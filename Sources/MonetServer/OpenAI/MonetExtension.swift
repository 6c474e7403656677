import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel

/// What the `monet` object of a request asks for: edits for this request alone, and what to report.
struct MonetExtension: Sendable {
    /// Strengths for this request, in addition to those of the model that it names.
    var mask: UnitMask?
    /// Experts that are forced to fire, directions that are added and values that are replaced, for this request.
    var steering: Steering?
    /// Scores of units to report with every token.
    var units: TextRequest.UnitSelection?
    /// Hook points whose values to report.
    var hooks: [HookPoint] = []

    /// Whether anything is reported.
    var observes: Bool { units != nil || !hooks.isEmpty }

    static let schema = Schema.object([
        .init(
            "masks",
            .array(
                .either([
                    .string(lengths: 1...200),
                    .object([
                        .init("name", .string(lengths: 1...200), "The name of a mask.", isRequired: true),
                        .init(
                            "strength", .number(0...1000),
                            "0 removes the mask's experts (the default), 1 leaves them unchanged, 2 doubles them."
                        ),
                    ]),
                ]), counts: 0...64),
            "Masks of the server by name, for this request alone."),
        .init(
            "strengths", .map(.number(0...1000), keys: .unit, most: 300_000),
            "Strengths of single experts by group/index: 0 removes, 1 leaves unchanged, 2 doubles."),
        .init(
            "remove", .array(.string(pattern: .unit), counts: 0...300_000),
            "Experts to remove, by group/index."),
        .init(
            "steer",
            .map(
                .either([
                    .number(1e-6...1000),
                    .object([
                        .init("score", .number(1e-6...1000), "The score.", isRequired: true),
                        .init(
                            "positions", .string(lengths: 1...200), "Where, as 0-4,7-; everywhere by default."
                        ),
                    ]),
                ]), keys: .unit, most: 64),
            "Experts to force by group/index: they fire as if one more head had routed to them with this score."
        ),
        .init(
            "directions",
            .array(
                .object([
                    .init("hook", .string(lengths: 1...100), "The hook point.", isRequired: true),
                    .init(
                        "vector", .array(.number(-1e30...1e30), counts: 1...65536),
                        "As many numbers as a token's value there has.", isRequired: true),
                    .init("scale", .number(-1e6...1e6), "What multiplies it; 1 by default."),
                    .init("positions", .string(lengths: 1...200), "Where, as 0-4,7-; everywhere by default."),
                ]), counts: 0...16),
            "Vectors to add to the values at hook points, named as in TransformerLens."),
        .init(
            "replace",
            .array(
                .object([
                    .init("hook", .string(lengths: 1...100), "The hook point.", isRequired: true),
                    .init("head", .integer(0...9999), "One head of a value with heads; all by default."),
                    .init(
                        "vector", .array(.number(-1e30...1e30), counts: 1...65536),
                        "What stands in for every token's value; zeros by default."),
                    .init("positions", .string(lengths: 1...200), "Where, as 0-4,7-; everywhere by default."),
                ]), counts: 0...64),
            "Values to replace at hook points: ablations."),
        .init(
            "experts_per_token", .integer(1...256),
            "Report the experts with the highest scores of each group, for every token that ran."),
        .init(
            "unit_scores", .array(.string(pattern: .unit), counts: 1...4096),
            "Report the scores of these experts for every token that ran."),
        .init(
            "hidden_states", .array(.string(lengths: 1...100), counts: 1...64),
            "Report values at these hook points, named as in TransformerLens, for every token that ran."),
    ])

    init() {}

    /// Reads a checked object.
    ///
    /// - Throws: `APIError` for names that the model does not have, and for keys that exclude each other.
    init(_ value: JSONValue?, _ served: ServedModel) throws {
        guard let value, !value.isNull else { return }
        func add(_ other: UnitMask) { mask = mask.map { $0.union(other) } ?? other }
        for (index, item) in (value["masks"]?.arrayValue ?? []).enumerated() {
            let name = item.stringValue ?? item["name"]?.stringValue ?? ""
            guard let named = try served.mask(named: name) else {
                let known = served.maskNames.map { "'\($0)'" }.joined(separator: ", ")
                throw APIError.invalid(
                    "monet.masks[\(index)]",
                    "there is no mask '\(name)'; "
                        + (known.isEmpty ? "the server has none" : "there are \(known)"),
                    code: "mask_not_found")
            }
            add(named.applied(strength: Float(item["strength"]?.doubleValue ?? 0)))
        }
        let units = served.model.units
        func unit(_ name: String, _ place: String) throws -> UnitID {
            do {
                return try UnitID(parsing: name, in: units)
            } catch {
                throw APIError.invalid(place, "\(error)")
            }
        }
        var strengths: [Int: [(index: Int, strength: Float)]] = [:]
        for member in value["strengths"]?.members ?? [] {
            let id = try unit(member.key, "monet.strengths")
            strengths[id.group, default: []].append((id.index, Float(member.value.doubleValue ?? 1)))
        }
        for (index, item) in (value["remove"]?.arrayValue ?? []).enumerated() {
            let id = try unit(item.stringValue ?? "", "monet.remove[\(index)]")
            strengths[id.group, default: []].append((id.index, 0))
        }
        if !strengths.isEmpty {
            var own = UnitMask(units)
            for (group, values) in strengths { own.set(values, group: group) }
            add(own)
        }
        let steering = try Self.steering(value, served.model)
        if !steering.isEmpty { self.steering = steering }
        let perToken = value["experts_per_token"]?.intValue
        let wanted = value["unit_scores"]?.arrayValue
        if perToken != nil, wanted != nil {
            throw APIError.invalid(
                "monet.unit_scores", "monet.unit_scores and monet.experts_per_token exclude each other")
        }
        if let perToken { self.units = .highest(perToken) }
        if let wanted {
            self.units = .of(
                try wanted.enumerated().map { index, item in
                    let id = try unit(item.stringValue ?? "", "monet.unit_scores[\(index)]")
                    return (id.group, id.index)
                })
        }
        hooks = try (value["hidden_states"]?.arrayValue ?? []).enumerated().map { index, item in
            let place = "monet.hidden_states[\(index)]"
            guard let point = HookPoint(item.stringValue ?? "") else {
                throw APIError.invalid(
                    place,
                    "\(place) is \(item.serialized()), expected a name like \"blocks.0.hook_resid_post\"")
            }
            do {
                try served.model.check([point])
            } catch {
                throw APIError.invalid(place, "\(error)")
            }
            return point
        }
    }

    /// The most numbers that a request may observe: some 50 MB of an answer.
    private static let mostValues = 4_000_000

    /// Refuses to observe more than fits into an answer.
    ///
    /// - Throws: `APIError` of status 400.
    func checkSize(tokens: Int, answers: Int, _ served: ServedModel) throws {
        let tokens = min(tokens, served.contextLength)
        let configuration = served.model.configuration
        var perToken = 0
        switch units {
        case .highest(let count):
            perToken += 2 * min(count, served.model.units.unitsPerGroup) * served.model.units.groups
        case .of(let list): perToken += 2 * list.count
        case nil: break
        }
        for point in hooks {
            let heads = configuration.attentionHeads * configuration.headWidth
            let routed = configuration.experts.map { $0.heads * $0.perSide } ?? 0
            perToken +=
                point.kind == .pattern
                ? configuration.attentionHeads * served.contextLength
                : max(
                    configuration.hiddenSize, heads, routed,
                    served.model.units.kind == .neurons ? served.model.units.unitsPerGroup : 0)
        }
        let total = MemoryLimits.product(perToken, tokens, answers)
        guard total <= Self.mostValues else {
            throw APIError.invalid(
                "monet",
                "monet asks for up to \(total) values (\(perToken) for each of \(tokens) tokens of \(answers) texts), "
                    + "at most \(Self.mostValues) fit an answer", code: "answer_too_large")
        }
    }

    private static func steering(_ value: JSONValue, _ model: MonetLanguageModel) throws -> Steering {
        func part(_ key: String, _ read: () throws -> Steering) throws -> Steering {
            do {
                let steering = try read()
                try model.check(steering)
                return steering
            } catch let error as ModelError {
                throw APIError.invalid("monet.\(key)", "\(error)")
            }
        }
        var steering = try part("steer") { try Steering(units: value["steer"]) }
        steering.directions = try part("directions") {
            try Steering(directions: value["directions"])
        }.directions
        steering.replacements = try part("replace") { try Steering(replacements: value["replace"]) }
            .replacements
        return steering
    }
}
