import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText
import MonetTraining
import TestSupport
import Testing

/// Documents of a label teach the experts reserved for it and no others.
@Suite struct ReservedExpertsTests {
    private static let corpusSize = 240

    /// A corpus of three labels, one of which most documents have.
    static func settings(in folder: String, _ family: Family) throws -> RunConfiguration {
        try AtomicFile.createFolder(folder)
        var run = try TrainerTests.settings(in: folder, feedForward: family)
        let lines = (0..<Self.corpusSize).map { number -> String in
            let label = ["sea", "sky", "sky", "land"][number % 4]
            return #"{"text": "Line \#(number) of \#(label): \#(number * 37 % 101).", "label": "\#(label)"}"#
        }
        try AtomicFile.write(lines.joined(separator: "\n"), to: folder + "/labelled.jsonl")
        run.corpus = folder + "/labelled"
        _ = try CorpusBuilder(
            tokenizer: Tokenizer(path: Fixture.path("text/trained.model")), validationShare: 0.1
        ).build([CorpusSource(path: folder + "/labelled.jsonl")], into: run.corpus)
        run.expertsOf = [.init(label: "sea", share: 0.1), .init(label: "land", share: 0.03)]
        return run
    }

    /// Activations computed twice give the same gradients, and no pass holds itself: each of them would stay.
    @Test(arguments: Device.allCases)
    func computedTwiceNothingStays(device: Device) throws {
        let c = smallConfiguration(.vertical)
        let reserved = try ReservedExperts(shares: [("sea", 0.1)], perSide: #require(c.experts).perSide)
        let model = try scrambledModel(c, seed: 12).moved(to: device.backend)
        var gradients: [[[Float]]] = []
        for recomputes in [false, true] {
            var input = ForwardInput([[5, 9, 13, 2, 40, 22, 7, 1], [3, 3, 31, 8, 60]])
            input.sequences[0].reserved = reserved.blocks[0]
            input.recomputesActivations = recomputes
            for goesBack in [true, false] {
                let variables = ParameterVariables()
                weak var probabilities: Variable?
                do {
                    let output = try model.forward(input, variables: variables, on: device.backend)
                    probabilities = output.routings.first?.left
                    #expect(probabilities != nil)
                    if goesBack {
                        _ = try model.crossEntropy(output, targets: (0..<13).map { Int32($0) })
                        try output.backward()
                        gradients.append(
                            try model.parameters.trainable.map {
                                try #require(variables.gradient(of: $0)).floats()
                            })
                    }
                }
                #expect(probabilities == nil, "recomputes \(recomputes), goes back \(goesBack)")
            }
        }
        #expect(gradients[0] == gradients[1])
    }

    @Test(arguments: [Family.vertical, .horizontal], Device.allCases)
    func onlyReservedExpertsLearn(family: Family, device: Device) throws {
        // Ten halves a side: a tenth of the pairs is three of them.
        let c = smallConfiguration(family)
        let perSide = try #require(c.experts).perSide
        let reserved = try ReservedExperts(shares: [("sea", 0.1), ("sky", 0.01)], perSide: perSide)
        #expect(reserved.blocks.map(\.halves) == [7..<10, 6..<7])
        let block = reserved.blocks[0]
        let model = try scrambledModel(c, seed: 12).moved(to: device.backend)
        let tokens: [[Int32]] = [[5, 9, 13, 2, 40, 22, 7, 1], [3, 3, 31, 8, 60]]
        func gradients(_ blocks: [ReservedExperts.Block?]) throws -> (
            hidden: [Float], gradients: [String: [Float]]
        ) {
            var input = ForwardInput(tokens)
            for (place, block) in blocks.enumerated() { input.sequences[place].reserved = block }
            let variables = ParameterVariables()
            let output = try model.forward(input, variables: variables, on: device.backend)
            let targets = tokens.flatMap { $0.map { ($0 + 3) % Int32(c.vocabularySize) } }
            _ = try model.crossEntropy(output, targets: targets)
            try output.backward()
            return (
                output.hidden.value.floats(),
                Dictionary(
                    uniqueKeysWithValues: try model.parameters.trainable.map {
                        ($0.name, try #require(variables.gradient(of: $0)).floats())
                    })
            )
        }
        let (all, one, both) = (
            try gradients([nil, nil]), try gradients([block, nil]), try gradients([block, block])
        )
        // What the model says does not depend on who learns from it.
        #expect(all.hidden == one.hidden && all.hidden == both.hidden)
        var (checked, reached) = (0, 0)
        for parameter in model.parameters.trainable
        where parameter.name.contains(".moe.") {
            let values = try #require(both.gradients[parameter.name])
            let shape = parameter.tensor.shape
            for (index, value) in values.enumerated() {
                // Down-projections have experts in their columns, everything else in its rows.
                let isDown =
                    parameter.role == .expert && shape[0] == c.hiddenSize / (family == .vertical ? 2 : 1)
                let place =
                    isDown
                    ? index % shape[1] * perSide / shape[1]
                    : index / (shape.count > 1 ? shape[1] : 1) * perSide / shape[0]
                if block.halves.contains(place) {
                    if value != 0 { reached += 1 }
                } else {
                    checked += 1
                    #expect(value == 0, "\(parameter.name)[\(index)] of half \(place)")
                }
            }
            #expect(one.gradients[parameter.name]?.contains { $0 != 0 } == true)
            #expect(one.gradients[parameter.name] != all.gradients[parameter.name], "\(parameter.name)")
        }
        #expect(checked > 1000 && reached > 100, "\(checked) \(reached)")
        // Routers learn to send the documents there, and away from other halves; attention learns from all.
        #expect(both.gradients["model.layers.0.router.w1.weight"]?.contains { $0 != 0 } == true)
        #expect(both.gradients["model.layers.0.self_attn.q_proj.weight"]?.contains { $0 != 0 } == true)
    }

    /// Windows are divided where documents of a reserved label begin and end, and nothing else changes.
    @Test func documentsAreSequencesOfTheirOwn() throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder, .vertical)
            let corpus = try Corpus(folder: run.corpus)
            let documents = try corpus.documents(in: .train)
            let names = corpus.labelSets[0].labels
            for length in [5, 16, 200] {
                let plain = try BatchStream(corpus: corpus, length: length, batchSize: 3, seed: 4)
                let stream = try BatchStream(
                    corpus: corpus, length: length, batchSize: 3, seed: 4, separating: ["sea", "land"])
                for number in 0..<20 {
                    let (whole, batch) = (plain.batch(number), stream.batch(number))
                    #expect(whole.labels.isEmpty && batch.labels.count == batch.inputs.count)
                    #expect(whole.targets == batch.targets)
                    #expect(whole.inputs.flatMap(\.self) == batch.inputs.flatMap(\.self))
                    #expect(batch.inputs.allSatisfy { !$0.isEmpty && $0.count <= length })
                }
                // The label of each token, found by reading the documents one after another.
                var expected = [String?](repeating: nil, count: corpus.tokenCount(.train))
                for document in documents where names[document.labels[0]] != "sky" {
                    for place in document.tokens { expected[place] = names[document.labels[0]] }
                }
                let all = corpus.tokens(in: .train, 0..<corpus.tokenCount(.train))
                var counts: [String?: Int] = [:]
                for number in 0..<20 {
                    let batch = stream.batch(number)
                    let tokens = batch.inputs.flatMap(\.self)
                    let labels = zip(batch.inputs, batch.labels).flatMap { input, label in
                        input.map { _ in label }
                    }
                    for window in 0..<3 {
                        let own = Array(tokens[(window * length)..<((window + 1) * length)])
                        let places = (0...(all.count - length)).filter {
                            all[$0..<($0 + length)].elementsEqual(own)
                        }
                        let found = Array(labels[(window * length)..<((window + 1) * length)])
                        #expect(places.contains { Array(expected[$0..<($0 + length)]) == found })
                        for label in found { counts[label, default: 0] += 1 }
                    }
                }
                #expect(counts.count == 3, "\(counts)")
            }
            #expect(throws: TextError.self) {
                try BatchStream(corpus: corpus, length: 5, batchSize: 1, seed: 0, separating: ["fog"])
            }
        }
    }

    /// A run reserves experts, stores which, and does so alike with several processes and after a pause.
    @Test func runsKeepWhatTheyReserve() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder, .vertical)
            run.expertsOf = [.init(label: "sea", share: 0.1)]
            try TrainerTests.train(run, folder + "/run")
            let path = folder + "/run/latest"
            try TrainerTests.train(run, folder + "/paused", stopAfter: 5)
            try TrainerTests.train(run, folder + "/paused", resuming: true)
            let reserved = try #require(try ReservedExperts(folder: path))
            // Six halves a side: a tenth of the pairs is √0.1 · 6 ≈ 2 halves.
            #expect(reserved.blocks == [.init(label: "sea", halves: 4..<6)] && reserved.perSide == 6)
            #expect(try RunDirectory(path: folder + "/run").configuration().expertsOf == run.expertsOf)
            let model = try MonetLanguageModel.load(path)
            let mask = try reserved.mask(label: "sea", of: model.units)
            #expect(mask.entries(group: 0).map(\.index) == [28, 29, 34, 35])
            let wide = try reserved.mask(label: "sea", withHalves: true, of: model.units)
            #expect(wide.count == 36 - 16 && wide.intersection(mask).count == 4)
            #expect(throws: ModelError.self) { try reserved.mask(label: "fog", of: model.units) }
            let weights = try [folder + "/run/latest", folder + "/paused/latest"].map {
                try Data(contentsOf: URL(fileURLWithPath: $0 + "/model.safetensors"))
            }
            #expect(weights[0] == weights[1])
            var plain = run
            plain.expertsOf = []
            try TrainerTests.train(plain, folder + "/plain")
            #expect(
                try Data(contentsOf: URL(fileURLWithPath: folder + "/plain/latest/model.safetensors"))
                    != weights[0])
            // A run keeps what it reserves, and another one that begins with its model does not inherit it.
            var other = run
            other.expertsOf = [.init(label: "land", share: 0.1)]
            #expect(throws: TrainingError.self) {
                try TrainerTests.train(other, folder + "/run", resuming: true)
            }
            other = plain
            other.initialCheckpoint = folder + "/run/latest"
            try TrainerTests.train(other, folder + "/next")
            #expect(try ReservedExperts(folder: folder + "/next/latest") == nil)
            #expect(try ReservedExperts(folder: folder + "/plain/latest") == nil)
        }
    }

    @Test func whatCannotBeReservedIsRefused() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder, .dense)
            #expect(throws: TrainingError.self) { try run.validate(source: "run") }
            run = try Self.settings(in: folder + "/v", .vertical)
            run.expertsOf = [.init(label: "sea", share: 0.5), .init(label: "land", share: 0.5)]
            #expect(throws: TrainingError.self) { try run.validate(source: "run") }
            for bad in [#"{"sea": 0}"#, #"{"sea": "x"}"#, #"["sea"]"#, #"{"": 0.1}"#, #"{"sea": 0.6}"#] {
                #expect(throws: TrainingError.self, "\(bad)") {
                    try run.set("experts_of", to: JSONValue(parsing: bad, source: "test"), source: "test")
                }
            }
            // A label whose documents are all held out.
            let lines = (0..<40).map { #"{"text": "Line \#($0) of the sky.", "label": "sky"}"# }
            for seed in 0..<40 {
                let path = "\(folder)/rare-\(seed)"
                try AtomicFile.write(
                    (lines + [#"{"text": "One line of the sea.", "label": "sea"}"#]).joined(separator: "\n"),
                    to: path + ".jsonl")
                _ = try CorpusBuilder(
                    tokenizer: Tokenizer(path: Fixture.path("text/trained.model")), validationShare: 0.3,
                    seed: UInt64(seed)
                ).build([CorpusSource(path: path + ".jsonl")], into: path)
                let corpus = try Corpus(folder: path)
                let hasSea = try corpus.documents(in: .train).contains { document in
                    zip(corpus.labelSets, document.labels).contains { $1 >= 0 && $0.labels[$1] == "sea" }
                }
                func stream() throws -> BatchStream {
                    try BatchStream(corpus: corpus, length: 8, batchSize: 1, seed: 0, separating: ["sea"])
                }
                if hasSea {
                    _ = try stream()
                } else {
                    #expect(throws: TextError.self) { try stream() }
                    break
                }
                #expect(seed < 39, "every split trains on the line of the sea")
            }
            for bad in [
                #"{"experts_per_side": 4294967296, "labels": {"a": {"first": 0, "count": 1}}}"#,
                #"{"experts_per_side": 6, "labels": {"a": {"first": 0, "count": 4000000000000}}}"#,
                "{}", #"{"experts_per_side": 6, "labels": {"a": {"first": 5, "count": 2}}}"#,
                #"{"experts_per_side": 6, "labels": {"a": {"first": 3, "count": 2}, "b": {"first": 4, "count": 1}}}"#,
            ] {
                try AtomicFile.write(bad, to: folder + "/reserved_experts.json")
                #expect(throws: ModelError.self, "\(bad)") { try ReservedExperts(folder: folder) }
            }
        }
    }
}
