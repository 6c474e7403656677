import Foundation
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining
import TestSupport
import Testing

/// Run files and the states of runs, altered: a run starts or goes on, or an error says why not.
@Suite struct RunFuzzTests {
    private func isExpected(_ error: any Error) -> Bool {
        error is TrainingError || error is ModelError || error is FileError || error is TextError
    }

    @Test func runFiles() throws {
        try withTemporaryFolder { folder in
            let run = try TrainerTests.settings(in: folder)
            let file = run.json()
            let text = Array(file.serialized(pretty: true).utf8)
            var random = SplitMix64(seed: 31)
            var accepted = 0
            for round in 0..<(6000 * Mutator.factor) {
                do {
                    let json =
                        round % 2 == 0
                        ? Mutator.mutated(file, &random)
                        : try Mutator.mutated([text], &random).withUnsafeBytes {
                            try JSONValue(parsing: $0, source: "fuzz")
                        }
                    let altered =
                        try round % 4 < 2
                        ? RunConfiguration(json: json, source: "fuzz")
                        : RunConfiguration(stored: json, source: "fuzz")
                    accepted += 1
                    // What is accepted is written back to the same.
                    #expect(try RunConfiguration(stored: altered.json(), source: "fuzz") == altered)
                    // Starting it reserves memory and reads files; some sizes must be refused there.
                    if accepted % 40 == 0, altered.corpus == run.corpus {
                        let path = folder + "/start-\(round)"
                        _ = try Trainer(
                            altered, directory: RunDirectory(path: path), resuming: false,
                            backend: TrainerTests.backend)
                    }
                } catch {
                    #expect(isExpected(error), "\(type(of: error)): \(error)")
                }
            }
            #expect(accepted > 100)
        }
    }

    @Test func statesOfRuns() throws {
        try withTemporaryFolder { folder in
            let run = try TrainerTests.settings(in: folder)
            try TrainerTests.train(run, folder + "/run", stopAfter: 4)
            let checkpoint = folder + "/run/checkpoints/step-00000004"
            let names = ["trainer_state.json", "log_positions.json", "optimizer.safetensors", "config.json"]
            let whole = try names.map {
                [UInt8](try Data(contentsOf: URL(fileURLWithPath: checkpoint + "/" + $0)))
            }
            var random = SplitMix64(seed: 32)
            var refused = 0
            for round in 0..<(120 * Mutator.factor) {
                let place = round % names.count
                var altered = whole[place]
                if names[place].hasSuffix(".json"), round % 8 < 4 {
                    let json = try altered.withUnsafeBytes { try JSONValue(parsing: $0, source: "fuzz") }
                    altered = Array(Mutator.mutated(json, &random).serialized().utf8)
                } else {
                    altered = Mutator.mutated([altered], &random)
                }
                let path = checkpoint + "/" + names[place]
                try Data(altered).write(to: URL(fileURLWithPath: path))
                do {
                    _ = try Trainer(
                        run, directory: RunDirectory(path: folder + "/run"), resuming: true,
                        backend: TrainerTests.backend)
                    #expect(names[place] != "optimizer.safetensors" || altered == whole[place])
                } catch {
                    refused += 1
                    #expect(isExpected(error), "\(type(of: error)): \(error)")
                }
                try Data(whole[place]).write(to: URL(fileURLWithPath: path))
            }
            #expect(refused > 60 * Mutator.factor)
            try TrainerTests.train(run, folder + "/run", resuming: true)
        }
    }
}
