import Foundation
import MonetFoundation
import TestSupport
import Testing

/// Pipes in the place of files, and machines that grant little: a result or one line of error, never a crash or a
/// wait without end.
@Suite struct LimitTests {
    private let model = Fixture.path("tiny-vd")
    private let tokenizer = Fixture.path("text/trained.model")

    private func expectError(_ result: Command.Result, _ words: String) {
        #expect(result.status == 1 && result.output.isEmpty, "\(result.status): \(result.errors)")
        #expect(result.errors.hasPrefix("error: ") && result.errors.contains(words), "\(result.errors)")
    }

    @Test func textsComeFromPipes() throws {
        try withTemporaryFolder { folder in
            let lines = (0..<300).map { #"{"text": "the sea \#($0) and the ship", "label": "a"}"# }
                .joined(separator: "\n")
            try AtomicFile.write(lines + "\n", to: folder + "/l.jsonl")
            func piped(_ arguments: [String]) throws -> Command.Result {
                let pipe = arguments.last ?? ""
                return try Command.run(
                    arguments, in: folder,
                    shellPrefix: "rm -f \(pipe); mkfifo \(pipe); (cat l.jsonl > \(pipe) &)")
            }
            let build = ["corpus", "build", "--tokenizer", tokenizer, "--out"]
            #expect(try piped(build + ["piped", "pipe.jsonl"]).status == 0)
            // A pipe without an ending, as process substitution gives, is known by its first line.
            #expect(try piped(build + ["unnamed", "pipe"]).status == 0)
            #expect(try Command.run(build + ["plain", "l.jsonl"], in: folder).status == 0)
            let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/plain")
            #expect(names.count == 6)
            for name in names where name != "corpus.json" {
                #expect(
                    FileManager.default.contentsEqual(
                        atPath: folder + "/plain/" + name, andPath: folder + "/piped/" + name), "\(name)")
                #expect(
                    FileManager.default.contentsEqual(
                        atPath: folder + "/plain/" + name, andPath: folder + "/unnamed/" + name), "\(name)")
            }
            let train = ["tokenizer", "train", "--vocab-size", "301", "--out"]
            #expect(try piped(train + ["piped.model", "pipe.jsonl"]).status == 0)
            #expect(try Command.run(train + ["plain.model", "l.jsonl"], in: folder).status == 0)
            #expect(
                FileManager.default.contentsEqual(
                    atPath: folder + "/piped.model", andPath: folder + "/plain.model"))
        }
    }

    /// A pipe that nobody writes to.
    @Test(
        arguments: [
            ["info", "checkpoint"], ["experts", "find", "--index", "pipe"],
            ["tokenizer", "encode", "--tokenizer", "pipe"],
        ])
    func mappedFilesRefusePipesAtOnce(arguments: [String]) throws {
        try withTemporaryFolder { folder in
            try FileManager.default.copyItem(atPath: model, toPath: folder + "/checkpoint")
            let result = try Command.run(
                arguments, in: folder,
                shellPrefix: "rm checkpoint/model.safetensors; mkfifo pipe checkpoint/model.safetensors")
            expectError(result, "it is a pipe")
        }
    }

    #if os(Linux)
        @Test func littleAddressSpaceIsAnError() throws {
            try withTemporaryFolder { folder in
                // 110 million parameters in float32 beside what the program itself takes.
                let result = try Command.run(
                    ["init", "--preset", "small-vd", "--out", "model", "--vocab-size", "100000"], in: folder,
                    shellPrefix: "ulimit -v 700000")
                #expect(result.status == 1 && result.errors.hasPrefix("error: "), "\(result.errors)")
                #expect(!FileManager.default.fileExists(atPath: folder + "/model"))
            }
        }

        @Test func fewDescriptorsAreEnoughOrAnError() throws {
            try withTemporaryFolder { folder in
                for count in 4...12 {
                    let result = try Command.run(
                        ["generate", "--model", model, "--token-ids", "1 5", "-n", "2", "--greedy"],
                        in: folder, shellPrefix: "ulimit -n \(count)")
                    #expect(
                        result.status == 0 || result.status == 1 && result.errors.hasPrefix("error: "),
                        "\(count): \(result.status) \(result.errors)")
                }
            }
        }
    #endif

    /// A file cut off while it is mapped: the error names it.
    @Test func aFileThatShrinksIsAnError() throws {
        try withTemporaryFolder { folder in
            let ids = (0..<40_000).map { "\($0 % 50 + 3)" }.joined(separator: " ")
            try AtomicFile.write(ids, to: folder + "/ids")
            try FileManager.default.copyItem(atPath: model, toPath: folder + "/checkpoint")
            let running = try Command.start(
                ["perplexity", "--model", "checkpoint", "--token-ids", ids], in: folder)
            running.waitUntil("perplexity")
            truncate(folder + "/checkpoint/model.safetensors", 100)
            let result = running.wait()
            #expect(result.status == 1 && result.output.isEmpty)
            #expect(
                result.errors.contains(
                    "error: checkpoint/model.safetensors: cannot be read: it became shorter"),
                "\(result.errors)")
        }
    }

    @Test func runsThatDoNotFitIntoMemoryAreRefused() throws {
        try withTemporaryFolder { folder in
            try AtomicFile.write(
                #"{"text": "the sea and the ship and the law"}"# + "\n", to: folder + "/l.jsonl")
            let corpus = try Command.run(
                [
                    "corpus", "build", "--tokenizer", tokenizer, "--out", "c", "l.jsonl",
                    "--validation-share", "0",
                ],
                in: folder)
            #expect(corpus.status == 0)
            for sizes in [
                ["batch_size=65536"], ["model={\"preset\": \"4.1B-vd\", \"num_hidden_layers\": 4096}"],
            ] {
                let result = try Command.run(
                    [
                        "train", "--preset", "nano-vd", "--corpus", "c", "--out", "run", "--sequence-length",
                        "256",
                    ]
                        + sizes.flatMap { ["--set", $0] }, in: folder)
                expectError(result, "of memory")
                #expect(!FileManager.default.fileExists(atPath: folder + "/run/run.json"))
            }
        }
    }
}
