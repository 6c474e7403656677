import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// Commands that read a model, on the fixtures and on bad input.
@Suite struct ModelCommandTests {
    private func generatedIDs(_ text: String, key: String = "generated_ids") throws -> [Int] {
        try #require(try JSONValue(parsing: text, source: "output")[key]?.arrayValue).compactMap(\.intValue)
    }

    @Test(arguments: [("tiny-vd", "expected"), ("tiny-hd", "expected"), ("tiny-vd-bf16", "expected_f32")])
    func forwardAndGenerateAgreeWithTheFixtures(fixture: String, expectation: String) throws {
        try withTemporaryFolder { folder in
            let expected = try SafetensorsFile(path: Fixture.path("\(fixture)/\(expectation).safetensors"))
            let ids = try expected.tensor("input_ids")
            let rows = (0..<ids.shape[0]).map { row in
                Array(ids.integers()[(row * ids.shape[1])..<((row + 1) * ids.shape[1])])
            }
            try AtomicFile.write("\(rows)", to: folder + "/ids.json")
            let result = try Command.run(
                [
                    "forward", "--model", Fixture.path(fixture), "--tokens", "ids.json", "--out",
                    "out.safetensors",
                ], in: folder)
            #expect(result.status == 0, "\(result.errors)")
            let found = try SafetensorsFile(path: folder + "/out.safetensors")
            for entry in expected.entries where !["loss", "generated_ids", "input_ids"].contains(entry.name) {
                let tensor = try found.tensor(entry.name)
                #expect(tensor.dtype == .float32 && tensor.shape == entry.shape)
                #expect(relativeError(tensor, try expected.tensor(entry.name)) < 1e-4, "\(entry.name)")
            }
            let prompt = rows[0].map(String.init).joined(separator: " ")
            for extra in [[], ["--no-cache"], ["--threads", "1"]] {
                let generated = try Command.run(
                    [
                        "generate", "--model", Fixture.path(fixture), "--token-ids", prompt,
                        "--max-new-tokens", "16", "--greedy", "--json",
                    ]
                        + extra, in: folder)
                #expect(try generatedIDs(generated.output) == expected.tensor("generated_ids").integers())
            }
        }
    }

    /// A model with a tokenizer in `folder/model`.
    private func makeModel(_ folder: String) throws {
        let result = try Command.run(
            [
                "init", "--preset", "nano-vd", "--tokenizer", Fixture.path("text/trained.model"), "--out",
                "model", "--seed", "3",
            ], in: folder)
        #expect(result.status == 0, "\(result.errors)")
    }

    @Test func aModelMadeHereServesEveryCommand() throws {
        try withTemporaryFolder { folder in
            try makeModel(folder)
            let info = try Command.run(["info", "model", "--json"], in: folder)
            #expect(
                try JSONValue(parsing: info.output, source: "info")["parameters"]?.intValue
                    == MonetConfiguration.preset("nano-vd").parameterCount)
            // Three ways to give a prompt, one result.
            try AtomicFile.write("The sea is", to: folder + "/prompt.txt")
            let options = ["--model", "model", "-n", "12", "--seed", "5", "--ignore-eos"]
            let first = try Command.run(["generate", "--prompt", "The sea is"] + options, in: folder)
            #expect(first.status == 0 && first.output.hasPrefix("The sea is"))
            #expect(try Command.run(["generate", "The sea is"] + options, in: folder).output == first.output)
            #expect(
                try Command.run(["generate", "-f", "prompt.txt"] + options, in: folder).output == first.output
            )
            #expect(
                try Command.run(["generate"] + options, in: folder, input: "The sea is").output
                    == first.output)
            #expect(!first.output.contains("\u{1b}") && !first.errors.contains("\u{1b}"))

            let table = try Command.run(["trace", "--model", "model", "The sea"], in: folder)
            #expect(table.status == 0 && table.output.contains("sea"))
            let trace = try Command.run(["trace", "--model", "model", "The sea", "--json"], in: folder)
            #expect(try JSONValue(parsing: trace.output, source: "trace")["tokens"]?.arrayValue?.count == 3)
            #expect(
                try Command.run(["trace", "--model", "model", "The sea", "--html", "page.html"], in: folder)
                    .status == 0)
            #expect(try TextFile.read(folder + "/page.html").contains("</html>"))

            let perplexity = try Command.run(
                ["perplexity", "--model", "model", "-f", "prompt.txt", "--json"], in: folder)
            let value = try #require(
                try JSONValue(parsing: perplexity.output, source: "perplexity")["perplexity"]?.doubleValue)
            // Random weights know nothing: about one in 4096.
            #expect(value > 1000 && value < 20000)

            let converted = try Command.run(
                ["convert", "--model", "model", "--dtype", "bf16", "--shard-size", "1MB", "--out", "small"],
                in: folder)
            #expect(converted.status == 0, "\(converted.errors)")
            #expect(FileManager.default.fileExists(atPath: folder + "/small/model.safetensors.index.json"))
            #expect(FileManager.default.fileExists(atPath: folder + "/small/tokenizer.model"))
            #expect(
                try Command.run(["generate", "--prompt", "The", "-m", "small", "-n", "3"], in: folder).status
                    == 0)
            #expect(
                try Command.run(["convert", "--model", "model", "--out", "small"], in: folder).status == 1)
            #expect(
                try Command.run(["convert", "--model", "model", "--out", "small", "--overwrite"], in: folder)
                    .status == 0)
        }
    }

    @Test func chatNeedsATemplateAndUsesIt() throws {
        try withTemporaryFolder { folder in
            try makeModel(folder)
            let without = try Command.run(["chat", "--model", "model"], in: folder, input: "Hello\n")
            #expect(without.status == 1 && without.errors.contains("chat_template"))
            let path = folder + "/model/tokenizer_config.json"
            let members = try JSONValue(contentsOfFile: path).members ?? []
            let template =
                "{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}assistant:"
            try AtomicFile.write(
                JSONValue.object(members + [.init("chat_template", .string(template))]).serialized(), to: path
            )
            let chat = try Command.run(
                ["chat", "--model", "model", "-n", "4", "--greedy"], in: folder,
                input: "Hello\n/reset\nAgain\n")
            #expect(chat.status == 0, "\(chat.errors)")
            #expect(!chat.output.isEmpty)
        }
    }

    /// Arguments, standard input, and what the message must say. Each ends with 1 and writes no result.
    @Test(arguments: [
        (["info", "absent"], "", "absent"), (["info", "file.txt"], "", "file.txt"),
        (["info", "hollow"], "", "config.json"),
        (["generate", "--model", "absent", "--prompt", "x"], "", "absent"),
        (["generate", "--model", "model", "-f", "absent.txt"], "", "absent.txt"),
        (["generate", "--model", "model", "-f", "latin1.txt"], "", "latin1.txt"),
        (["generate", "--model", "model", "-f", "empty.txt"], "", "empty.txt"),
        (["generate", "--model", "model"], "", "standard input"),
        (["generate", "--model", "model", "--token-ids", "5 99999"], "", "99999"),
        (["generate", "--model", "model", "-f", "long.txt"], "", "256"),
        (["trace", "--model", "model", "-f", "long.txt"], "", "256"),
        (["perplexity", "--model", "model", "one", "--stride", "0"], "", "stride"),
        (["forward", "--model", "model", "--tokens", "ragged.json", "--out", "result"], "", "ragged.json"),
        (["forward", "--model", "model", "--tokens", "words.json", "--out", "result"], "", "words.json"),
        (["forward", "--model", "model", "--tokens", "empty.txt", "--out", "result"], "", "empty.txt"),
        (["forward", "--model", "model", "--tokens", "negative.json", "--out", "result"], "", "-1"),
        (["forward", "--model", "model", "The sea", "--out", "absent/result"], "", "absent/result"),
        (["convert", "--model", "absent", "--out", "result"], "", "absent"),
        (["tokenizer", "encode", "--tokenizer", "file.txt"], "x", "file.txt"),
        (["tokenizer", "decode", "--tokenizer", "model"], "[1, 99999]", "99999"),
        (["tokenizer", "decode", "--tokenizer", "model"], "[1, \"x\"]", "line 1"),
        (["tokenizer", "train", "empty.txt", "--out", "result"], "", ""),
        (["tokenizer", "train", "latin1.txt", "--out", "result"], "", "latin1.txt"),
        (["corpus", "build", "absent", "--tokenizer", "model", "--out", "result"], "", "absent"),
        (["corpus", "build", "empty.txt", "--tokenizer", "model", "--out", "result"], "", "empty.txt"),
        (["corpus", "build", "bad.jsonl", "--tokenizer", "model", "--out", "result"], "", "line 1"),
        (["train", "--preset", "nano-vd", "--corpus", "absent", "--out", "result"], "", "absent"),
        (["train", "bad.yaml", "--out", "result"], "", "bad.yaml"),
        (["train", "unknown.yaml", "--out", "result"], "", "huge-vd"),
        (["train", "typo.yaml", "--out", "result"], "", "learning_rat"),
        (["train", "--resume", "--out", "result"], "", "result"),
    ])
    func badInputEndsWithOne(arguments: [String], input: String, says: String) throws {
        try withTemporaryFolder { folder in
            try makeModel(folder)
            #expect(
                try Command.run(
                    ["init", "--preset", "nano-llama", "--tokenizer", "model", "--out", "dense"], in: folder
                ).status == 0)
            try FileManager.default.createDirectory(
                atPath: folder + "/hollow", withIntermediateDirectories: true)
            for (name, text) in [
                ("file.txt", "text"), ("empty.txt", ""), ("ragged.json", "[[1,2],[3]]"),
                ("words.json", "[[\"a\"]]"),
                ("negative.json", "[[-1, 2]]"), ("long.txt", String(repeating: "word ", count: 2000)),
                ("bad.jsonl", "{\"text\": 3}\n"),
                ("bad.yaml", "model: [nano-vd\n"), ("unknown.yaml", "model: huge-vd\ncorpus: c\n"),
                ("typo.yaml", "model: nano-vd\ncorpus: c\nlearning_rat: 1\n"),
            ] { try AtomicFile.write(text, to: folder + "/" + name) }
            try Data([0x63, 0xe9, 0x0a]).write(to: URL(fileURLWithPath: folder + "/latin1.txt"))
            let result = try Command.run(arguments, in: folder, input: input)
            #expect(result.status == 1, "\(arguments): \(result.errors)")
            #expect(result.errors.contains("error: "), "\(arguments): \(result.errors)")
            #expect(result.errors.contains(says) || says.isEmpty, "\(arguments): \(result.errors)")
            #expect(!FileManager.default.fileExists(atPath: folder + "/result"))
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.contains(".tmp-") }
                    .isEmpty)
        }
    }

    @Test(arguments: [
        ["generate"], ["generate", "--model"], ["generate", "--model", "m", "--bogus"],
        ["generate", "--model", "m", "--top-k", "many"],
        ["init", "--preset", "huge", "--out", "x"],
        ["init", "--preset", "nano-vd", "--out", "x", "--dtype", "int3"], ["nonsense"],
        ["train", "--out", "x", "--resume", "--preset", "nano-vd"],
        ["forward", "--model", "m", "--out", "x"],
        ["generate", "--model", "m", "--threads", "0"],
        ["trace", "--model", "m", "x", "--log-level", "loud"],
    ])
    func wrongCommandLinesEndWith64(arguments: [String]) throws {
        try withTemporaryFolder { folder in
            let result = try Command.run(arguments, in: folder)
            #expect(result.status == 64, "\(arguments): \(result.status) \(result.errors)")
            #expect(result.output.isEmpty && !result.errors.isEmpty)
        }
    }

    @Test func helpVersionAndCompletions() throws {
        try withTemporaryFolder { folder in
            let version = try Command.run(["--version"], in: folder)
            #expect(version.status == 0 && version.output.split(separator: ".").count == 3)
            for shell in ["bash", "zsh", "fish"] {
                let script = try Command.run(["--generate-completion-script", shell], in: folder)
                #expect(script.status == 0 && script.output.contains("perplexity"))
            }
            for command in [
                "train", "tokenizer train", "tokenizer encode", "tokenizer decode", "corpus build",
                "generate", "chat", "trace", "info", "forward", "perplexity", "convert", "init",
            ] {
                let help = try Command.run(
                    command.split(separator: " ").map(String.init) + ["--help"], in: folder)
                #expect(
                    help.status == 0 && help.output.contains("EXAMPLES")
                        && help.output.contains("monet " + command), "\(command)")
            }
        }
    }

    @Test func quantizedModelsServeEveryCommand() throws {
        try withTemporaryFolder { folder in
            try makeModel(folder)
            for format in ["int8", "int4"] {
                let converted = try Command.run(
                    ["convert", "--model", "model", "--quantize", format, "--out", format], in: folder)
                #expect(converted.status == 0, "\(converted.errors)")
                let generated = try Command.run(
                    ["generate", "-m", format, "--prompt", "The", "-n", "4", "--kv-dtype", "int8"], in: folder
                )
                #expect(generated.status == 0 && generated.output.hasPrefix("The"), "\(generated.errors)")
                let compared = try Command.run(
                    ["perplexity", "-m", format, "The sea is wide", "--reference", "model", "--json"],
                    in: folder)
                let json = try JSONValue(parsing: compared.output, source: "perplexity")
                let agreement = try #require(json["next_token_agreement"]?.doubleValue)
                #expect(agreement >= 0 && agreement <= 1)
                #expect(try #require(json["kl_divergence"]?.doubleValue) < 0.1)
                #expect(
                    try Command.run(["trace", "-m", format, "The sea"], in: folder).output.contains("sea"))
                let again = try Command.run(
                    ["convert", "-m", format, "--dtype", "bf16", "--out", "back"], in: folder)
                #expect(again.status == 1 && again.errors.contains("convert the checkpoint they came from"))
            }
            #expect(
                try Command.run(["convert", "-m", "model", "--quantize", "int2", "--out", "x"], in: folder)
                    .status
                    == 64)
        }
    }

    @Test func benchMeasuresWhatIsAsked() throws {
        try withTemporaryFolder { folder in
            let made = try Command.run(
                [
                    "init", "--preset", "nano-vd", "--set", "moe_experts=24", "--set", "rope_theta=5000",
                    "--calibrate",
                    "--out", "model",
                ], in: folder)
            #expect(made.status == 0, "\(made.errors)")
            #expect(
                try MonetConfiguration(contentsOfFile: folder + "/model/config.json").experts?.perSide == 24)
            let result = try Command.run(
                [
                    "bench", "--model", "model", "--prompt-tokens", "20", "--new-tokens", "3", "--streams",
                    "2",
                    "--repeats", "2", "--mask-share", "0.1", "--json",
                ], in: folder)
            #expect(result.status == 0, "\(result.errors)")
            let json = try JSONValue(parsing: result.output, source: "bench")
            let rows = try #require(json["results"]?.arrayValue)
            #expect(rows.compactMap { $0["test"]?.stringValue } == ["load", "prefill", "decode", "batch"])
            for row in rows {
                #expect(try #require(row["tokens_per_second"]?.doubleValue) > 0)
                #expect(row["seconds"]?.arrayValue?.count == 2)
            }
            // The prompt's default length yields to a shorter context.
            let short = try Command.run(
                [
                    "init", "--preset", "nano-vd", "--set", "moe_experts=24", "--set",
                    "max_position_embeddings=100", "--out", "short",
                ], in: folder)
            #expect(short.status == 0, "\(short.errors)")
            let fitting = try Command.run(
                ["bench", "--model", "short", "--tests", "prefill", "--repeats", "1", "--json"], in: folder)
            #expect(fitting.status == 0, "\(fitting.errors)")
            let fittingRows = try JSONValue(parsing: fitting.output, source: "bench")["results"]?.arrayValue
            #expect(fittingRows?.first?["tokens"]?.intValue == 100)
            let table = try Command.run(
                [
                    "bench", "--tests", "train", "--preset", "nano-vd", "--batch-size", "1",
                    "--sequence-length", "8",
                    "--repeats", "1", "--quiet",
                ], in: folder)
            #expect(table.status == 0 && table.output.contains("train"), "\(table.errors)")
            for (arguments, status, word) in [
                (["bench", "--tests", "decode"], Int32(64), "--model"),
                (["bench", "--model", "model", "--tests", "speed"], 64, "speed"),
                (["bench", "--model", "model", "--streams", "0"], 64, "--streams"),
                (["bench", "--model", "model", "--prompt-tokens", "100000"], 1, "context"),
                (["init", "--preset", "nano-vd", "--set", "moe_depth=3", "--out", "y"], 64, "moe_depth"),
                (["init", "--preset", "nano-vd", "--set", "moe_topk=900", "--out", "y"], 1, "moe_topk"),
            ] {
                let bad = try Command.run(arguments, in: folder)
                #expect(bad.status == status && bad.errors.contains(word), "\(arguments): \(bad.errors)")
            }
        }
    }

    @Test func aForcedInstructionSetIsCheckedAndUsed() throws {
        try withTemporaryFolder { folder in
            let arguments = [
                "generate", "--model", Fixture.path("tiny-vd"), "--token-ids", "5 17 99", "-n", "8",
                "--greedy", "--json",
            ]
            let results = try Kernels.available.map {
                try Command.run(arguments, in: folder, environment: ["MONET_ISA": $0])
            }
            for result in results { #expect(result.status == 0, "\(result.errors)") }
            for result in results {
                #expect(try generatedIDs(result.output) == generatedIDs(results[0].output))
            }
            let bad = try Command.run(arguments, in: folder, environment: ["MONET_ISA": "mmx"])
            #expect(bad.status == 1 && bad.errors.contains("mmx"))
        }
    }
}
