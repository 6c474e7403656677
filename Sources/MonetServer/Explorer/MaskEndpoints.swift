import Foundation
import HTTPTypes
import Hummingbird
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// Masks listed, read, saved and measured.
struct MaskEndpoints: Sendable {
    let holder: ModelHolder
    let admission: Admission

    var all: [Endpoint] { [list, read, save, file, damage] }

    /// The most experts that are sent one by one.
    private static let mostListed = 100_000

    private static let strengths = Schema.Field(
        "strengths", .map(.number(0...1000), keys: .unit, most: 300_000),
        "Strengths by group/index: 0 removes, 1 leaves unchanged, 2 doubles.", isRequired: true)

    private static func mask(_ call: Endpoint.Call, _ served: ServedModel) throws -> UnitMask {
        var object: [JSONValue.Member] = []
        if let strengths = call.body["strengths"] { object.append(.init("strengths", strengths)) }
        if let masks = call.body["masks"], !masks.isNull { object.append(.init("masks", masks)) }
        guard let mask = try MonetExtension(.object(object), served).mask else {
            throw APIError.invalid("strengths", "there are no experts to edit")
        }
        return mask
    }

    private var list: Endpoint {
        Endpoint(method: .get, path: "/api/masks", summary: "The masks that requests can name.") { _ in
            let served = try holder.model()
            let saved = Set(served.folderOfMasks?.names() ?? [])
            return .json([
                "masks": .array(
                    try served.maskNames.map { name in
                        [
                            "name": .string(name), "model": .string(served.name + ":" + name),
                            "experts": .integer(try served.mask(named: name)?.count ?? 0),
                            "is_saved": .bool(saved.contains(name)),
                        ]
                    })
            ])
        }
    }

    private var read: Endpoint {
        Endpoint(
            method: .get, path: "/api/masks/{name}", summary: "The experts of a mask with their strengths.",
            parameters: [
                .init(
                    name: "name", place: .path, schema: .string(lengths: 1...200),
                    description: "The mask's name.")
            ], errors: [.notFound]
        ) { call in
            let served = try holder.model()
            let name = call.parameters["name"]?.stringValue ?? ""
            guard let mask = try served.mask(named: name) else {
                throw APIError(.notFound, "there is no mask '\(name)'", param: "name", code: "mask_not_found")
            }
            var members: [JSONValue.Member] = []
            for group in mask.groups {
                for entry in mask.entries(group: group) where members.count < Self.mostListed {
                    members.append(.init("\(group)/\(entry.index)", .number(Double(entry.strength))))
                }
            }
            return .json([
                "name": .string(name), "experts": .integer(mask.count), "strengths": .object(members),
                "is_complete": .bool(members.count == mask.count),
            ])
        }
    }

    private var save: Endpoint {
        Endpoint(
            method: .post, path: "/api/masks", summary: "Save a mask file, which is then a model of its own.",
            body: .object([
                .init(
                    "name", .string(pattern: .maskName), "The file's name without .mask.",
                    isRequired: true),
                Self.strengths,
                .init("overwrite", .boolean, "Whether to replace a mask of this name."),
            ]), errors: [.conflict]
        ) { call in
            let served = try holder.model()
            guard let folder = served.folderOfMasks else {
                throw APIError(
                    .forbidden, "the server saves no masks; start it with --mask-dir", code: "read_only")
            }
            let name = call.body["name"]?.stringValue ?? ""
            let path = try folder.file(name)
            guard !served.masks.contains(where: { $0.name == name }) else {
                throw APIError(
                    .conflict, "the mask '\(name)' was given to the server's command", param: "name",
                    code: "mask_exists")
            }
            let exists = FileManager.default.fileExists(atPath: path) || served.maskNames.contains(name)
            guard !exists || call.body["overwrite"]?.boolValue ?? false else {
                throw APIError(.conflict, "there is a mask '\(name)'", param: "name", code: "mask_exists")
            }
            let mask = try Self.mask(call, served)
            try Self.file(mask, served).write(to: path)
            return .json([
                "name": .string(name), "model": .string(served.name + ":" + name),
                "experts": .integer(mask.count),
            ])
        }
    }

    private static func file(_ mask: UnitMask, _ served: ServedModel) -> MaskFile {
        MaskFile(mask: mask, model: served.model.fingerprint, recipe: ["command": "explorer"])
    }

    private var file: Endpoint {
        Endpoint(
            method: .post, path: "/api/mask-file", summary: "A mask as a file.",
            body: .object([Self.strengths]), answers: ["application/octet-stream"]
        ) { call in
            let served = try holder.model()
            let mask = try Self.mask(call, served)
            let folder = FileManager.default.temporaryDirectory.appendingPathComponent("monet-mask-\(UUID())")
                .path
            try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
            defer { try? FileManager.default.removeItem(atPath: folder) }
            try Self.file(mask, served).write(to: folder + "/own.mask")
            let data = FileManager.default.contents(atPath: folder + "/own.mask") ?? Data()
            return Response(
                status: .ok,
                headers: [
                    .contentType: "application/octet-stream",
                    .contentDisposition: "attachment; filename=\"edited.mask\"",
                ], body: ResponseBody(byteBuffer: ByteBuffer(bytes: data)))
        }
    }

    private var damage: Endpoint {
        Endpoint(
            method: .post, path: "/api/damage",
            summary:
                "What an edit costs on held-out texts: loss and next-token accuracy with and without it.",
            body: .object([
                .init(
                    "strengths", .map(.number(0...1000), keys: .unit, most: 300_000),
                    "Strengths by group/index."),
                .init("masks", .array(.string(lengths: 1...200), counts: 0...64), "Names of masks."),
                .init("tokens", .integer(100...10_000_000), "Tokens to measure on; 20,000 by default."),
            ]), answers: ["text/event-stream"], errors: [.notFound]
        ) { call in
            let served = try holder.model()
            guard let corpus = served.explorer.corpus else {
                throw APIError(
                    .notFound, "the server has no held-out texts; start it with --corpus", code: "no_corpus")
            }
            let mask = try Self.mask(call, served)
            let places = try admission.take(1)
            let limit = call.body["tokens"]?.intValue ?? 20_000
            return .events(call.context, keeping: places) { events in
                let (progress, continuation) = AsyncStream<JSONValue>.makeStream(
                    bufferingPolicy: .bufferingNewest(1))
                async let result = Cancellation.measure { cancellation in
                    defer { continuation.finish() }
                    return try Self.damage(served, corpus, mask, limit, cancellation) {
                        continuation.yield($0)
                    }
                }
                for await step in progress { try await events.send(step) }
                try await events.send(try await result)
            }
        }
    }

    /// Scores of every label without and with a mask, on documents of about `limit` tokens.
    private static func damage(
        _ served: ServedModel, _ corpus: Corpus, _ mask: UnitMask, _ limit: Int,
        _ cancellation: Cancellation, _ progress: @escaping (JSONValue) -> Void
    ) throws -> JSONValue {
        let sample = try LabelledDocuments(corpus: corpus, split: .validation, limit: limit)
        let scorer = HeldOutScorer(model: served.model, backend: served.backend)
        let total = 2 * sample.tokenCount
        var done = 0
        func step(_ tokens: Int) -> Bool {
            done += tokens
            progress(["done": .integer(min(done, total)), "total": .integer(total)])
            return !cancellation.isRequested
        }
        func json(_ score: HeldOutScore) -> JSONValue {
            [
                "tokens": .integer(score.tokens), "loss": .number(score.loss),
                "accuracy": .number(score.accuracy),
            ]
        }
        guard let set = sample.labelSets.first else {
            let before = try scorer.total(sample, progress: step)
            let after = try scorer.total(sample, mask: mask, progress: step)
            try cancellation.check()
            return ["all": ["before": json(before), "after": json(after)], "labels": []]
        }
        let before = try scorer.scores(sample, progress: step)
        let after = try scorer.scores(sample, mask: mask, progress: step)
        try cancellation.check()
        let labels = set.labels.indices.filter { before[$0].tokens > 0 }.map { place -> JSONValue in
            ["label": .string(set.labels[place]), "before": json(before[place]), "after": json(after[place])]
        }
        return [
            "all": [
                "before": json(before.reduce(HeldOutScore(), +)),
                "after": json(after.reduce(HeldOutScore(), +)),
            ],
            "labels": .array(labels),
        ]
    }
}

/// Reports found in the folder of results.
struct ResultEndpoints: Sendable {
    let holder: ModelHolder

    var all: [Endpoint] { [list, file] }

    private func folder() throws -> ResultFolder {
        guard let path = try holder.model().explorer.resultFolder else {
            throw APIError(
                .notFound, "the server has no results; start it with --results", code: "no_results")
        }
        return ResultFolder(path: path)
    }

    private var list: Endpoint {
        Endpoint(
            method: .get, path: "/api/results", summary: "Reports in the folder of results.",
            errors: [.notFound]
        ) { _ in
            .json([
                "files": .array(
                    try folder().files().map {
                        ["name": .string($0.name), "type": .string($0.type), "bytes": .integer($0.bytes)]
                    })
            ])
        }
    }

    private var file: Endpoint {
        Endpoint(
            method: .get, path: "/api/results/file", summary: "One of the reports.",
            parameters: [
                .init(
                    name: "name", place: .query, schema: .string(lengths: 1...1000),
                    description: "Its name in the list.")
            ],
            answers: [
                "application/json", "text/html", "image/svg+xml", "text/csv", "text/plain", "image/png",
            ], errors: [.notFound]
        ) { call in
            let name = call.parameters["name"]?.stringValue ?? ""
            guard let (file, data) = try folder().content(name) else {
                throw APIError(.notFound, "there is no result '\(name)'", param: "name", code: "not_found")
            }
            return Response(
                status: .ok,
                headers: [
                    .contentType: file.type + (file.type.hasPrefix("image/png") ? "" : "; charset=utf-8"),
                    // Pages of others: their styles may be inline, nothing of them may run or be fetched.
                    .contentSecurityPolicy:
                        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox allow-popups",
                ], body: ResponseBody(byteBuffer: ByteBuffer(bytes: data)))
        }
    }
}
