import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import TestSupport
import Testing

/// Activations against a recount: every window alone, through the decoder in double precision.
@Suite struct ActivationTests {
    private var documents: LabelledDocuments {
        var source = TensorSource(seed: 5)
        return LabelledDocuments(
            tokens: [5, 1, 23, 0, 8, 16, 3].map { source.ids($0, below: 67) }, origin: "test")
    }

    private func windows(_ document: Int, _ window: Int) -> [[Int32]] {
        let tokens = documents.tokens(document)
        return stride(from: 0, to: tokens.count, by: window).map {
            Array(tokens[$0..<min(tokens.count, $0 + window)])
        }
    }

    private func read(_ reader: ActivationReader) async throws -> [DocumentActivations] {
        var all: [DocumentActivations] = []
        for try await document in reader { all.append(document) }
        return all
    }

    /// Scores of all units of one window, from the definition.
    private func scores(_ model: MonetLanguageModel, _ tokens: [Int32], _ strengths: [Int: [Int: Double]])
        -> [Int: [Int: [Int: Double]]]
    {
        let routings = ReferenceModel(model)([tokens], strengths: strengths).routings
        var result: [Int: [Int: [Int: Double]]] = [:]
        let settings = model.configuration.experts ?? ExpertSettings()
        for (layer, routing) in routings {
            let group = layer / settings.layersPerRouter
            for token in tokens.indices {
                for head in 0..<settings.heads {
                    let row = (token * settings.heads + head) * settings.perSide
                    for i in 0..<settings.perSide {
                        for j in 0..<settings.perSide {
                            let unit = i * settings.perSide + j
                            let score =
                                routing.left.values[row + i] * routing.right.values[row + j]
                                * (strengths[group]?[unit] ?? 1)
                            if score > 0 {
                                result[token, default: [:]][group, default: [:]][unit, default: 0] += score
                            }
                        }
                    }
                }
            }
        }
        return result
    }

    @Test(arguments: [Family.vertical, .horizontal], [3, 12, 1000])
    func scoresAreThoseOfARecount(family: Family, batchTokens: Int) async throws {
        let isEdited = batchTokens != 1000
        let model = try scrambledModel(smallConfiguration(family), seed: 3)
        var mask = UnitMask(model.units)
        var strengths: [Int: [Int: Double]] = [:]
        if isEdited {
            mask.set((0..<40).map { (index: 2 * $0, strength: $0 % 2 == 0 ? 0 : 2) }, group: 1)
            strengths[1] = Dictionary(uniqueKeysWithValues: (0..<40).map { (2 * $0, $0 % 2 == 0 ? 0 : 2.0) })
        }
        let chosen = [UnitID(group: 0, index: 11), UnitID(group: 1, index: 4), UnitID(group: 1, index: 99)]
        for units in [ActivationSelection.Units.all, .these(chosen)] {
            let reader = try ActivationReader(
                model: model, documents: documents, ActivationSelection(units: units), mask: mask, window: 7,
                batchTokens: batchTokens)
            let found = try await read(reader)
            #expect(found.map(\.document) == [0, 1, 2, 4, 5, 6], "an empty document has nothing")
            for document in found {
                var expected: [Int: [Int: [Int: Double]]] = [:]
                for (place, tokens) in windows(document.document, 7).enumerated() {
                    for (token, own) in scores(model, tokens, strengths) { expected[7 * place + token] = own }
                }
                var count = 0
                for entry in 0..<document.scores.count {
                    let (token, group, unit) = (
                        Int(document.scores.tokens[entry]), Int(document.scores.groups[entry]),
                        Int(document.scores.units[entry])
                    )
                    let score = expected[token]?[group]?[unit] ?? 0
                    // Float32 softmax: 1e-5 of a score of at most the number of heads.
                    #expect(abs(Double(document.scores.scores[entry]) - score) < 1e-5)
                    count += 1
                }
                let all = expected.values.flatMap { groups in
                    groups.flatMap { group, units in units.keys.map { UnitID(group: group, index: $0) } }
                }
                #expect(count == (units == .all ? all.count : all.count { chosen.contains($0) }))
                let order = zip(document.scores.tokens, document.scores.groups).map { Int($0) * 10 + Int($1) }
                #expect(order == order.sorted())
            }
        }
    }

    @Test(arguments: Family.allCases)
    func hookValuesAreThoseOfEachWindowAlone(family: Family) async throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 3)
        let hooks = model.hookPoints
        let reader = try ActivationReader(
            model: model, documents: documents, ActivationSelection(hooks: hooks), window: 7, batchTokens: 30)
        let found = try await read(reader)
        #expect(found.count == 6)
        let device = ReferenceBackend()
        let reference = try model.moved(to: device)
        for document in found {
            #expect(document.scores.count == 0)
            var expected: [HookPoint: [Double]] = [:]
            for tokens in windows(document.document, 7) {
                var input = ForwardInput([tokens])
                input.hooks.observed = Set(hooks)
                for (point, value) in try reference.forward(input, on: device).observations {
                    let values = value.value.floats().map(Double.init)
                    guard point.kind == .pattern else {
                        expected[point, default: []] += values
                        continue
                    }
                    for row in 0..<(values.count / tokens.count) {
                        expected[point, default: []] += values[(row * tokens.count)...].prefix(tokens.count)
                        expected[point, default: []] += [Double](repeating: 0, count: 7 - tokens.count)
                    }
                }
            }
            for point in hooks {
                let own = try #require(document.values[point])
                #expect(own.values.count == document.tokens.count * own.shape.reduce(1, *))
                #expect(relativeError(own.values.map(Double.init), expected[point] ?? []) < 1e-4, "\(point)")
            }
        }
    }

    /// A stopped export goes on where it was, and ends as one that ran through.
    @Test(arguments: ActivationExport.Format.allCases)
    func exportsResume(format: ActivationExport.Format) throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
        let hooks = [HookPoint(.residPost, layer: 1), HookPoint(.z, layer: 0)]
        func export(_ window: Int = 7) throws -> ActivationExport {
            try ActivationExport(
                ActivationReader(
                    model: model, documents: documents, ActivationSelection(units: .all, hooks: hooks),
                    window: window, batchTokens: 10), format: format, shardBytes: 4000, modelPath: "model")
        }
        try withTemporaryFolder { folder in
            #expect(try export().write(to: folder + "/whole"))
            var count = 0
            let isComplete = try export().write(to: folder + "/parts") { _ in
                count += 1
                return count < 3
            }
            #expect(!isComplete)
            #expect(throws: InsightError.self) { try export(6).write(to: folder + "/parts") }
            var runs = 0
            while !(try export().write(to: folder + "/parts", progress: { _ in false })) {
                runs += 1
                try #require(runs < 20, "every run must come further")
            }
            let contents = try ["whole", "parts"].map { name -> [String: [Double]] in
                let manifest = try JSONValue(contentsOfFile: folder + "/\(name)/manifest.json")
                #expect(manifest["is_complete"] == true)
                #expect(manifest["tokens"]?.intValue == 56)
                guard format == .safetensors else { return [:] }
                var all: [String: [Double]] = [:]
                var before = 0
                for shard in manifest["shards"]?.arrayValue ?? [] {
                    let file = try SafetensorsFile(
                        path: folder + "/\(name)/" + (shard["file"]?.stringValue ?? ""))
                    for entry in file.entries where entry.name != "offsets" {
                        let tensor = try file.tensor(entry.name)
                        let values =
                            tensor.dtype == .float32
                            ? tensor.floats().map(Double.init) : tensor.integers().map(Double.init)
                        let shift = entry.name == "scores.token" ? Double(before) : 0
                        all[entry.name, default: []] += values.map { $0 + shift }
                    }
                    before += shard["tokens"]?.intValue ?? 0
                }
                return all
            }
            #expect(contents[0] == contents[1])
            #expect(throws: FileError.self) { try export().write(to: folder + "/whole") }
            #expect(try export().write(to: folder + "/whole", replacing: true))
        }
    }

    @Test func badInput() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 3)
        func reader(_ selection: ActivationSelection, window: Int? = nil) throws -> ActivationReader {
            try ActivationReader(model: model, documents: documents, selection, window: window)
        }
        #expect(throws: ModelError.self) {
            try reader(ActivationSelection(hooks: [HookPoint(.residPost, layer: 9)]))
        }
        #expect(throws: InsightError.self) {
            try reader(ActivationSelection(units: .these([UnitID(group: 5, index: 0)])))
        }
        #expect(throws: InsightError.self) { try reader(ActivationSelection(units: .all), window: 65) }
        let twice = try reader(
            ActivationSelection(hooks: [HookPoint(.z, layer: 0), HookPoint(.z, layer: 0)]))
        #expect(twice.selection.hooks.count == 1, "a hook point named twice is taken once")
        try withTemporaryFolder { folder in
            let export = try ActivationExport(twice, modelPath: "model")
            for (text, isReplaced) in [("{", true), ("{\"name\": \"mine\"}", false)] {
                try AtomicFile.write(text, to: folder + "/manifest.json")
                #expect(throws: (any Error).self) { try export.write(to: folder) }
                if isReplaced {
                    #expect(try export.write(to: folder, replacing: true))
                } else {
                    #expect(throws: InsightError.self) { try export.write(to: folder, replacing: true) }
                    #expect(try String(contentsOfFile: folder + "/manifest.json", encoding: .utf8) == text)
                }
            }
        }
        let foreign = LabelledDocuments(tokens: [[1, 500]], origin: "x")
        var iterator = try ActivationReader(
            model: model, documents: foreign, ActivationSelection(units: .all)
        )
        .documents(from: 0)
        #expect(throws: InsightError.self) { try iterator.nextDocument() }
    }
}
