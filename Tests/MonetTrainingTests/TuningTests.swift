import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining
import TestSupport
import Testing

/// Instruction tuning: routers stay, what the assistant says is learned.
@Suite struct TuningTests {
    func settings(in folder: String, _ family: Family = .vertical) throws -> RunConfiguration {
        try AtomicFile.createFolder(folder)
        var run = try TrainerTests.settings(in: folder, feedForward: family)
        let base = folder + "/base"
        let model = try scrambledModel(run.model, seed: 8)
        try AtomicFile.createFolder(base)
        try Checkpoint.write(model, dtype: .float32, to: base)
        try FileManager.default.copyItem(
            atPath: Fixture.path("text/trained.model"), toPath: base + "/tokenizer.model")
        try AtomicFile.write(
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}"
                + "{% endgeneration %}{% else %}[INST] {{ m.content }} [/INST] {% endif %}{% endfor %}",
            to: base + "/chat_template.jinja")
        let path = folder + "/chat.jsonl"
        try AtomicFile.write(
            (0..<30).map { #"{"instruction": "number \#($0)", "output": "it is \#($0 * 7 % 13)"}"# }
                .joined(separator: "\n"), to: path)
        run.corpus = ""
        run.conversations = [.init(path: path)]
        run.initialCheckpoint = base
        run.freezesRouters = true
        (run.sequenceLength, run.batchSize, run.accumulation, run.steps) = (32, 2, 2, 8)
        return run
    }

    @Test(arguments: [Family.vertical, .horizontal, .dense])
    func routersAndTheirStatisticsStay(family: Family) throws {
        try withTemporaryFolder { folder in
            let run = try settings(in: folder, family)
            try TrainerTests.train(run, folder + "/run")
            let before = try MonetLanguageModel.load(folder + "/base", for: .training)
            let after = try MonetLanguageModel.load(folder + "/run/latest", for: .training)
            var kept = 0
            for (old, new) in zip(before.parameters.all, after.parameters.all) {
                let isEqual = old.tensor.withUnsafeBytes { a in
                    new.tensor.withUnsafeBytes { b in a.elementsEqual(b) }
                }
                if old.isRouters { kept += 1 }
                #expect(isEqual == old.isRouters, "\(old.name)")
            }
            #expect(kept == (family == .dense ? 0 : 8))
            let losses = try TextFile.read(folder + "/run/metrics.jsonl").split(separator: "\n").compactMap {
                try JSONValue(parsing: String($0), source: "metrics")["eval_loss"]?.doubleValue
            }
            #expect(losses.count >= 2 && losses[losses.count - 1] < losses[0] - 0.3, "\(losses)")
            #expect(FileManager.default.fileExists(atPath: folder + "/run/latest/chat_template.jinja"))
        }
    }

    /// A conversation in a row with others has the loss and the gradient that it has alone.
    @Test func packedConversationsDoNotSeeEachOther() throws {
        try withTemporaryFolder { folder in
            let run = try settings(in: folder)
            let model = try MonetLanguageModel.load(folder + "/base", for: .training)
            let stream = try ConversationStream(
                run.conversations, encoder: ConversationEncoder(Tokenizer(folder: folder + "/base")),
                length: 32, batchSize: 2, validationShare: 0, seed: 1)
            let packed = stream.batch(from: 0)
            #expect(packed.inputs.count > 2)
            var objective = TrainingObjective(uniformity: .full, uniformityWeight: 0, ambiguityWeight: 0)
            objective.freezesRouters = true
            func gradients(_ inputs: [[Int32]], _ targets: [Int32]) throws -> (loss: Double, [[Float]]) {
                let variables = ParameterVariables()
                let losses = try objective.addGradient(
                    model: model, inputs: inputs, targets: targets, variables: variables)
                return (
                    losses.languageModel,
                    try model.parameters.trainable.map { try #require(variables.gradient(of: $0)).floats() }
                )
            }
            let together = try gradients(packed.inputs, packed.targets)
            let counted = Double(packed.targets.count { $0 >= 0 })
            var loss = 0.0
            var sums = together.1.map { [Double](repeating: 0, count: $0.count) }
            var start = 0
            for sequence in packed.inputs {
                let targets = Array(packed.targets[start..<(start + sequence.count)])
                start += sequence.count
                let alone = try gradients([sequence], targets)
                let share = Double(targets.count { $0 >= 0 }) / counted
                loss += share * alone.loss
                for (index, values) in alone.1.enumerated() {
                    for place in values.indices { sums[index][place] += share * Double(values[place]) }
                }
            }
            #expect(abs(loss - together.loss) < 1e-5 * loss)
            for (parameter, (found, expected)) in zip(model.parameters.trainable, zip(together.1, sums)) {
                // Sums of float32 in another order.
                let scale = expected.reduce(0) { max($0, abs($1)) }
                let error = zip(found, expected).reduce(0) { max($0, abs(Double($1.0) - $1.1)) }
                #expect(error <= 1e-4 * scale + 1e-9, "\(parameter.name): \(error) of \(scale)")
            }
        }
    }

    @Test func aStoppedRunResumesBitForBit() throws {
        try withTemporaryFolder { folder in
            let run = try settings(in: folder)
            try TrainerTests.train(run, folder + "/whole")
            try TrainerTests.train(run, folder + "/parts", stopAfter: 3)
            try TrainerTests.train(run, folder + "/parts", resuming: true)
            let models = try ["whole", "parts"].map {
                try Data(contentsOf: URL(fileURLWithPath: folder + "/\($0)/latest/model.safetensors"))
            }
            #expect(models[0] == models[1])
        }
    }

    /// A run that goes on reads what it has read, or says that it cannot; it may become longer.
    @Test func otherTextsAreNotResumed() throws {
        try withTemporaryFolder { folder in
            let run = try settings(in: folder)
            try TrainerTests.train(run, folder + "/run", stopAfter: 3)
            let text = try TextFile.read(folder + "/chat.jsonl")
            let changes: [(String, (inout RunConfiguration) throws -> Void)] = [
                (
                    "what it reads",
                    { _ in
                        try AtomicFile.write(
                            text + #"\#n{"instruction": "more", "output": "x"}"#, to: folder + "/chat.jsonl")
                    }
                ), ("what it reads", { $0.seed += 1 }), ("what it reads", { $0.validationShare = 0.3 }),
                (
                    "what it reads",
                    { $0.chatTemplate = "{% for m in messages %}<{{ m.content }}>{% endfor %}" }
                ), ("beyond the last step", { $0.steps = 2 }),
            ]
            for (words, change) in changes {
                var other = run
                try change(&other)
                do {
                    try TrainerTests.train(other, folder + "/run", resuming: true)
                    Issue.record("it went on, expected \(words)")
                } catch let error as TrainingError { #expect("\(error)".contains(words), "\(error)") }
                try AtomicFile.write(text, to: folder + "/chat.jsonl")
            }
            var longer = run
            longer.steps = 10
            try TrainerTests.train(longer, folder + "/run", resuming: true)
        }
    }

    @Test func whatDoesNotFitTogetherIsRefused() throws {
        try withTemporaryFolder { folder in
            var run = try settings(in: folder)
            run.initialCheckpoint = nil
            #expect(throws: TrainingError.self) { try TrainerTests.train(run, folder + "/run") }
            run = try settings(in: folder + "/other")
            run.corpus = folder + "/corpus"
            #expect(throws: TrainingError.self) { try TrainerTests.train(run, folder + "/run") }
        }
    }
}
