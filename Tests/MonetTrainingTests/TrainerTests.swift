import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining
import TestSupport
import Testing

@Suite struct TrainerTests {
    static let backend = CPUBackend(pool: WorkerPool(threadCount: 2))

    /// A small corpus and settings for a run on it.
    static func settings(in folder: String, feedForward: Family = .vertical) throws
        -> RunConfiguration
    {
        let source = folder + "/text.jsonl"
        var lines = ""
        for number in 0..<300 {
            lines +=
                "{\"text\": \"Sentence \(number) says that \(number * 37 % 101) follows \(number * 53 % 97).\"}\n"
        }
        try AtomicFile.write(lines, to: source)
        if !FileManager.default.fileExists(atPath: folder + "/corpus") {
            _ = try CorpusBuilder(
                tokenizer: Tokenizer(path: Fixture.path("text/trained.model")), validationShare: 0.1
            ).build(
                [CorpusSource(path: source)], into: folder + "/corpus")
        }
        var run = RunConfiguration()
        var model = MonetConfiguration()
        (model.vocabularySize, model.hiddenSize, model.layerCount) = (4096, 16, 2)
        (model.attentionHeads, model.keyValueHeads, model.headWidth) = (2, 2, 8)
        model.maxPositionEmbeddings = 32
        let experts = ExpertSettings(width: 4, heads: 2, perSide: 6, topK: 2, layersPerRouter: 2)
        switch feedForward {
        case .vertical: model.feedForward = VerticalExperts(experts)
        case .horizontal: model.feedForward = HorizontalExperts(experts)
        case .dense: model.feedForward = DenseFeedForward(intermediateSize: 24)
        }
        run.model = model
        run.corpus = folder + "/corpus"
        (run.sequenceLength, run.batchSize, run.accumulation, run.steps) = (16, 3, 2, 12)
        (run.learningRate, run.warmupSteps, run.precision) = (1e-2, 3, .float32)
        (run.logEvery, run.evaluateEvery, run.evaluationBatches, run.saveEvery, run.keepLast) = (
            1, 4, 2, 3, 2
        )
        return run
    }

    /// Trains and returns the last checkpoint.
    @discardableResult
    static func train(
        _ run: RunConfiguration, _ folder: String, resuming: Bool = false, stopAfter: Int? = nil,
        on backend: any Backend = backend
    ) throws -> Trainer.Outcome {
        let trainer = try Trainer(
            run, directory: RunDirectory(path: folder), resuming: resuming, backend: backend)
        var steps = 0
        return try trainer.run(
            shouldStop: { steps == stopAfter },
            report: { if case .progress = $0 { steps += 1 } })
    }

    private func bytes(_ path: String) throws -> [UInt8] {
        [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    }

    @Test(arguments: Family.allCases)
    func aStoppedRunResumesBitForBit(feedForward: Family) throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder, feedForward: feedForward)
            #expect(
                try Self.train(run, folder + "/whole")
                    == .finished(checkpoint: folder + "/whole/checkpoints/step-00000012"))
            // Stopped twice: once between saves, once right after one.
            #expect(
                try Self.train(run, folder + "/torn", stopAfter: 5)
                    == .interrupted(step: 5, checkpoint: folder + "/torn/checkpoints/step-00000005"))
            #expect(
                try Self.train(run, folder + "/torn", resuming: true, stopAfter: 4)
                    == .interrupted(step: 9, checkpoint: folder + "/torn/checkpoints/step-00000009"))
            try Self.train(run, folder + "/torn", resuming: true)
            for name in ["model.safetensors", "optimizer.safetensors", "trainer_state.json", "config.json"] {
                #expect(
                    try bytes(folder + "/whole/checkpoints/step-00000012/" + name)
                        == bytes(folder + "/torn/checkpoints/step-00000012/" + name), "\(name)")
            }
            // One file of events with every step once: all of its records have a fixed length.
            let events = try ["/whole", "/torn"].map { run in
                try FileManager.default.contentsOfDirectory(atPath: folder + run)
                    .filter { $0.hasPrefix("events.") }.map { try bytes(folder + run + "/" + $0).count }
            }
            #expect(events[0].count == 1 && events[0] == events[1])
            // Losses of every step are the same too, and none is there twice.
            func losses(_ name: String) throws -> [String] {
                try TextFile.read(folder + name + "/metrics.jsonl").split(separator: "\n").compactMap {
                    line in
                    let json = try JSONValue(parsing: String(line), source: name)
                    return json["loss"].map { "\(json["step"]?.intValue ?? -1) \($0.serialized())" }
                }
            }
            let (found, wanted) = (try losses("/torn"), try losses("/whole"))
            #expect(found == wanted)
            #expect(wanted.count == 12)
        }
    }

    /// A whole run on another device than the processor ends with the same weights, up to rounding.
    @Test(arguments: Family.allCases)
    func anotherDeviceTrainsTheSame(feedForward: Family) throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder, feedForward: feedForward)
            run.steps = 4
            try Self.train(run, folder + "/processor")
            try Self.train(run, folder + "/reference", on: Device.reference.backend)
            let (a, b) = (
                try MonetLanguageModel.load(
                    folder + "/processor/checkpoints/step-00000004", for: .training),
                try MonetLanguageModel.load(
                    folder + "/reference/checkpoints/step-00000004", for: .training)
            )
            // Sums differ in their order: Adam divides by small second moments and enlarges that.
            for (x, y) in zip(a.parameters.trainable, b.parameters.trainable) {
                #expect(relativeError(x.tensor, y.tensor) < 1e-3, "\(x.name)")
            }
        }
    }

    /// A save that was killed leaves a half-written folder, which nothing takes for a checkpoint.
    @Test func leftoversOfAKilledSaveAreIgnored() throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder)
            try Self.train(run, folder + "/whole")
            try Self.train(run, folder + "/torn", stopAfter: 7)
            let left = folder + "/torn/checkpoints/step-00000008.tmp-1"
            try FileManager.default.createDirectory(atPath: left, withIntermediateDirectories: true)
            try Data([1, 2, 3]).write(to: URL(fileURLWithPath: left + "/model.safetensors"))
            // And the line of metrics that was being written.
            let metrics = folder + "/torn/metrics.jsonl"
            try AtomicFile.write(TextFile.read(metrics) + "{\"step\": 8, \"lo", to: metrics)
            #expect(RunDirectory(path: folder + "/torn").checkpoints().last?.step == 7)
            try Self.train(run, folder + "/torn", resuming: true)
            #expect(!FileManager.default.fileExists(atPath: left))
            #expect(
                try bytes(folder + "/whole/checkpoints/step-00000012/model.safetensors")
                    == bytes(folder + "/torn/checkpoints/step-00000012/model.safetensors"))
        }
    }

    /// Killed before its first checkpoint, a run starts again from its settings.
    @Test func resumesWithoutACheckpoint() throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder)
            let directory = RunDirectory(path: folder + "/torn")
            func start(failing fails: (Trainer.Event) -> Bool) throws {
                let trainer = try Trainer(run, directory: directory, resuming: false, backend: Self.backend)
                _ = try trainer.run(report: { if fails($0) { throw CancellationError() } })
            }
            // A run that never came to its start leaves nothing, and one that did can be resumed.
            _ = try Trainer(run, directory: directory, resuming: false, backend: Self.backend)
            #expect(!directory.exists)
            #expect(throws: CancellationError.self) {
                try start {
                    if case .started = $0 { true } else { false }
                }
            }
            #expect(directory.exists && directory.checkpoints().isEmpty)
            try Self.train(run, folder + "/torn", resuming: true)
            try Self.train(run, folder + "/whole")
            #expect(
                try bytes(folder + "/whole/checkpoints/step-00000012/model.safetensors")
                    == bytes(folder + "/torn/checkpoints/step-00000012/model.safetensors"))
            #expect(throws: TrainingError.self) { try Self.train(run, folder + "/whole") }
            #expect(throws: TrainingError.self) { try Self.train(run, folder + "/nothing", resuming: true) }
        }
    }

    @Test func keepsTheLastAndTheBest() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder)
            (run.steps, run.saveEvery, run.evaluateEvery) = (12, 1, 4)
            try Self.train(run, folder + "/run")
            let kept = RunDirectory(path: folder + "/run").checkpoints()
            let state = try JSONValue(contentsOfFile: kept[kept.count - 1].path + "/trainer_state.json")
            let best = try #require(state["best_step"]?.intValue)
            #expect(Set(kept.map(\.step)) == Set([11, 12, best]))
            for link in ["latest", "best"] {
                _ = try MonetLanguageModel.load(folder + "/run/" + link)
            }
            // A checkpoint brings its tokenizer.
            #expect(try Tokenizer(folder: folder + "/run/latest").vocabularySize == 4096)
        }
    }

    @Test func batchSizeAndAccumulationAgree() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder, feedForward: .dense)
            (run.steps, run.batchSize, run.accumulation) = (3, 6, 1)
            try Self.train(run, folder + "/one")
            (run.batchSize, run.accumulation) = (2, 3)
            try Self.train(run, folder + "/three")
            let one = try SafetensorsFile(path: folder + "/one/latest/model.safetensors")
            let three = try SafetensorsFile(path: folder + "/three/latest/model.safetensors")
            for entry in one.entries {
                // Sums in another order, and AdamW's division by small second moments.
                let error = relativeError(try one.tensor(entry.name), try three.tensor(entry.name))
                #expect(error < 1e-3, "\(entry.name): \(error)")
            }
        }
    }

    @Test func divergenceNamesTheStepAndTheLastGoodCheckpoint() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder)
            try Self.train(run, folder + "/good", stopAfter: 4)
            let checkpoint = folder + "/good/checkpoints/step-00000004"
            // A resumed run whose learning rate blows it up.
            (run.learningRate, run.gradientClip, run.steps, run.warmupSteps) = (10, 0, 200, 0)
            do {
                try Self.train(run, folder + "/good", resuming: true)
                Issue.record("the run did not diverge")
            } catch let TrainingError.diverged(step, reason, lastCheckpoint) {
                #expect(step > 4 && !reason.isEmpty)
                let last = try #require(lastCheckpoint)
                _ = try MonetLanguageModel.load(last)
                #expect(
                    "\(TrainingError.diverged(step: step, reason: reason, lastCheckpoint: last))".contains(
                        "step \(step)"))
            }
            // NaN in the weights to start from is found before the first step, and leaves no run.
            let bad = folder + "/bad"
            try FileManager.default.copyItem(atPath: checkpoint, toPath: bad)
            try DamagedFile.write(
                .nan, toTensor: "model.norm.weight", element: 3, of: bad + "/model.safetensors")
            var fresh = try Self.settings(in: folder)
            fresh.initialCheckpoint = bad
            #expect(throws: ModelError.self) { try Self.train(fresh, folder + "/nan") }
            #expect(!FileManager.default.fileExists(atPath: folder + "/nan/run.json"))
        }
    }

    /// Whatever is changed in a checkpoint's tensors, the run does not go on from it.
    @Test func aDamagedCheckpointIsNotResumed() throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder)
            try Self.train(run, folder + "/run", stopAfter: 4)
            let checkpoint = folder + "/run/checkpoints/step-00000004"
            let name = "model.norm.weight"
            func fails(
                _ file: String, _ tensor: String, _ value: Float, checked: Bool, _ text: String
            ) throws {
                let path = checkpoint + "/" + file
                let state = checkpoint + "/trainer_state.json"
                let (whole, wholeState) = (
                    try Data(contentsOf: URL(fileURLWithPath: path)),
                    try String(contentsOfFile: state, encoding: .utf8)
                )
                try DamagedFile.write(value, toTensor: tensor, element: 1, of: path)
                if !checked {
                    // A checkpoint of an earlier version has no checksums.
                    let members = try JSONValue(contentsOfFile: state).members ?? []
                    try AtomicFile.write(
                        JSONValue.object(members.filter { $0.key != "checksums" }).serialized(), to: state)
                }
                do {
                    try Self.train(run, folder + "/run", resuming: true)
                    Issue.record("\(file) with \(value) was accepted")
                } catch {
                    #expect("\(error)".contains(text), "\(error)")
                }
                try whole.write(to: URL(fileURLWithPath: path))
                try AtomicFile.write(wholeState, to: state)
            }
            let optimizer = "optimizer.safetensors"
            try fails(optimizer, "exp_avg." + name, 0.25, checked: true, "damaged")
            try fails("model.safetensors", name, 0.25, checked: true, "damaged")
            try fails(optimizer, "exp_avg." + name, .infinity, checked: false, "exp_avg." + name)
            try fails(optimizer, "exp_avg_sq." + name, -1, checked: false, "exp_avg_sq." + name)
            try fails("model.safetensors", name, .nan, checked: false, name)
            try Self.train(run, folder + "/run", resuming: true)
        }
    }

    @Test func normsAndBiasesDoNotDecayUnlessAsked() throws {
        for decaysEverything in [false, true] {
            var c = MonetConfiguration()
            (c.vocabularySize, c.hiddenSize, c.layerCount, c.attentionHeads, c.keyValueHeads, c.headWidth) = (
                20, 8, 1, 1, 1, 8
            )
            c.experts = ExpertSettings(width: 2, heads: 1, perSide: 3, topK: 1, layersPerRouter: 1)
            let model = try scrambledModel(c, seed: 9)
            let before = model.parameters.trainable.map { $0.tensor.floats() }
            let objective = TrainingObjective(uniformity: .full, uniformityWeight: 0, ambiguityWeight: 0)
            let variables = ParameterVariables()
            _ = try objective.addGradient(
                model: model, inputs: [[1, 2, 3]], targets: [2, 3, 4], backend: Self.backend,
                variables: variables)
            let optimizer = try AdamW(
                model.parameters.trainable,
                settings: AdamW.Settings(
                    beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.5,
                    decaysEverything: decaysEverything), on: Self.backend)
            // With the gradient scaled away, decay is all that is left.
            try optimizer.update(variables, learningRate: 0.1, gradientScale: 0, on: Self.backend)
            for (parameter, old) in zip(model.parameters.trainable, before) {
                let isExempt =
                    !decaysEverything
                    && (parameter.name.contains("norm") || parameter.name.hasSuffix("bias")
                        || parameter.name.hasSuffix(".b1") || parameter.name.hasSuffix(".b2"))
                let expected = old.map { isExempt ? Double($0) : Double($0) * (1 - 0.1 * 0.5) }
                let error = relativeError(parameter.tensor.floats().map(Double.init), expected)
                #expect(error < 1e-6, "\(parameter.name): \(error)")
            }
        }
    }

    @Test func schedules() {
        var run = RunConfiguration()
        (run.learningRate, run.finalLearningRateShare, run.warmupSteps, run.steps, run.decayShare) = (
            1, 0.1, 10, 110, 0.2
        )
        let expected: [(LearningRateSchedule.Kind, [(Int, Double)])] = [
            (.constant, [(1, 0.1), (5, 0.5), (10, 1), (11, 1), (110, 1)]),
            (
                .cosine,
                [(1, 0.1), (10, 1), (60, 0.55), (85, 0.1 + 0.9 * 0.5 * (1 - 0.5.squareRoot())), (110, 0.1)]
            ),
            (.wsd, [(5, 0.5), (10, 1), (88, 1), (99, 0.55), (110, 0.1)]),
        ]
        for (kind, points) in expected {
            run.schedule = kind
            let schedule = LearningRateSchedule(run)
            for (step, rate) in points {
                #expect(abs(schedule.rate(at: step) - rate) < 1e-12, "\(kind) at \(step)")
            }
        }
    }

    @Test(arguments: [
        ("steps", "0"), ("steps", "1.5"), ("learning_rate", "\"fast\""), ("learning_rate", "-1"),
        ("schedule", "\"linear\""),
        ("batch_size", "-2"), ("warmup_stepz", "3"), ("model", "\"huge-vd\""),
        ("model", "{\"preset\": \"nano-vd\", \"moe_heds\": 2}"),
        ("precision", "\"int4\""), ("sequence_length", "4096"), ("uniformity", "7"), ("corpus", "\"\""),
        ("decay_everything", "1"),
    ])
    func badSettingsNameTheKey(key: String, value: String) throws {
        var members = ["\"model\": \"nano-vd\"", "\"corpus\": \"c\""]
        members.removeAll { $0.hasPrefix("\"\(key)\"") }
        let text = "{" + (members + ["\"\(key)\": \(value)"]).joined(separator: ", ") + "}"
        do {
            _ = try RunConfiguration(json: JSONValue(parsing: text, source: "run.json"), source: "run.json")
            Issue.record("\(text) was accepted")
        } catch {
            #expect(
                "\(error)".contains(key) || "\(error)".contains("huge-vd") || "\(error)".contains("moe_heds"),
                "\(error)")
        }
    }

    @Test func settingsSurviveTheRunFile() throws {
        var run = RunConfiguration()
        (run.corpus, run.steps, run.seed, run.schedule, run.uniformity) = ("c", 7, 12345, .wsd, .selected)
        run.model = try MonetConfiguration.preset("tiny-hd")
        #expect(
            try RunConfiguration(json: JSONValue(parsing: run.json().serialized(), source: "x"), source: "x")
                == run)
    }

    /// Also a model from a checkpoint whose `config.json` has keys of other programs, or of another family.
    @Test(arguments: ["tiny-vd", "tiny-llama"])
    func modelsOfCheckpointsSurviveTheRunFile(preset: String) throws {
        var run = RunConfiguration()
        run.corpus = "c"
        let whole = try MonetConfiguration.preset(preset).json()
        run.model = try MonetConfiguration(
            json: .object(
                (whole.members ?? []) + [.init("pad_token_id", .null), .init("mystery", ["deep": 3])]),
            file: "config.json")
        let text = run.json().serialized()
        let stored = try RunConfiguration(stored: JSONValue(parsing: text, source: "x"), source: "x")
        #expect(stored == run && stored.json().serialized() == text)
        #expect(stored.model.json().serialized() == run.model.json().serialized())
        // By hand, the same keys are taken for mistakes.
        #expect(throws: TrainingError.self) {
            try RunConfiguration(json: JSONValue(parsing: text, source: "x"), source: "x")
        }
    }

    /// A mapping that names another family than the default's does not take over its keys.
    @Test func aMappingOfAnotherFamilyIsThatAlone() throws {
        let run = try RunConfiguration(
            json: JSONValue(
                parsing:
                    #"{"corpus": "c", "model": {"model_type": "llama", "hidden_act": "silu", "intermediate_size": 64}}"#,
                source: "x"),
            source: "x")
        #expect(run.model.experts == nil)
        #expect(run.model.json()["moe_experts"] == nil && run.model.json()["auto_map"] == nil)
    }

    @Test func aFullDeviceIsAnError() throws {
        // Linux's device that is always full.
        guard FileManager.default.fileExists(atPath: "/dev/full") else { return }
        let writer = try FileWriter(path: "/dev/full")
        #expect(throws: FileError.self) {
            try writer.write([UInt8](repeating: 1, count: 1 << 20))
            try writer.finish()
        }
    }
}
