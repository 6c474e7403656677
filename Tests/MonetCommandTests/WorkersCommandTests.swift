import Foundation
import MonetFoundation
import TestSupport
import Testing

private let hasMPI = ["/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"].contains {
    FileManager.default.isExecutableFile(atPath: $0 + "/mpirun")
}

/// Several real processes over Open MPI, which `Scripts/setup` installs.
@Suite(.enabled(if: hasMPI, "Open MPI's mpirun is not installed"))
struct WorkersCommandTests {
    private let four = ["train", "run.yaml", "--accumulation", "4", "--batch-size", "2"]

    private func model(_ folder: String) throws -> Data {
        try Data(contentsOf: URL(fileURLWithPath: folder + "/latest/model.safetensors"))
    }

    @Test func oneTwoAndFourProcessesGiveTheSameModel() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            for workers in [1, 2, 4] {
                let result = try Command.run(
                    four + ["--out", "run\(workers)", "--workers", "\(workers)"], in: folder)
                #expect(result.status == 0, "\(result.errors)")
                #expect(result.output == "run\(workers)/checkpoints/step-00000030\n")
                // One process reports for all.
                #expect(result.errors.components(separatedBy: "step 30/30").count == 2)
                #expect(try model(folder + "/run\(workers)") == model(folder + "/run1"))
            }
        }
    }

    /// Processes of a job, by rank.
    private func ranks(of folder: String) -> [Int: pid_t] {
        var result: [Int: pid_t] = [:]
        for name in (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? [] {
            guard let id = pid_t(name), let data = FileManager.default.contents(atPath: "/proc/\(id)/environ")
            else { continue }
            let variables = String(decoding: data, as: UTF8.self).split(separator: "\0")
            let key = "OMPI_COMM_WORLD_RANK="
            guard variables.contains(where: { $0 == "MONET_TEST_FOLDER=\(folder)" }),
                let rank = variables.first(where: { $0.hasPrefix(key) }).flatMap({
                    Int($0.dropFirst(key.count))
                })
            else { continue }
            result[rank] = id
        }
        return result
    }

    /// Takes two more steps after a run's last checkpoint.
    private func goesOn(_ folder: String, workers: Int) throws {
        // Not the link: a process may have died before it was set.
        let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/run/checkpoints")
        let step = try #require(names.compactMap { Int($0.dropFirst("step-".count)) }.max())
        let resumed = try Command.run(
            ["train", "--resume", "--out", "run", "--steps", "\(step + 2)", "--workers", "\(workers)"],
            in: folder)
        #expect(resumed.status == 0, "\(resumed.errors)")
        #expect(resumed.errors.contains("step \(step + 2)/"), "\(resumed.errors)")
    }

    @Test(arguments: [0, 1])
    func aProcessThatDiesEndsAll(rank: Int) throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let arguments = four + ["--out", "run", "--steps", "3000"]
            let running = try Command.start(
                arguments + ["--workers", "2"], in: folder, environment: ["MONET_TEST_FOLDER": folder])
            running.waitUntil("saved run/checkpoints")
            let id = try #require(ranks(of: folder)[rank])
            let start = ContinuousClock.now
            kill(id, SIGKILL)
            let result = running.wait()
            #expect(result.status == 1)
            #expect(
                result.errors.contains("signal 9") && result.errors.contains("monet train --resume --out run")
            )
            #expect(ContinuousClock.now - start < .seconds(30), "it hung")
            #expect(ranks(of: folder).isEmpty)
            try goesOn(folder, workers: 4)
        }
    }

    @Test(arguments: [SIGINT, SIGTERM])
    func aRequestToStopSavesOnce(signal: Int32) throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let running = try Command.start(
                four + ["--out", "run", "--steps", "3000", "--workers", "2"], in: folder)
            running.waitUntil("step 2/")
            kill(running.process.processIdentifier, signal)
            let result = running.wait()
            #expect(result.status == 128 + signal, "\(result.errors)")
            #expect(result.errors.components(separatedBy: "monet train --resume --out run").count == 2)
            _ = try model(folder + "/run")
        }
    }

    /// Whoever cannot wait for the checkpoint asks twice: nothing is left running, and the run goes on from an earlier one.
    @Test func asksTwiceEndsAllAtOnce() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let running = try Command.start(
                four + ["--out", "run", "--steps", "3000", "--workers", "2"], in: folder,
                environment: ["MONET_TEST_FOLDER": folder])
            running.waitUntil("saved run/checkpoints")
            let start = ContinuousClock.now
            for _ in 0..<2 {
                kill(running.process.processIdentifier, SIGINT)
                usleep(100_000)
            }
            #expect(running.wait().status == 128 + SIGINT)
            #expect(ContinuousClock.now - start < .seconds(30), "it hung")
            #expect(ranks(of: folder).isEmpty)
            try goesOn(folder, workers: 2)
        }
    }

    /// Commands that read a corpus or ask questions give with workers what they give alone.
    @Test func readersShareTheirWork() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let trained = try Command.run(["train", "run.yaml", "--out", "run", "--steps", "3"], in: folder)
            #expect(trained.status == 0, "\(trained.errors)")
            func files(_ path: String) throws -> [String: Data] {
                let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/" + path)
                return try Dictionary(
                    uniqueKeysWithValues: names.filter { !$0.hasPrefix(".") }.map {
                        ($0, try Data(contentsOf: URL(fileURLWithPath: folder + "/\(path)/" + $0)))
                    })
            }
            var tables: [String] = []
            for (name, workers) in [("one", []), ("two", ["--workers", "2"])] as [(String, [String])] {
                try AtomicFile.createFolder(folder + "/" + name)
                for command in [
                    ["index", "build", "--corpus", "corpus", "--out", name + "/i.sqlite"],
                    ["activations", "--corpus", "corpus", "--units", "all", "--out", name + "/a"],
                    [
                        "eval", "--tasks", "arc_easy,winogrande", "--data", Fixture.path("benchmarks/hub"),
                        "--quiet",
                    ],
                ] {
                    let result = try Command.run(command + ["--model", "run/latest"] + workers, in: folder)
                    #expect(result.status == 0, "\(result.errors)")
                    if command[0] == "eval" { tables.append(result.output) }
                }
            }
            #expect(try files("one/a") == files("two/a"))
            #expect(
                try Data(contentsOf: URL(fileURLWithPath: folder + "/one/i.sqlite"))
                    == Data(contentsOf: URL(fileURLWithPath: folder + "/two/i.sqlite")))
            #expect(tables[0] == tables[1] && tables[0].contains("arc_easy"), "\(tables)")
            let exists = try Command.run(
                [
                    "index", "build", "--model", "run/latest", "--corpus", "corpus", "--out", "one/i.sqlite",
                    "--workers", "2",
                ], in: folder)
            #expect(exists.status == 1 && exists.errors.contains("one/i.sqlite"), "\(exists.errors)")
        }
    }

    /// The folder of checkpoints disappears under the first process, which alone writes.
    @Test func aFailingSaveEndsAll() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let running = try Command.start(
                four + ["--out", "run", "--steps", "3000", "--workers", "2"], in: folder)
            running.waitUntil("saved run/checkpoints")
            let checkpoints = folder + "/run/checkpoints"
            try FileManager.default.moveItem(atPath: checkpoints, toPath: folder + "/kept")
            try Data().write(to: URL(fileURLWithPath: checkpoints))
            let failed = running.wait()
            #expect(failed.status == 1)
            let reason = try #require(failed.errors.range(of: "monet: ", options: .backwards)).lowerBound
            #expect(failed.errors[reason...].contains("run/checkpoints"), "\(failed.errors)")
            #expect(!failed.errors.contains("MPI_ABORT"))
            // With the folder back in its place, the run goes on.
            try FileManager.default.removeItem(atPath: checkpoints)
            try FileManager.default.moveItem(atPath: folder + "/kept", toPath: checkpoints)
            try goesOn(folder, workers: 2)
        }
    }

    /// Without a number of micro-batches, processes divide the batch, 1, 2 and 4 of them alike; a dense model's checkpoint
    /// says of itself what that of one process says.
    @Test func defaultsAreShared() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let dense = ["train", "run.yaml", "--decomposition", "dense", "--steps", "4"]
            let given = try Command.run(
                dense + ["--out", "given", "--accumulation", "4", "--batch-size", "1"], in: folder)
            #expect(given.status == 0, "\(given.errors)")
            for workers in ["1", "2", "4"] {
                let shared = try Command.run(dense + ["--out", workers, "--workers", workers], in: folder)
                #expect(shared.status == 0, "\(shared.errors)")
                #expect(shared.errors.contains("accumulation 4, batch_size 1"), "\(shared.errors)")
                #expect(try model(folder + "/given") == model(folder + "/" + workers))
            }
            let texts = try ["given", "2"].map { try TextFile.read(folder + "/\($0)/latest/config.json") }
            #expect(texts[0] == texts[1] && !texts[0].contains("moe_"), "\(texts[1])")
        }
    }

    /// In a process that a launcher started alone, workers are started as usual; in one of two, they are there already.
    @Test func launchersMayStandAbove() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            func run(_ count: String, _ out: String) throws -> (status: Int32, errors: String) {
                let process = Process()
                process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
                process.arguments =
                    ["mpirun", "--bind-to", "none", "--oversubscribe", "-np", count, Command.path] + four
                    + ["--out", out, "--steps", "2", "--workers", "4"]
                process.currentDirectoryURL = URL(fileURLWithPath: folder)
                process.environment = ProcessInfo.processInfo.environment.merging([
                    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
                ]) { $1 }
                let pipe = Pipe()
                (process.standardError, process.standardOutput) = (pipe, FileHandle.nullDevice)
                try process.run()
                let errors = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
                process.waitUntilExit()
                return (process.terminationStatus, errors)
            }
            let one = try run("1", "one")
            #expect(one.status == 0 && one.errors.contains("4 processes"), "\(one.errors)")
            let two = try run("2", "two")
            #expect(two.status != 0, "\(two.errors)")
            #expect(
                two.errors.contains("--workers is 4, but a launcher has started 2 processes"), "\(two.errors)"
            )
        }
    }

    /// Both versions of mpirun have flags of their own; one that stands in for it shows what it is given.
    @Test(arguments: [
        ("4.1.4", ["--quiet", "--oversubscribe"], ":OVERSUBSCRIBE"),
        ("5.0.11", ["--map-by :OVERSUBSCRIBE"], "--quiet"),
    ])
    func versionsHaveTheirFlags(version: String, given: [String], absent: String) throws {
        try withTemporaryFolder { folder in
            let script = """
                #!/bin/sh
                [ "$1" = --version ] && echo "mpirun (Open MPI) \(version)" && exit
                echo "$@" >&2
                exit 213
                """
            try Data(script.utf8).write(to: URL(fileURLWithPath: folder + "/mpirun"))
            chmod(folder + "/mpirun", 0o755)
            let result = try Command.run(
                ["train", "run.yaml", "--out", "run", "--workers", "2"], in: folder,
                environment: ["PATH": folder + ":/usr/bin:/bin"])
            #expect(
                result.status == 1 && result.errors.contains("mpirun ended with code 213"), "\(result.errors)"
            )
            for flag in given { #expect(result.errors.contains(flag), "\(result.errors)") }
            #expect(!result.errors.contains(absent), "\(result.errors)")
            #expect(result.errors.contains("-np 2") && result.errors.contains("train run.yaml --out run"))
        }
    }

    @Test func whatIsWrongIsSaid() throws {
        try withTemporaryFolder { folder in
            try makeCorpus(folder)
            let uneven = try Command.run(
                ["train", "run.yaml", "--out", "run", "--accumulation", "3", "--workers", "2"], in: folder)
            #expect(uneven.status == 1)
            #expect(uneven.errors.contains("\"accumulation\" is 3 micro-batches"), "\(uneven.errors)")
            #expect(!uneven.errors.contains("MPI_ABORT"))
            #expect(!FileManager.default.fileExists(atPath: folder + "/run"))
            let zero = try Command.run(
                ["train", "run.yaml", "--out", "run", "--workers", "0"], in: folder)
            #expect(zero.status == 64 && zero.errors.contains("--workers is 0"))
            let missing = try Command.run(
                ["train", "run.yaml", "--out", "run", "--workers", "2"], in: folder,
                environment: ["PATH": folder])
            #expect(missing.status == 1 && missing.errors.contains("mpirun"), "\(missing.errors)")
            let other = folder + "/mpirun"
            try Data("#!/bin/sh\necho HYDRA build details\n".utf8).write(to: URL(fileURLWithPath: other))
            chmod(other, 0o755)
            let foreign = try Command.run(
                ["train", "run.yaml", "--out", "run", "--workers", "2"], in: folder,
                environment: ["PATH": folder])
            #expect(
                foreign.status == 1 && foreign.errors.contains("is not Open MPI's: HYDRA"),
                "\(foreign.errors)")
        }
    }
}
