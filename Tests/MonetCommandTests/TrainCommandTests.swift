import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Training from files to a model that answers, with kills and a full disk on the way.
@Suite struct TrainCommandTests {
    private func model(_ folder: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: folder + "/checkpoints/step-00000030/model.safetensors"))
    }

    /// SIGKILL at various moments, then resumed to the end: the same parameters, bit for bit.
    @Test func aKilledRunResumesBitForBit() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let whole = try Command.run(
                ["train", "run.yaml", "--out", "whole", "--threads", "2"], in: folder)
            #expect(whole.status == 0, "\(whole.errors)")
            #expect(whole.output == "whole/checkpoints/step-00000030\n")
            #expect(whole.errors.contains("held-out loss") && whole.errors.contains("tokens/s"))
            // In the first step, in the middle, at a save, close to the end.
            var arguments = ["train", "run.yaml", "--out", "torn", "--threads", "2"]
            for words in ["step 1/", "step 9/", "saved torn/checkpoints/step-00000015", "step 28/"] {
                let running = try Command.start(arguments, in: folder)
                running.waitUntil(words)
                kill(running.process.processIdentifier, SIGKILL)
                running.process.waitUntilExit()
                #expect(running.process.terminationReason == .uncaughtSignal, "the run ended before \(words)")
                arguments = ["train", "--resume", "--out", "torn", "--threads", "2"]
            }
            let last = try Command.run(arguments, in: folder)
            #expect(last.status == 0, "\(last.errors)")
            #expect(try model(folder + "/whole") == model(folder + "/torn"))
        }
    }

    @Test func interruptionSavesAndSaysHowToGoOn() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let running = try Command.start(
                ["train", "run.yaml", "--out", "run", "--steps", "300"], in: folder)
            running.waitUntil("step 3/")
            kill(running.process.processIdentifier, SIGINT)
            let result = running.wait()
            #expect(result.status == 130)
            #expect(result.errors.contains("monet train --resume --out run"))
            #expect(
                try Command.run(
                    ["generate", "--model", "run/latest", "--prompt", "Sentence", "-n", "3"], in: folder
                ).status == 0)
            #expect(try Command.run(["train", "--resume", "--out", "run"], in: folder).status == 0)
            // A finished run has nothing left to do, and a second one is not written over it.
            #expect(try Command.run(["train", "--resume", "--out", "run"], in: folder).status == 0)
            #expect(try Command.run(["train", "run.yaml", "--out", "run"], in: folder).status == 1)
        }
    }

    /// A limit on the size of files stands for a full disk: the save fails, what was saved stays.
    @Test func aFailingSaveLeavesALoadableCheckpoint() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            #expect(
                try Command.run(["train", "run.yaml", "--out", "run", "--steps", "10"], in: folder).status
                    == 0)
            // Blocks of 512 bytes or a kilobyte, as the shell has it: too few for the weights either way.
            let failed = try Command.run(
                ["train", "--resume", "--out", "run", "--steps", "30"], in: folder,
                shellPrefix: "ulimit -f 200")
            #expect(failed.status == 1, "\(failed.errors)")
            #expect(failed.errors.contains("error: ") && failed.errors.contains("step-00000015"))
            let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/run/checkpoints")
            #expect(names.sorted() == ["step-00000005", "step-00000010"])
            _ = try MonetLanguageModel.load(folder + "/run/latest")
            #expect(
                try Command.run(["train", "--resume", "--out", "run", "--steps", "30"], in: folder).status
                    == 0)
        }
    }

    /// What a run says before it starts is what it takes at most, and not far more.
    @Test(arguments: [
        ["--batch-size", "64"], ["--batch-size", "16", "--accumulation", "4"],
        ["--batch-size", "256", "--set", "activation_checkpointing=true"],
        ["--batch-size", "64", "--decomposition", "dense"], ["--batch-size", "1"],
    ])
    func memoryIsForecast(settings: [String]) throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let result = try Command.run(
                ["train", "run.yaml", "--out", "run", "--steps", "3"] + settings, in: folder)
            #expect(result.status == 0, "\(result.errors)")
            let units: [String: Double] = ["KiB": 1, "MiB": 1024, "GiB": 1_048_576]
            func bytes(_ before: String) throws -> Double {
                let rest = try #require(result.errors.range(of: before)).upperBound
                let words = result.errors[rest...].split(separator: " ", maxSplits: 2)
                let unit = try #require(units[String(words[1].prefix(3))])
                return try #require(Double(words[0])) * unit
            }
            let taken = try bytes("tensors took ")
            let parts = try ["weights and moments ", "gradients ", "activations "].map(bytes)
            // What small samples do not show has its room in the total.
            let sum = parts.reduce(0, +)
            let most = 1.05 * sum + 16384
            #expect(taken < most, "\(result.errors)")
            #expect(taken > 0.4 * sum, "\(result.errors)")
            #expect(try bytes("memory: up to ") > taken)
        }
    }

    /// Experts reserved for a label, from the run's settings to a mask that removes them.
    @Test func reservedExpertsAreRemoved() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let train = ["train", "run.yaml", "--steps", "10", "--set"]
            let trained = try Command.run(
                train + [#"experts_of={"l1": 0.1}"#, "--out", "reserved"], in: folder)
            #expect(trained.status == 0, "\(trained.errors)")
            for (flags, count) in [([], 9), (["--with-halves"], 81 - 36)] as [([String], Int)] {
                let mask = try Command.run(
                    [
                        "mask", "reserved", "--model", "reserved/latest", "--label", "l1", "--out",
                        "m\(count).mask",
                    ]
                        + flags, in: folder)
                // Nine halves a side: a tenth of the pairs is 2.8, rounded to three of them.
                #expect(
                    mask.status == 0 && mask.errors.contains("\(2 * count) of 162 experts"), "\(mask.errors)")
            }
            let scored = try Command.run(
                ["perplexity", "--model", "reserved/latest", "--mask", "m9.mask", "--corpus", "corpus"],
                in: folder)
            #expect(scored.status == 0, "\(scored.errors)")
            let moved = try Command.run(
                ["convert", "--model", "reserved/latest", "--out", "moved"], in: folder)
            #expect(moved.status == 0)
            for (model, label, words) in [
                ("moved", "l2", "only for l1"), ("moved", "", "only for l1"),
            ] {
                let result = try Command.run(
                    ["mask", "reserved", "--model", model, "--label", label, "--out", "x.mask"], in: folder)
                #expect(result.status == 1 && result.errors.contains(words), "\(result.errors)")
            }
            for (setting, status, words) in [
                (#"experts_of={"fog": 0.1}"#, 1, "no label \"fog\""),
                (#"experts_of={"l1": 2}"#, 1, "at most 0.5"), ("experts_of=l1", 1, "a mapping of labels"),
            ] {
                let result = try Command.run(train + [setting, "--out", "bad"], in: folder)
                #expect(result.status == Int32(status) && result.errors.contains(words), "\(result.errors)")
            }
            #expect(!FileManager.default.fileExists(atPath: folder + "/bad"))
            let plain = try Command.run(["train", "run.yaml", "--steps", "2", "--out", "plain"], in: folder)
            #expect(plain.status == 0)
            let none = try Command.run(
                ["mask", "reserved", "--model", "plain/latest", "--label", "l1", "--out", "x.mask"],
                in: folder)
            #expect(none.status == 1 && none.errors.contains("reserved_experts.json"), "\(none.errors)")
        }
    }

    @Test(arguments: [("horizontal", "\"moe_decompose\": \"horizontal\""), ("dense", "LlamaForCausalLM")])
    func otherKindsTrainFromTheSameFile(kind: String, configuration: String) throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let result = try Command.run(
                ["train", "run.yaml", "--decomposition", kind, "--steps", "6", "--out", "run"], in: folder)
            #expect(result.status == 0, "\(result.errors)")
            let info = try Command.run(["info", "run/latest", "--json"], in: folder)
            #expect(info.status == 0 && info.output.contains(configuration), "\(info.output)")
        }
    }
}
