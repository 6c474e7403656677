import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

#if canImport(FoundationNetworking)
    import FoundationNetworking
#endif

/// The server, batches and the explorer's pages, as commands.
@Suite struct ServeCommandTests {
    private static func makeModel(_ folder: String) throws {
        let result = try Command.run(
            [
                "init", "--preset", "nano-vd", "--tokenizer", Fixture.path("text/trained.model"), "--out",
                "model",
                "--seed", "3",
            ], in: folder)
        try #require(result.status == 0, "\(result.errors)")
    }

    private static func status(_ address: String, _ path: String, body: String? = nil) async throws -> Int {
        var request = URLRequest(url: try #require(URL(string: address + path)))
        if let body {
            request.httpMethod = "POST"
            request.httpBody = Data(body.utf8)
            request.setValue("application/json", forHTTPHeaderField: "Content-Type")
        }
        let (_, response) = try await URLSession.shared.data(for: request)
        return (response as? HTTPURLResponse)?.statusCode ?? 0
    }

    private static func requestsInProgress(_ address: String) async throws -> Int {
        let url = try #require(URL(string: address + "/metrics"))
        let (data, _) = try await URLSession.shared.data(from: url)
        let lines = String(decoding: data, as: UTF8.self).split(separator: "\n")
        let line = lines.first { $0.hasPrefix("monet_requests_in_progress ") }
        return line.flatMap { Int($0.split(separator: " ")[1]) } ?? 0
    }

    /// It listens, answers, and ends by itself when it is asked to, after the request that runs.
    @Test func servesUntilASignal() async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("monet-serve-\(UUID())")
            .path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try Self.makeModel(folder)
        let server = try Command.start(["serve", "--model", "model", "--port", "0"], in: folder)
        defer { server.process.terminate() }
        server.waitUntil("ready after")
        let printed = FileManager.default.contents(atPath: server.outputPath).map {
            String(decoding: $0, as: UTF8.self)
        }
        let address = try #require(printed?.split(separator: "\n").first).description
        #expect(address.hasPrefix("http://127.0.0.1:"))
        #expect(try await Self.status(address, "/health") == 200)
        #expect(try await Self.status(address, "/") == 200)
        let running = Task {
            try await Self.status(
                address, "/v1/completions",
                body: #"{"prompt": "the sea", "max_tokens": 200, "ignore_eos": true}"#)
        }
        // Not before the server has the request: on a busy machine that takes a while.
        for _ in 0..<500 where try await Self.requestsInProgress(address) == 0 {
            try await Task.sleep(for: .milliseconds(10))
        }
        kill(server.process.processIdentifier, SIGTERM)
        #expect(try await running.value == 200)
        let result = server.wait()
        #expect(result.status == 0, "\(result.errors)")
    }

    @Test func mistakesEndItWithAMessage() throws {
        try withTemporaryFolder { folder in
            try Self.makeModel(folder)
            for (arguments, words, code) in [
                (["--host", "0.0.0.0"], "without a key", 1), (["--mask", "x"], "NAME=FILE", 64),
                (["--mask", "x=none.mask"], "none.mask", 1), (["--port", "99999"], "0 to 65535", 64),
                (["--mask-dir", "none"], "no folder", 1), (["--index", "none.sqlite"], "none.sqlite", 1),
                (["--context", "100000"], "at most", 1),
            ] {
                let result = try Command.run(
                    ["serve", "--model", "model", "--port", "0"] + arguments, in: folder)
                #expect(result.status == code, "\(arguments): \(result.errors)")
                #expect(result.errors.contains(words), "\(arguments): \(result.errors)")
            }
        }
    }

    /// A batch that was interrupted continues, with the results of one that was not.
    @Test func batchesContinue() throws {
        try withTemporaryFolder { folder in
            try Self.makeModel(folder)
            let lines = (0..<60).map {
                #"{"id": "line \#($0)", "prompt": "the sea \#($0)", "max_new_tokens": \#(20 + $0 % 7)}"#
            }
            try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder + "/prompts.jsonl")
            let arguments = [
                "generate", "--model", "model", "--prompts", "prompts.jsonl", "--batch-invariant",
                "--ignore-eos",
            ]
            let whole = try Command.run(arguments + ["--out", "whole.jsonl", "--parallel", "3"], in: folder)
            try #require(whole.status == 0, "\(whole.errors)")
            let running = try Command.start(arguments + ["--out", "parts.jsonl"], in: folder)
            let partial = folder + "/parts.jsonl.partial"
            while running.process.isRunning, (try? TextFile.read(partial))?.contains("line 3") != true {
                usleep(2000)
            }
            running.process.interrupt()
            let stopped = running.wait()
            if stopped.status != 0 {
                #expect(stopped.status == 130)
                #expect(!FileManager.default.fileExists(atPath: folder + "/parts.jsonl"))
                let other = try Command.run(
                    arguments + ["--out", "parts.jsonl", "--temperature", "0.1"], in: folder)
                #expect(other.status == 1 && other.errors.contains("delete it to begin anew"))
                let rest = try Command.run(arguments + ["--out", "parts.jsonl"], in: folder)
                #expect(rest.status == 0, "\(rest.errors)")
            }
            let results = try TextFile.read(folder + "/whole.jsonl")
            #expect(try TextFile.read(folder + "/parts.jsonl") == results)
            #expect(!FileManager.default.fileExists(atPath: partial))
            let all = try results.split(separator: "\n").map {
                try JSONValue(parsing: String($0), source: "a result")
            }
            #expect(all.count == 60 && all[59]["id"] == "line 59")
            #expect(
                all.allSatisfy {
                    ($0["tokens"]?.arrayValue?.count ?? 0) == 20 + ($0["index"]?.intValue ?? 0) % 7
                })
        }
    }

    static let badLines: [(line: String, words: String)] = [
        (#"{"prompt": "a", "foo": 1}"#, "\"foo\""), ("5", "an object"), (#"{"prompt": 5}"#, "a text"),
        ("{}", "one of"),
        (#"{"prompt": "a", "token_ids": [1]}"#, "one of"), (#"{"token_ids": [99999999]}"#, "token ids below"),
        (#"{"prompt": "a", "temperature": -1}"#, "temperature"),
        (#"{"prompt": "a", "max_new_tokens": 1.5}"#, "integer"),
        (#"{"prompt": "a", "masks": ["none.mask"]}"#, "none.mask"),
        (#"{"prompt": "a", "strengths": {"9/9": 1}}"#, "names from"),
        (#"{"messages": []}"#, "chat_template"), (#"{"prompt": "a""#, "line 2"),
        (#"{"prompt": "a", "stop": 1}"#, "a text or a list"),
    ]

    @Test(arguments: badLines)
    func linesThatCannotBeUsedAreNamed(line: String, words: String) throws {
        try withTemporaryFolder { folder in
            try Self.makeModel(folder)
            try AtomicFile.write("{\"prompt\": \"a\"}\n\(line)\n", to: folder + "/prompts.jsonl")
            let result = try Command.run(
                ["generate", "--model", "model", "--prompts", "prompts.jsonl", "--out", "out.jsonl"],
                in: folder)
            #expect(result.status == 1 && result.errors.contains(words), "\(line): \(result.errors)")
            #expect(!FileManager.default.fileExists(atPath: folder + "/out.jsonl"))
        }
    }

    @Test func comparisonsAndTokens() throws {
        try withTemporaryFolder { folder in
            try Self.makeModel(folder)
            let configuration = try Checkpoint.configuration(folder + "/model")
            let units = configuration.feedForward.units(layerCount: configuration.layerCount)
            try MaskFile(mask: .random(share: 0.3, of: units, seed: 1), model: nil, recipe: .null)
                .write(to: folder + "/some.mask")
            let result = try Command.run(
                [
                    "generate", "--model", "model", "-p", "the sea", "-n", "8", "--seed", "1", "--compare",
                    "some.mask",
                    "--compare", "some.mask:1", "--json", "--ignore-eos",
                ], in: folder)
            let variants = try JSONValue(parsing: result.output, source: "output").arrayValue ?? []
            try #require(variants.count == 3, "\(result.errors)")
            #expect(variants[0]["text"] != variants[1]["text"])
            let encoded = try Command.run(
                ["tokenizer", "encode", "--tokenizer", "model", "the sea"], in: folder)
            let piped = try Command.run(
                ["tokenizer", "encode", "--tokenizer", "model"], in: folder, input: "the sea\n")
            #expect(encoded.output == piped.output && !encoded.output.isEmpty)
        }
    }

    /// A folder of pages that need no server, which is not written over another kind of folder.
    @Test func pagesWithoutAServer() throws {
        try withTemporaryFolder { folder in
            try Self.makeModel(folder)
            try AtomicFile.write(
                "{\"text\": \"the sea and a shark\", \"label\": \"</script>\"}\n", to: folder + "/texts.jsonl"
            )
            let index = try Command.run(
                ["index", "build", "--model", "model", "--corpus", "texts.jsonl", "--out", "index.sqlite"],
                in: folder)
            try #require(index.status == 0, "\(index.errors)")
            let arguments = ["explore", "--index", "index.sqlite", "--out", "pages", "--experts", "5"]
            let result = try Command.run(arguments + ["--model", "model"], in: folder)
            try #require(result.status == 0, "\(result.errors)")
            let names = try FileManager.default.contentsOfDirectory(atPath: folder + "/pages")
            #expect(
                names.contains("index.html") && names.contains("explorer.js")
                    && names.contains("data-api-info.js"))
            #expect(names.filter { $0.hasPrefix("data-api-experts-") }.count > 5)
            let bundle = try TextFile.read(folder + "/pages/explorer.js")
            #expect(!bundle.contains("\nimport ") && !bundle.contains("\nexport "))
            #expect(try Command.run(arguments, in: folder).errors.contains("exists already"))
            #expect(try Command.run(arguments + ["--overwrite"], in: folder).status == 0)
            let other = try Command.run(
                ["explore", "--index", "index.sqlite", "--out", "model", "--overwrite"], in: folder)
            #expect(
                other.status == 1 && FileManager.default.fileExists(atPath: folder + "/model/config.json"))
        }
    }

    @Test func namesOfTheHubPointToTheDownload() throws {
        try withTemporaryFolder { folder in
            let result = try Command.run(
                ["info", "ORG/NAME"], in: folder, environment: ["HF_HUB_CACHE": folder])
            #expect(result.status == 1 && result.errors.contains("monet download ORG/NAME"))
            let offline = try Command.run(
                ["download", "ORG/NAME"], in: folder,
                environment: ["HF_HUB_CACHE": folder, "HF_HUB_OFFLINE": "1"])
            #expect(offline.status == 1 && offline.errors.contains("HF_HUB_OFFLINE"))
        }
    }
}
