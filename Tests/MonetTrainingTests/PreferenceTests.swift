import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining
import TestSupport
import Testing

/// Direct preference optimization: loss and gradient against the formula in double precision.
@Suite struct PreferenceTests {
    /// Three pairs of unequal lengths; the first token or two of each are the prompt's.
    private static let inputs: [[Int32]] = [
        [5, 9, 13, 2], [5, 9, 40, 22, 7, 1], [3, 31], [3, 8, 60], [11, 12, 13, 14, 15], [11, 12, 61],
    ]

    private static func batch(_ c: MonetConfiguration) -> BatchStream.Batch {
        let targets = inputs.flatMap { input in
            input.indices.map { place -> Int32 in
                place == 0 ? -1 : (input[place] * 7 + 3) % Int32(c.vocabularySize)
            }
        }
        return BatchStream.Batch(inputs: inputs, targets: targets)
    }

    /// log π of each sequence's targets, from logits in double precision.
    private static func logProbabilities(_ model: MonetLanguageModel) -> [Double] {
        let reference = ReferenceModel(model)
        let targets = batch(model.configuration).targets
        var first = 0
        return inputs.map { input in
            let logits = reference([input]).logits
            defer { first += input.count }
            return input.indices.reduce(0.0) { sum, row in
                let target = targets[first + row]
                guard target >= 0 else { return sum }
                let values = (0..<model.configuration.vocabularySize).map { logits[row, $0] }
                let largest = values.max() ?? 0
                let total = values.reduce(0) { $0 + exp($1 - largest) }
                return sum + values[Int(target)] - largest - log(total)
            }
        }
    }

    private static func expected(_ model: MonetLanguageModel, _ start: [Double], beta: Double) -> (
        losses: [Double], margins: [Double]
    ) {
        let own = logProbabilities(model)
        let margins = stride(from: 0, to: own.count, by: 2).map {
            beta * ((own[$0] - start[$0]) - (own[$0 + 1] - start[$0 + 1]))
        }
        return (margins.map { -log(1 / (1 + exp(-$0))) }, margins)
    }

    @Test(arguments: [Family.vertical, .horizontal, .dense], [0.1, 3.0])
    func lossIsTheFormula(family: Family, beta: Double) throws {
        let c = smallConfiguration(family)
        let (model, start) = (try scrambledModel(c, seed: 3), try scrambledModel(c, seed: 4))
        let (losses, margins) = Self.expected(model, Self.logProbabilities(start), beta: beta)
        for device in Device.allCases {
            let objective = PreferenceObjective(beta: beta, reference: try start.moved(to: device.backend))
            let own = try model.moved(to: device.backend)
            let batch = Self.batch(c)
            let result = try objective(
                own.forward(ForwardInput(batch.inputs), on: device.backend), model: own, batch: batch,
                share: 1,
                backend: device.backend)
            #expect(result.pairs == 3 && result.correct == Double(margins.count { $0 > 0 }))
            // Log-probabilities in float32: sums of up to ten losses near 4, times β.
            let bound = 2e-5 * max(1, beta)
            #expect(abs(result.loss - losses.reduce(0, +)) < bound, "\(device)")
            #expect(abs(result.margin - margins.reduce(0, +)) < bound, "\(device)")
        }
    }

    /// The gradient of a step against central differences of the formula.
    @Test(arguments: [Family.vertical, .dense]) func gradientIsTheFormulas(family: Family) throws {
        var c = smallConfiguration(family)
        (c.layerCount, c.vocabularySize) = (2, 67)
        let beta = 0.7
        let model = try scrambledModel(c, seed: 3)
        let start = try scrambledModel(c, seed: 4)
        let base = Self.logProbabilities(start)
        var objective = TrainingObjective(uniformity: .full, uniformityWeight: 0, ambiguityWeight: 0)
        objective.freezesRouters = true
        objective.preferences = PreferenceObjective(beta: beta, reference: start)
        let batch = Self.batch(c)
        // The pairs as one micro-batch of two and one of one would weigh differently: micro-batches have equally many.
        let parameters = model.parameters.trainable.filter { !$0.isRouters }
        let step = GradientStep(
            model: model, parameters: parameters, objective: objective, backend: CPUBackend())
        let result = try step(microBatches: 1) { _ in batch }
        let (losses, margins) = Self.expected(model, base, beta: beta)
        #expect(abs(result.losses.languageModel - losses.reduce(0, +) / 3) < 2e-5)
        #expect(abs(result.losses.preferenceMargin - margins.reduce(0, +) / 3) < 2e-5)
        #expect(abs(result.losses.preferenceAccuracy - Double(margins.count { $0 > 0 }) / 3) < 1e-12)
        var checked = 0
        for (index, parameter) in parameters.enumerated() {
            let values = parameter.tensor.floats()
            let found = try #require(result.gradients[index]).floats()
            let largest = found.reduce(0) { max($0, abs($1)) }
            guard let place = found.indices.max(by: { abs(found[$0]) < abs(found[$1]) }) else { continue }
            func mean(_ change: Float) throws -> Double {
                var changed = values
                changed[place] += change
                try parameter.tensor.write(changed)
                defer { try? parameter.tensor.write(values) }
                return Self.expected(model, base, beta: beta).losses.reduce(0, +) / 3
            }
            let width: Float = 1e-3
            let (above, below) = (values[place] + width, values[place] - width)
            let difference = try (mean(width) - mean(-width)) / Double(above - below)
            // Central differences err by the third derivative, float32 gradients by their sums.
            #expect(
                abs(difference - Double(found[place])) < 0.01 * Double(largest) + 1e-6,
                "\(parameter.name)[\(place)]: \(found[place]), expected \(difference)")
            checked += 1
        }
        #expect(checked == parameters.count)
    }

    @Test func largeMarginsDoNotOverflow() {
        for (margin, loss, slope) in [(-2000.0, 2000.0, -0.5), (0, log(2.0), -0.25), (2000, 0, 0)] {
            var result = PreferenceObjective.Result()
            let found = result.add(margin: margin, beta: 0.5)
            #expect(abs(result.loss - loss) < 1e-9 * max(1, loss) && abs(found - slope) < 1e-12)
        }
    }

    // MARK: Files

    @Test func shapesOfPairs() throws {
        func pair(_ text: String) throws -> PreferencePair {
            try PreferencePair(json: JSONValue(parsing: text, source: "test"), path: "pairs.jsonl", line: 3)
        }
        let turns = try pair(
            #"{"prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}], "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]}"#
        )
        #expect(turns.chosen.messages.map(\.content) == ["s", "a", "b"])
        #expect(
            turns.rejected.messages.map(\.content) == ["s", "a", "c", "d", "e"] && turns.commonCount == 2)
        let expected = [
            ChatMessage(role: "user", content: "2+2?"), ChatMessage(role: "assistant", content: "4"),
        ]
        for text in [
            #"{"prompt": "2+2?", "chosen": "4", "rejected": "5"}"#,
            #"{"prompt": [{"role": "user", "content": "2+2?"}], "chosen": [{"role": "assistant", "content": "4"}], "rejected": [{"role": "assistant", "content": "5"}]}"#,
            #"{"prompt": "2+2?", "chosen": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "rejected": [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}]}"#,
            #"{"chosen": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}], "rejected": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "5"}]}"#,
        ] {
            let found = try pair(text)
            #expect(found.chosen.messages == expected && found.commonCount == 1, "\(text)")
            #expect(found.rejected.messages.last?.content == "5")
        }
        // One message in place of a list; hh-rlhf's texts, also beside a null prompt; and a text that repeats the last
        // message of whole conversations, as trl reads it.
        for (text, before) in [
            (
                #"{"prompt": "2+2?", "chosen": {"from": "gpt", "value": "4"}, "rejected": {"from": "gpt", "value": "5"}}"#,
                0
            ),
            (
                #"{"prompt": null, "chosen": "\n\nHuman: 2+2?\n\nAssistant: 4", "rejected": "\n\nHuman: 2+2?\n\nAssistant: 5"}"#,
                0
            ),
            (
                #"{"prompt": "2+2?", "chosen": [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "rejected": [{"role": "system", "content": "s"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}]}"#,
                1
            ),
            (
                #"{"prompt": "2+2?", "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}], "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "5"}]}"#,
                2
            ),
        ] {
            let found = try pair(text)
            #expect(Array(found.chosen.messages.dropFirst(before)) == expected, "\(found)")
            #expect(found.commonCount == before + 1 && found.rejected.messages.last?.content == "5")
        }
        let dialogue = try pair(
            #"{"chosen": "\n\nHuman: a\n\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant: e", "rejected": "\n\nHuman: a\n\nb\n\nAssistant: f"}"#
        )
        #expect(
            dialogue.chosen.messages.map(\.content) == ["a\n\nb", "c", "d", "e"] && dialogue.commonCount == 1)
        let spaced = try pair(
            #"{"chosen": "Human: a\n\n\nAssistant: b", "rejected": "\n\nHuman: a\n\n\n\nAssistant: c\n"}"#)
        #expect(
            spaced.chosen.messages.map(\.content) == ["a", "b"] && spaced.rejected.messages[1].content == "c")
        // Numbers and scores are not what is said.
        let numbered = try pair(
            #"{"chosen": [{"role": "user", "content": "a", "id": 1}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "a", "id": 2}, {"role": "assistant", "content": "c"}]}"#
        )
        #expect(numbered.commonCount == 1)
        let further = try pair(
            #"{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "chosen": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], "rejected": "e"}"#
        )
        #expect(further.chosen.messages.map(\.content) == ["a", "b", "c", "d"] && further.commonCount == 2)
        let instructed = try pair(#"{"system": "s", "prompt": "2+2?", "chosen": "4", "rejected": "5"}"#)
        #expect(instructed.chosen.messages == [ChatMessage(role: "system", content: "s")] + expected)
        #expect(instructed.commonCount == 2)
        for (text, word) in [
            (#"{"system": 3, "prompt": "a", "chosen": "b", "rejected": "c"}"#, "\"system\" is"),
            ("[1]", "expected a preference pair"), (#"{"chosen": "a", "rejected": "b"}"#, "answers nothing"),
            (#"{"prompt": "a", "chosen": "b"}"#, "no \"rejected\""),
            (
                #"{"prompt": "a", "chosen": [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "rejected": "c"}"#,
                "whole conversation"
            ),
            (
                #"{"prompt": "a", "chosen": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "b"}], "rejected": "c"}"#,
                "does not repeat"
            ),
            (
                #"{"prompt": "a", "chosen": {"role": "assistant", "content": "b", "score": 1}, "rejected": {"role": "assistant", "content": "b", "score": 2}}"#,
                "are the same"
            ),
            (
                #"{"prompt": [{"role": "user", "content": "a"}], "chosen": [{"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}], "rejected": "d"}"#,
                "begins with a message of the user"
            ),
            (#"{"prompt": "a", "chosen": "b", "rejected": "b"}"#, "are the same"),
            (#"{"prompt": 3, "chosen": "b", "rejected": "c"}"#, "expected a list"),
            (
                #"{"chosen": [{"role": "user", "content": "x"}], "rejected": [{"role": "user", "content": "y"}]}"#,
                "does not end with"
            ),
        ] {
            #expect(throws: TextError.self) { try pair(text) }
            do { _ = try pair(text) } catch {
                #expect("\(error)".contains(word) && "\(error)".contains("pairs.jsonl, line 3"), "\(error)")
            }
        }
    }

    /// What both answers follow counts in neither, and of several turns only what differs.
    @Test func onlyAnswersCount() throws {
        try withTemporaryFolder { folder in
            let run = try Self.settings(in: folder)
            let tokenizer = try Tokenizer(folder: folder + "/base")
            let stream = try PreferenceStream(run, tokenizer)
            #expect(stream.pairCount == 28 && stream.skipped == 0)
            for number in 0..<20 {
                let batch = stream.batch(from: 2 * number)
                #expect(batch.inputs.count == 4 && batch.labels.isEmpty)
                var first = 0
                for (place, input) in batch.inputs.enumerated() {
                    let targets = batch.targets[first..<(first + input.count)].filter { $0 >= 0 }
                    first += input.count
                    let text = try tokenizer.decode(Array(targets))
                    #expect(
                        text.contains(place % 2 == 0 ? "yes" : "no") && !text.contains("earlier"), "\(text)")
                }
            }
            #expect(stream.validationBatches(limit: 9).flatMap(\.inputs).count == 4)
        }
    }

    static func settings(in folder: String) throws -> RunConfiguration {
        var run = try TuningTests().settings(in: folder)
        let lines = (0..<30).map { number -> String in
            let start = #"{"role": "user", "content": "a"}, {"role": "assistant", "content": "earlier"}, "#
            let ask = #"{"role": "user", "content": "\#(number)"}"#
            return
                #"{"prompt": [\#(start)\#(ask)], "chosen": "yes \#(number % 5)", "rejected": "no \#(number % 7)"}"#
        }
        try AtomicFile.write(lines.joined(separator: "\n"), to: folder + "/pairs.jsonl")
        run.preferences = [.init(path: folder + "/pairs.jsonl")]
        run.conversations = []
        run.validationShare = 0.05
        run.beta = 0.5
        return run
    }

    @Test func theRecipeIsFitted() {
        var run = RunConfiguration()
        run.fitPreferences(except: [], epochs: 2, pairs: 1024)
        #expect(run.batchSize == 2 && run.accumulation == 32 && run.learningRate == 1e-6)
        // 64 pairs a step, of two epochs.
        #expect(run.steps == 32 && run.warmupSteps == 3 && run.freezesRouters)
        run = RunConfiguration()
        run.batchSize = 8
        run.fitPreferences(except: ["batch_size"], epochs: 1, pairs: 100)
        #expect(run.batchSize == 8 && run.accumulation == 1 && run.steps == 13)
        var tuning = RunConfiguration()
        tuning.fitTuning(except: [], epochs: 1, rows: 2000)
        #expect(tuning.batchSize == 4 && tuning.accumulation == 32 && tuning.learningRate == 3e-4)
        #expect(tuning.steps == 16 && tuning.warmupSteps == 1)
        // Steps that were chosen are those of the recipe.
        tuning = RunConfiguration()
        tuning.steps = 1000
        tuning.fitTuning(except: ["steps"], epochs: 1, rows: 100)
        #expect(tuning.batchSize * tuning.accumulation == 128 && tuning.steps == 1000)
        // Of fewer rows than the recipe has in eight steps, a step takes fewer.
        for (rows, perStep) in [(1, 1), (7, 1), (16, 2), (100, 8), (128, 16), (1023, 64), (1024, 128)] {
            tuning = RunConfiguration()
            tuning.fitTuning(except: [], epochs: 1, rows: rows)
            #expect(tuning.batchSize * tuning.accumulation == perStep, "\(rows)")
            #expect(tuning.steps >= min(rows, 8) && tuning.steps * perStep < rows + perStep, "\(rows)")
            for processes in [2, 3, 4, 6, 16] {
                var shared = RunConfiguration()
                shared.fitTuning(except: [], epochs: 1, rows: rows, processes: processes)
                #expect(SummationTree.divides(shared.accumulation, among: processes), "\(rows), \(processes)")
            }
            // Every run learns something.
            let schedule = LearningRateSchedule(tuning)
            #expect((1...tuning.steps).contains { schedule.rate(at: $0) > 1e-4 }, "\(rows)")
        }
    }

    /// What a run keeps when it goes on, and what cannot be together.
    @Test func whatDoesNotFitIsRefused() throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder)
            let impossible: [(inout RunConfiguration) -> Void] = [
                { $0.freezesRouters = false },
                {
                    $0.adapterRank = 2
                    $0.freezesRouters = false
                }, { $0.conversations = [.init(path: folder + "/chat.jsonl")] },
                { $0.initialCheckpoint = nil },
            ]
            for change in impossible {
                var other = run
                change(&other)
                #expect(throws: TrainingError.self) { try other.validate(source: "run") }
            }
            run.adapterRank = 2
            (run.steps, run.saveEvery) = (4, 2)
            try TrainerTests.train(run, folder + "/run", stopAfter: 2)
            let changed: [(inout RunConfiguration) -> Void] = [
                { $0.adapterRank = 3 }, { $0.adapterRank = 0 }, { $0.adapterAlpha = 9 },
            ]
            for change in changed {
                var other = run
                change(&other)
                #expect(throws: TrainingError.self) {
                    try TrainerTests.train(other, folder + "/run", resuming: true)
                }
            }
            // Another model in the place of the base.
            try FileManager.default.removeItem(atPath: folder + "/base/model.safetensors")
            try Checkpoint.write(scrambledModel(run.model, seed: 99), dtype: .float32, to: folder + "/base")
            #expect(throws: TrainingError.self) {
                try TrainerTests.train(run, folder + "/run", resuming: true)
            }
        }
    }

    @Test(arguments: [0, 2]) func answersBecomeMoreLikely(adapterRank: Int) throws {
        try withTemporaryFolder { folder in
            var run = try Self.settings(in: folder)
            run.adapterRank = adapterRank
            run.steps = 12
            try TrainerTests.train(run, folder + "/run")
            let lines = try TextFile.read(folder + "/run/metrics.jsonl").split(separator: "\n").map {
                try JSONValue(parsing: String($0), source: "metrics")
            }
            let losses = lines.compactMap { $0["loss"]?.doubleValue }
            // The model is its own reference at first.
            #expect(abs((losses.first ?? 0) - log(2)) < 1e-3, "\(losses)")
            #expect((losses.last ?? 1) < log(2) - 0.05, "\(losses)")
            #expect(lines.compactMap { $0["accuracy"]?.doubleValue }.last ?? 0 > 0.9)
            let evaluations = lines.compactMap { $0["eval_loss"]?.doubleValue }
            #expect(abs((evaluations.first ?? 0) - log(2)) < 1e-3 && evaluations.last ?? 1 < log(2))
            #expect(lines.contains { $0["eval_margin"]?.doubleValue ?? 0 > 0 })
            try TrainerTests.train(run, folder + "/parts", stopAfter: 5)
            try TrainerTests.train(run, folder + "/parts", resuming: true)
            let name = adapterRank == 0 ? "model.safetensors" : "adapter_model.safetensors"
            let weights = try ["run", "parts"].map {
                try Data(contentsOf: URL(fileURLWithPath: folder + "/\($0)/latest/" + name))
            }
            #expect(weights[0] == weights[1])
        }
    }
}
