import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

/// The index against a recount of every expert from probabilities in double precision.
@Suite struct ExpertIndexTests {
    /// Labelled documents of the model's tokens: lengths from 1 to beyond a window.
    static func documents(_ vocabulary: Int, in folder: String) throws -> LabelledDocuments {
        var lines = ""
        var source = SplitMix64(seed: 4)
        for number in 0..<11 {
            let words = (0..<(1 + number * 3)).map { _ in
                ["sea", "ship", "law", "the", "rock"][Int(source.next() % 5)]
            }
            let label = number % 4 == 3 ? "" : #", "kind": "\#(["sea", "law", "stone"][number % 4])""#
            let tongue = #", "tongue": "\#(number % 2 == 0 ? "en" : "de")", "value": \#(number % 3)"#
            lines += #"{"text": "\#(words.joined(separator: " "))"\#(label)\#(tongue)}"# + "\n"
        }
        try AtomicFile.write(lines, to: folder + "/lines.jsonl")
        return try LabelledDocuments(
            sources: [CorpusSource(path: folder + "/lines.jsonl")],
            tokenizer: Tokenizer(path: Fixture.path("text/trained.model")), labelKeys: ["kind", "tongue"],
            numberKey: "value")
    }

    static func model(_ kind: Family = .vertical) throws -> MonetLanguageModel {
        var c = smallConfiguration(kind)
        c.vocabularySize = try Tokenizer(path: Fixture.path("text/trained.model")).vocabularySize
        return try scrambledModel(c, seed: 21)
    }

    static func builder(
        _ model: MonetLanguageModel, _ documents: LabelledDocuments, batchTokens: Int = 40,
        window: Int = 12
    ) throws -> ExpertIndexBuilder {
        var settings = ExpertIndexBuilder.Settings()
        settings.top = 4
        settings.window = window
        settings.batchTokens = batchTokens
        return try ExpertIndexBuilder(
            model: model, modelPath: "none", tokenizer: Tokenizer(path: Fixture.path("text/trained.model")),
            documents: documents, settings: settings, backend: CPUBackend())
    }

    /// What one token does to one expert.
    private struct Event {
        let score: Double
        let document: Int
        let position: Int
        let order: UInt32
        let labels: [Int]
    }

    private func recount(_ model: MonetLanguageModel, _ documents: LabelledDocuments) -> [UnitID: [Event]] {
        let c = model.configuration
        let (side, heads) = (c.experts?.perSide ?? 0, c.experts?.heads ?? 0)
        let reference = ReferenceModel(model)
        var events: [UnitID: [Event]] = [:]
        var number: UInt32 = 0
        for document in 0..<documents.count {
            let tokens = documents.tokens(document)
            for start in stride(from: 0, to: tokens.count, by: 12) {
                let piece = Array(tokens[start..<min(tokens.count, start + 12)])
                let routings = reference([piece]).routings
                for (group, layer) in c.routerLayers.enumerated() {
                    guard let (left, right) = routings[layer] else { continue }
                    for token in piece.indices {
                        for i in 0..<side {
                            for j in 0..<side {
                                let score = (0..<heads).reduce(0.0) { sum, head in
                                    let row = (token * heads + head) * side
                                    return sum + left.values[row + i] * right.values[row + j]
                                }
                                guard score > 0 else { continue }
                                events[UnitID(group: group, index: i * side + j), default: []]
                                    .append(
                                        Event(
                                            score: score, document: document, position: start + token,
                                            order: GroupStatistics.order(number + UInt32(token)),
                                            labels: documents.labelNumbers(document)))
                            }
                        }
                    }
                }
                number += UInt32(piece.count)
            }
        }
        return events
    }

    /// Probabilities in float32 against doubles: 1e-5 of the value, as for logits elsewhere.
    @Test(arguments: [Family.vertical, .horizontal])
    func everyNumberAgreesWithARecount(kind: Family) throws {
        try withTemporaryFolder { folder in
            let model = try Self.model(kind)
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            #expect(try Self.builder(model, documents).build(at: folder + "/i.sqlite"))
            #expect(!FileManager.default.fileExists(atPath: folder + "/i.sqlite.partial"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            let events = recount(model, documents)
            let total = Double(documents.tokenCount)
            var labelTokens = [Double](repeating: 0, count: 5)
            for document in 0..<documents.count {
                for label in documents.labelNumbers(document) {
                    labelTokens[label] += Double(documents.tokenCount(document))
                }
            }
            #expect(index.labelSets.flatMap(\.labels).map { Double($0.tokens) } == labelTokens)
            #expect(index.tokens == documents.tokenCount && index.documents == 11)
            let side = try #require(model.units.perSide)
            for group in 0..<index.units.groups {
                for number in 0..<(side * side) {
                    let id = UnitID(group: group, index: number)
                    let own = events[id] ?? []
                    let dossier = try index.dossier(of: id, context: 0)
                    #expect(dossier.count == own.count, "\(id)")
                    guard !own.isEmpty else { continue }
                    let sum = own.reduce(0) { $0 + $1.score }
                    #expect(abs(dossier.mean - sum / total) < 1e-5 * sum / total)
                    #expect(dossier.frequency == Double(own.count) / total)
                    #expect(dossier.histogram.reduce(0, +) == own.count)
                    // Equal float scores may differ in doubles: compare scores, then the tokens that are clear.
                    let ordered = own.sorted { ($1.score, $0.order) < ($0.score, $1.order) }
                    for (place, activation) in dossier.activations.enumerated() {
                        #expect(abs(activation.score - ordered[place].score) < 1e-5)
                        #expect(
                            own.contains {
                                $0.document == activation.document && $0.position == activation.position
                                    && abs($0.score - activation.score) < 1e-5
                            })
                    }
                    #expect(dossier.activations.count == min(4, own.count))
                    try checkSamples(dossier, own)
                    #expect(abs(dossier.max - ordered[0].score) < 1e-5)
                    for (set, statistics) in dossier.labels.enumerated() {
                        for label in index.labelSets[set].labels {
                            let labelled = own.filter { $0.labels.contains(label.id) }
                            let mean = labelled.reduce(0) { $0 + $1.score } / labelTokens[label.id]
                            let found = try #require(statistics.labels.first { $0.name == label.name })
                            #expect(abs(found.mean - mean) <= 1e-5 * max(mean, 1e-3))
                            #expect(
                                abs(found.frequency - Double(labelled.count) / labelTokens[label.id]) < 1e-12)
                        }
                    }
                    try checkSpecialty(index, id, own, labelTokens)
                }
            }
        }
    }

    /// The samples of a band are its first three tokens in the random order.
    private func checkSamples(_ dossier: ExpertDossier, _ events: [Event]) throws {
        for band in dossier.samples {
            let own = events.filter { $0.score > band.lower ?? 0 && $0.score <= band.upper ?? .infinity }
            // At the ends of a band rounding decides.
            let ends = [band.lower, band.upper].compactMap(\.self)
            if events.contains(where: { event in ends.contains { abs($0 - event.score) < 1e-5 * $0 } }) {
                continue
            }
            #expect(band.count == own.count)
            let expected = own.sorted { $0.order < $1.order }.prefix(3)
            #expect(
                Set(band.activations.map { [$0.document, $0.position] })
                    == Set(expected.map { [$0.document, $0.position] }))
            #expect(band.activations.map(\.score) == band.activations.map(\.score).sorted(by: >))
        }
        #expect(dossier.samples.reduce(0) { $0 + $1.count } == events.count)
    }

    /// An expert is found under a label exactly if its mean there is twice every other's.
    private func checkSpecialty(
        _ index: ExpertIndex, _ id: UnitID, _ events: [Event], _ labelTokens: [Double]
    ) throws {
        for set in index.labelSets {
            let means = set.labels.map { label in
                events.filter { $0.labels.contains(label.id) }.reduce(0) { $0 + $1.score }
                    / labelTokens[label.id]
            }
            for (place, label) in set.labels.enumerated() {
                let others = means.indices.filter { $0 != place }.map { means[$0] }.max() ?? 0
                // On the edge rounding decides.
                if abs(means[place] - 2 * others) < 1e-6 { continue }
                let expected = means[place] > 0 && means[place] >= 2 * others
                for least in [1, 2, events.count, events.count + 1] {
                    let found = try index.specialists(of: label, SpecialistCriterion(minimumCount: least))
                    #expect(found.contains(id) == (expected && events.count >= least))
                }
                #expect(
                    try index.specialists(of: label).contains(id) == (expected && events.count >= 50))
            }
        }
    }

    /// Every token's score by a trace of the whole document, which is one window here.
    @Test func contextsAreMeasuredTokenByToken() throws {
        try withTemporaryFolder { folder in
            let model = try Self.model()
            let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            #expect(try Self.builder(model, documents, window: 64).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            var query = ExpertQuery()
            query.limit = 5
            var measured = 0
            for id in try index.find(query).map(\.expert) {
                var dossier = try index.dossier(of: id, context: 3)
                try index.measureContexts(of: &dossier, model: model)
                for activation in dossier.activations + dossier.samples.flatMap(\.activations) {
                    let ids = documents.tokens(activation.document)
                    let trace = try RoutingTrace(
                        of: ids, model: model, tokenizer: tokenizer, count: 1 << 20)
                    let scores = try #require(activation.scores)
                    #expect(scores.count == activation.pieces.count)
                    #expect(abs(scores[activation.place] - activation.score) < 1e-6)
                    for (offset, score) in scores.enumerated() {
                        let token = trace.tokens[activation.position - activation.place + offset]
                        #expect(token.text == activation.pieces[offset])
                        let known = token.groups[id.group].experts.first { $0.expert == id }
                        #expect(abs(score - (known?.score ?? 0)) < 1e-6)
                        measured += 1
                    }
                }
            }
            #expect(measured > 100)
        }
    }

    @Test func nearDuplicateContextsAreShownOnce() throws {
        try withTemporaryFolder { folder in
            let text = "the sea and the ship and the law of the rock and the stone"
            let lines = (0..<4).map {
                #"{"text": "\#(text)\#($0 == 3 ? " and the law" : "")", "label": "a"}"#
            }
            try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder + "/l.jsonl")
            let documents = try LabelledDocuments(
                sources: [CorpusSource(path: folder + "/l.jsonl")],
                tokenizer: Tokenizer(path: Fixture.path("text/trained.model")))
            let model = try Self.model()
            #expect(try Self.builder(model, documents, window: 64).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            let found = try index.find(ExpertQuery())
            var dropped = 0
            for id in found.map(\.expert) {
                let dossier = try index.dossier(of: id, context: 6)
                let contexts = dossier.activations.map { $0.pieces.joined() + "\($0.place)" }
                #expect(Set(contexts).count == contexts.count)
                #expect(dossier.activations.count + dossier.duplicates == min(4, dossier.count))
                dropped += dossier.duplicates
            }
            #expect(dropped > 0)
        }
    }

    @Test func aStoppedBuildGoesOnToTheSameIndex() throws {
        try withTemporaryFolder { folder in
            let model = try Self.model()
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            #expect(try Self.builder(model, documents).build(at: folder + "/whole.sqlite"))
            var batches = 0
            let path = folder + "/parts.sqlite"
            // Stops after every second batch, in the middle of documents too.
            for _ in 0..<100 where !FileManager.default.fileExists(atPath: path) {
                var left = 2
                let isComplete = try Self.builder(model, documents).build(at: path) { progress in
                    batches += 1
                    left -= 1
                    return progress.phase == .writing || left > 0
                }
                #expect(isComplete == FileManager.default.fileExists(atPath: path))
            }
            #expect(batches > 4)
            let (whole, parts) = (
                try ExpertIndex(path: folder + "/whole.sqlite"), try ExpertIndex(path: path)
            )
            let side = try #require(model.units.perSide)
            for group in 0..<whole.units.groups {
                for number in 0..<(side * side) {
                    let id = UnitID(group: group, index: number)
                    let (found, wanted) = (try parts.dossier(of: id), try whole.dossier(of: id))
                    #expect(found == wanted)
                }
            }
            #expect(throws: FileError.alreadyExists(path: path)) {
                try Self.builder(model, documents).build(at: path)
            }
            #expect(try Self.builder(model, documents).build(at: path, replacing: true))
        }
    }

    @Test func searchesFindWhatTheDossiersSay() throws {
        try withTemporaryFolder { folder in
            let model = try Self.model()
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            #expect(try Self.builder(model, documents).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite")
            var query = ExpertQuery()
            query.limit = 10_000
            let all = try index.find(query)
            #expect(all.map(\.frequency) == all.map(\.frequency).sorted(by: >))
            #expect(all.count > 50)
            query.minimumFrequency = 0.1
            query.sort = .max
            let frequent = try index.find(query)
            #expect(Set(frequent.map(\.expert)) == Set(all.filter { $0.frequency >= 0.1 }.map(\.expert)))
            #expect(frequent.map(\.max) == frequent.map(\.max).sorted(by: >))
            query = ExpertQuery()
            query.limit = 10_000
            query.label = try index.label("law")
            let law = try index.find(query)
            for found in law {
                let set = try #require(index.dossier(of: found.expert).labels.first)
                #expect(set.labels.first?.name == "law")
                if let ratio = set.ratio, let value = found.value {
                    #expect(abs(ratio - value) < 1e-4 * value)
                }
            }
            query.sort = .share
            #expect(throws: InsightError.self) { try index.find(query) }
            query = ExpertQuery()
            query.token = "ship"
            query.limit = 10_000
            let ship = try index.find(query)
            #expect(!ship.isEmpty)
            for found in ship {
                #expect(
                    try index.dossier(of: found.expert).activations.contains {
                        $0.token.trimmingCharacters(in: .whitespaces) == "ship"
                    })
            }
            let scores = try MeanScores(
                of: documents.tokens(8), model: model, backend: CPUBackend())
            let fired = try index.find(firedBy: scores.byUnit, limit: 5)
            #expect(fired.count == 5)
            for found in fired { #expect(found.value == scores.byUnit[found.expert]) }
            #expect(throws: InsightError.self) { try index.label("nothing") }
            #expect(throws: InsightError.self) { try index.labelSet("nothing") }
        }
    }

    @Test func foreignAndDamagedFilesAreRefused() throws {
        try withTemporaryFolder { folder in
            let model = try Self.model()
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            let path = folder + "/i.sqlite"
            #expect(try Self.builder(model, documents).build(at: path))
            let other = try Self.model(.horizontal)
            #expect(
                throws: InsightError.foreignIndex(
                    path: path, expected: other.fingerprint, found: model.fingerprint)
            ) { try ExpertIndex(path: path, model: other) }

            var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
            // The schema's version stands at byte 60, big-endian.
            bytes[63] = 9
            try AtomicFile.write(to: folder + "/older.sqlite") { try $0.write(bytes) }
            #expect(
                throws: InsightError.unsupportedSchema(
                    path: folder + "/older.sqlite", found: 9, expected: IndexSchema.version)
            ) { try ExpertIndex(path: folder + "/older.sqlite") }
            try AtomicFile.write(to: folder + "/cut.sqlite") { try $0.write(Array(bytes.prefix(5000))) }
            #expect(throws: InsightError.self) { try ExpertIndex(path: folder + "/cut.sqlite") }
            try AtomicFile.write("not a database, but long enough to be read as one", to: folder + "/text")
            #expect(throws: InsightError.self) { try ExpertIndex(path: folder + "/text") }
            #expect(throws: FileError.self) { try ExpertIndex(path: folder + "/nothing") }

            // An unfinished build of other settings or cut short.
            #expect(try !Self.builder(model, documents).build(at: folder + "/p.sqlite") { _ in false })
            #expect(throws: InsightError.self) {
                try Self.builder(model, documents, batchTokens: 41).build(at: folder + "/p.sqlite")
            }
            let partial = try Data(contentsOf: URL(fileURLWithPath: folder + "/p.sqlite.partial"))
            try partial.prefix(6000).write(to: URL(fileURLWithPath: folder + "/p.sqlite.partial"))
            #expect(throws: InsightError.self) {
                try Self.builder(model, documents).build(at: folder + "/p.sqlite")
            }
            #expect(try Self.builder(model, documents).build(at: folder + "/p.sqlite", replacing: true))
        }
    }

    /// Neurons of a dense model have an index as experts do: their means by label are those of `LabelStatistics`,
    /// float32 in the index.
    @Test func neuronsAreIndexed() throws {
        try withTemporaryFolder { folder in
            let model = try Self.model(.dense)
            let documents = try Self.documents(model.configuration.vocabularySize, in: folder)
            #expect(try Self.builder(model, documents, window: 64).build(at: folder + "/i.sqlite"))
            let index = try ExpertIndex(path: folder + "/i.sqlite", model: model)
            #expect(index.units == model.units && index.units.kind == .neurons)
            let statistics = try LabelStatistics(of: documents, model: model, backend: CPUBackend())
            for group in 0..<3 {
                for unit in 0..<50 {
                    let dossier = try index.dossier(of: UnitID(group: group, index: unit))
                    #expect(dossier.halves == nil && dossier.neighbours.isEmpty)
                    let set = try #require(dossier.labels.first)
                    for label in set.labels {
                        let place = try #require(statistics.labels.firstIndex(of: label.name))
                        let expected = statistics.means[group][unit * statistics.labels.count + place]
                        #expect(abs(label.mean - expected) < 1e-5 * max(1e-3, expected))
                    }
                    #expect(dossier.text().hasPrefix("neuron \(group)/\(unit)"))
                }
            }
            let label = try index.label(statistics.labels[0])
            let mask = try index.mask(of: label, SpecialistCriterion(ratio: 1.05))
            #expect(mask == statistics.specialists(of: 0, SpecialistCriterion(ratio: 1.05)) && mask.count > 0)
        }
    }

    @Test func aValueForEachDocumentIsNoLabel() throws {
        try withTemporaryFolder { folder in
            let lines = (0..<5000).map { #"{"text": "sea", "label": "\#($0)"}"# }
            try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder + "/l.jsonl")
            let documents = try LabelledDocuments(
                sources: [CorpusSource(path: folder + "/l.jsonl")],
                tokenizer: Tokenizer(path: Fixture.path("text/trained.model")))
            let model = try Self.model()
            for attempt in [
                { _ = try Self.builder(model, documents) },
                { _ = try LabelStatistics(of: documents, model: model) },
                { _ = try Monosemanticity(of: documents, model: model) },
            ] as [() throws -> Void] {
                let error = #expect(throws: InsightError.self) { try attempt() }
                #expect("\(error.map { "\($0)" } ?? "")".contains("the number of labels is 5,000"))
            }
        }
    }

    @Test func limitsTakeEquallyOfEveryLabel() throws {
        try withTemporaryFolder { folder in
            var lines = ""
            for number in 0..<60 {
                lines +=
                    #"{"text": "the sea and the ship \#(number)", "label": "\#(number < 50 ? "a" : "b")"}"#
                    + "\n"
            }
            try AtomicFile.write(lines, to: folder + "/l.jsonl")
            let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
            let sources = [CorpusSource(path: folder + "/l.jsonl")]
            let all = try LabelledDocuments(sources: sources, tokenizer: tokenizer)
            let some = try LabelledDocuments(sources: sources, tokenizer: tokenizer, limit: 100)
            func tokens(_ label: Int) -> Int {
                (0..<some.count).filter { some.labels($0) == [label] }.reduce(0) { $0 + some.tokenCount($1) }
            }
            #expect(all.count == 60 && some.tokenCount == 100)
            #expect(tokens(0) == 50 && tokens(1) == 50)
            let again = try LabelledDocuments(sources: sources, tokenizer: tokenizer, limit: 100)
            #expect(again.fingerprint == some.fingerprint && some.fingerprint != all.fingerprint)
        }
    }
}
