import Foundation
import HTTPTypes
import Hummingbird
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel

/// What the explorer's pages ask for: the index, masks, measurements and results.
struct ExplorerEndpoints: Sendable {
    let holder: ModelHolder
    let admission: Admission

    var all: [Endpoint] {
        [info, experts, fired, summaries, dossier, note, scores, effects, contexts, explain]
            + MaskEndpoints(holder: holder, admission: admission).all
            + GraphEndpoints(holder: holder, admission: admission).all + ResultEndpoints(holder: holder).all
    }

    static let unit: [Endpoint.Parameter] = [
        .init(name: "group", place: .path, schema: .integer(0...999_999), description: "The expert's group."),
        .init(
            name: "index", place: .path, schema: .integer(0...999_999_999), description: "Its index there."),
    ]

    static func index(_ served: ServedModel) throws -> ExpertIndex {
        guard let index = served.explorer.index else {
            throw APIError(.notFound, "the server has no index; start it with --index", code: "no_index")
        }
        return index
    }

    static func unit(_ call: Endpoint.Call, _ units: UnitLayout) throws -> UnitID {
        let (group, index) = (
            call.parameters["group"]?.intValue ?? -1, call.parameters["index"]?.intValue ?? -1
        )
        do {
            return try UnitID(parsing: "\(group)/\(index)", in: units)
        } catch {
            throw APIError(.notFound, "\(error)", param: "index", code: "expert_not_found")
        }
    }

    /// Runs something whose errors are about the request.
    static func translated<Value>(_ param: String, _ body: () throws -> Value) throws -> Value {
        do {
            return try body()
        } catch let error as InsightError {
            switch error {
            case .malformedIndex, .unwritableIndex: throw APIError(.internalServerError, "\(error)")
            case .unknownLabelSet: throw APIError.invalid("set", "\(error)")
            default: throw APIError.invalid(param, "\(error)")
            }
        }
    }

    // MARK: Reading

    private var info: Endpoint {
        Endpoint(method: .get, path: "/api/info", summary: "What the explorer can show.") { _ in
            let served = try holder.model()
            let units = served.model.units
            let explorer = served.explorer
            func list(_ values: [String]) -> JSONValue { .array(values.map { .string($0) }) }
            var members: [JSONValue.Member] = [
                .init("model", .string(served.name)), .init("models", list(served.names)),
                .init("units", .string(units.kind.rawValue)), .init("groups", .integer(units.groups)),
                .init(
                    "layers", list(units.layersOfGroup.map { "\($0.lowerBound)–\($0.upperBound)" })),
                .init("units_per_group", .integer(units.unitsPerGroup)),
                .init("context", .integer(served.contextLength)),
                .init("parameters", .integer(served.model.configuration.parameterCount)),
                .init("has_template", .bool(served.tokenizer.chatTemplate != nil)),
                .init("masks", list(served.maskNames)),
                .init("saves_masks", .bool(explorer.maskFolder != nil)),
                .init("measures_damage", .bool(explorer.corpus != nil)),
                .init("has_results", .bool(explorer.resultFolder != nil)),
            ]
            if let index = explorer.index {
                members.append(.init("index", try Self.json(index)))
            }
            return .json(.object(members))
        }
    }

    /// What an index says of itself.
    static func json(_ index: ExpertIndex) throws -> JSONValue {
        [
            "tokens": .integer(index.tokens), "documents": .integer(index.documents),
            "corpus": .string(index.corpus), "is_writable": .bool(index.isWritable),
            "experts": .integer(try index.count()),
            "label_sets": .array(
                index.labelSets.map { set in
                    ["name": .string(set.name), "labels": .array(set.labels.map { .string($0.name) })]
                }),
            "tags": .array(
                try index.tags().map { ["tag": .string($0.tag), "experts": .integer($0.experts)] }),
        ]
    }

    private var experts: Endpoint {
        Endpoint(
            method: .get, path: "/api/experts", summary: "Search the index.",
            parameters: [
                .init(
                    name: "label", place: .query, schema: .string(lengths: 1...500),
                    description: "Experts of a label."),
                .init(
                    name: "set", place: .query, schema: .string(lengths: 1...500),
                    description: "The label's set."),
                .init(
                    name: "token", place: .query, schema: .string(lengths: 1...200),
                    description: "Experts of a token."),
                .init(
                    name: "tag", place: .query, schema: .string(lengths: 1...200),
                    description: "Experts with a tag."),
                .init(
                    name: "text", place: .query, schema: .string(lengths: 1...200),
                    description:
                        "Experts whose notes, tags, explanations, labels or top tokens contain a text."),
                .init(
                    name: "group", place: .query, schema: .integer(0...999_999),
                    description: "Experts of a group."),
                .init(
                    name: "min_frequency", place: .query, schema: .number(0...1),
                    description: "Least share of tokens that fire an expert."),
                .init(
                    name: "min_count", place: .query, schema: .integer(0...1_000_000_000),
                    description: "Least number of tokens that fire an expert."),
                .init(
                    name: "sort", place: .query,
                    schema: .string(enumeration: ExpertQuery.Sort.allCases.map(\.rawValue)),
                    description: "What orders the result."),
                .init(
                    name: "order", place: .query, schema: .string(enumeration: ["desc", "asc"]),
                    description: "Largest or smallest first."),
                .init(
                    name: "limit", place: .query, schema: .integer(1...500),
                    description: "Experts per page; 50."),
                .init(
                    name: "offset", place: .query, schema: .integer(0...100_000_000),
                    description: "Experts to skip."),
            ], errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            func text(_ key: String) -> String? { call.parameters[key]?.stringValue }
            var query = ExpertQuery()
            query.group = call.parameters["group"]?.intValue
            query.minimumFrequency = call.parameters["min_frequency"]?.doubleValue ?? 0
            query.minimumCount = call.parameters["min_count"]?.intValue ?? 0
            (query.token, query.tag, query.text) = (text("token"), text("tag"), text("text"))
            query.sort = text("sort").flatMap(ExpertQuery.Sort.init(rawValue:))
            query.isAscending = text("order") == "asc"
            let limit = call.parameters["limit"]?.intValue ?? 50
            query.offset = call.parameters["offset"]?.intValue ?? 0
            // One more tells whether there is another page.
            query.limit = limit + 1
            if let name = text("label") {
                query.label = try Self.translated("label") { try index.label(name, set: text("set")) }
            }
            let ready = query
            let found = try Self.translated("sort") { try index.find(ready) }
            return .json([
                "experts": .array(try Self.rows(Array(found.prefix(limit)), index)),
                "has_more": .bool(found.count > limit),
            ])
        }
    }

    /// Search results with what is known of each expert at a glance.
    static func rows(_ found: [FoundExpert], _ index: ExpertIndex) throws -> [JSONValue] {
        try zip(found, index.summaries(of: found.map(\.expert))).map { entry, summary in
            .object(
                members(of: summary) + [
                    .init("mean", .number(entry.mean)), .init("frequency", .number(entry.frequency)),
                    .init("max", .number(entry.max)),
                    .init("value", entry.value.map { .number($0) } ?? .null),
                ])
        }
    }

    private static func members(of summary: ExpertSummary) -> [JSONValue.Member] {
        [
            .init("expert", .string(summary.expert.description)),
            .init("label", summary.label.map { .string($0) } ?? .null),
            .init("ratio", summary.ratio.map { .number($0) } ?? .null),
            .init("tokens", .array(summary.tokens.map { .string($0) })),
            .init("tags", .array(summary.tags.map { .string($0) })),
        ]
    }

    private var fired: Endpoint {
        Endpoint(
            method: .post, path: "/api/experts/fired",
            summary:
                "The experts that a text fires: more than the corpus does, or more than another text does.",
            body: .object([
                .init("text", .string(lengths: 1...20_000), "The text.", isRequired: true),
                .init("without", .string(lengths: 1...20_000), "A text that should not fire them."),
                .init("group", .integer(0...999_999), "Experts of one group."),
                .init("limit", .integer(1...500), "Most experts; 50 by default."),
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            let places = try admission.take(1)
            defer { withExtendedLifetime(places) {} }
            let group = call.body["group"]?.intValue
            let limit = call.body["limit"]?.intValue ?? 50
            let text = call.body["text"]?.stringValue ?? ""
            let without = call.body["without"]?.stringValue
            let rows = try await call.context.whileConnected {
                let scores = try await served.meanScores(text, "text")
                let found: [FoundExpert]
                if let without {
                    found = try index.find(
                        firedBy: scores, butNotBy: try await served.meanScores(without, "without"),
                        group: group,
                        limit: limit, floor: 1e-4)
                } else {
                    found = try index.find(firedBy: scores, group: group, limit: limit)
                }
                return try Self.rows(found, index)
            }
            return .json(["experts": .array(rows), "has_more": false])
        }
    }

    private var summaries: Endpoint {
        Endpoint(
            method: .post, path: "/api/experts/summaries",
            summary: "What is known of some experts at a glance.",
            body: .object([
                .init(
                    "experts", .array(.string(pattern: .unit), counts: 1...500),
                    "Names of experts.", isRequired: true)
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            let experts = try (call.body["experts"]?.arrayValue ?? []).map { item in
                try Self.translated("experts") {
                    try UnitID(parsing: item.stringValue ?? "", in: served.model.units)
                }
            }
            return .json([
                "experts": .array(try index.summaries(of: experts).map { .object(Self.members(of: $0)) })
            ])
        }
    }

    private var dossier: Endpoint {
        Endpoint(
            method: .get, path: "/api/experts/{group}/{index}",
            summary: "All that the index knows of an expert.",
            parameters: Self.unit + [
                .init(
                    name: "context", place: .query, schema: .integer(0...100),
                    description: "Tokens around each."),
                .init(name: "top", place: .query, schema: .integer(0...100), description: "Most top tokens."),
            ], errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            let unit = try Self.unit(call, served.model.units)
            let dossier = try index.dossier(
                of: unit, context: call.parameters["context"]?.intValue ?? 12,
                activations: call.parameters["top"]?.intValue ?? 12)
            return .json(try Self.json(dossier, index))
        }
    }

    static func json(_ dossier: ExpertDossier, _ index: ExpertIndex) throws -> JSONValue {
        let note = try index.note(of: dossier.expert)
        return .object(
            (dossier.json().members ?? []) + [
                .init("note", .string(note.text)), .init("tags", .array(note.tags.map { .string($0) })),
            ])
    }

    // MARK: Writing

    private var note: Endpoint {
        Endpoint(
            method: .post, path: "/api/experts/{group}/{index}/note",
            summary: "Store a note and tags of an expert.",
            parameters: Self.unit,
            body: .object([
                .init("note", .string(lengths: 0...ExpertIndex.longestNote), "The note.", isRequired: true),
                .init(
                    "tags",
                    .array(.string(lengths: 0...ExpertIndex.longestTag), counts: 0...ExpertIndex.mostTags),
                    "Its tags.", isRequired: true),
            ]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            let unit = try Self.unit(call, served.model.units)
            guard index.isWritable else {
                throw APIError(.forbidden, "the index is open for reading only", code: "read_only")
            }
            let note = ExpertNote(
                text: call.body["note"]?.stringValue ?? "",
                tags: (call.body["tags"]?.arrayValue ?? []).compactMap(\.stringValue))
            try Self.translated("note") { try index.setNote(note, of: unit) }
            let stored = try index.note(of: unit)
            return .json(["note": .string(stored.text), "tags": .array(stored.tags.map { .string($0) })])
        }
    }

    // MARK: Measuring

    private var scores: Endpoint {
        Endpoint(
            method: .post, path: "/api/experts/{group}/{index}/scores",
            summary: "An expert's score on each token of a text.", parameters: Self.unit,
            body: .object([.init("text", .string(lengths: 1...20_000), "The text.", isRequired: true)]),
            errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let unit = try Self.unit(call, served.model.units)
            let places = try admission.take(1)
            defer { withExtendedLifetime(places) {} }
            let text = call.body["text"]?.stringValue ?? ""
            let names = TokenNames(tokenizer: served.tokenizer)
            return .json(
                try await call.context.whileConnected {
                    let (tokens, rows) = try await served.unitScores(
                        text, "text", .of([(unit.group, unit.index)]))
                    return [
                        "tokens": .array(tokens.map { .string(names.name($0)) }),
                        "scores": .array(rows.map { .number(Double($0.first?.score ?? 0)) }),
                    ]
                })
        }
    }

    /// An operation that runs the model for an expert, on a thread of its own.
    private func measurement(
        _ path: String, _ summary: String,
        _ body: @escaping @Sendable (ExpertIndex, UnitID, ServedModel, Cancellation) throws -> JSONValue
    ) -> Endpoint {
        Endpoint(
            method: .post, path: "/api/experts/{group}/{index}/" + path, summary: summary,
            parameters: Self.unit,
            body: .object([]), errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let index = try Self.index(served)
            let unit = try Self.unit(call, served.model.units)
            let places = try admission.take(1)
            defer { withExtendedLifetime(places) {} }
            return .json(
                try await call.context.whileConnected {
                    try await Cancellation.measure { try body(index, unit, served, $0) }
                })
        }
    }

    private var effects: Endpoint {
        measurement("effects", "The tokens that an expert promotes and suppresses, measured.") {
            index, unit, served, cancellation in
            try cancellation.check()
            guard let effects = try index.logitEffects(of: unit, model: served.model, backend: served.backend)
            else {
                return ["promoted": [], "suppressed": [], "places": 0]
            }
            return effects.json()
        }
    }

    private var contexts: Endpoint {
        measurement("contexts", "The dossier with the expert's score on every token of its contexts.") {
            index, unit, served, cancellation in
            var dossier = try index.dossier(of: unit, context: 12, activations: 12)
            try index.measureContexts(of: &dossier, model: served.model, backend: served.backend) { _, _ in
                !cancellation.isRequested
            }
            try cancellation.check()
            return try Self.json(dossier, index)
        }
    }

    private var explain: Endpoint {
        measurement("explain", "Ask the model what the expert stands for, and store its answers.") {
            index, unit, served, cancellation in
            try cancellation.check()
            let explainer = try SelfExplanation(
                model: served.model, tokenizer: served.tokenizer, backend: served.backend)
            let explanations = try explainer.explanations(of: unit, in: index, samples: 3)
            if index.isWritable { try index.replaceOwnExplanations(of: unit, by: explanations) }
            return [
                "explanations": .array(
                    explanations.map {
                        [
                            "text": .string($0.text), "prompt": .string($0.prompt),
                            "credible": .bool($0.isCredible),
                        ]
                    })
            ]
        }
    }
}
