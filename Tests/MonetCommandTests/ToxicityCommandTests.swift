import Foundation
import MonetFoundation
import Synchronization
import TestSupport
import Testing

/// Toxicity as a user measures it: offline, over HTTP from a real server, stopped and gone on with.
@Suite struct ToxicityCommandTests {
    private func prepare(_ folder: String) throws {
        try run(
            [
                "init", "--preset", "nano-vd", "--tokenizer", Fixture.path("text/trained.model"), "--out",
                "model", "--seed", "3", "--calibrate",
            ], folder)
        let comments = (0..<40).map { number in
            let isToxic = number % 2 == 0
            return
                #"{"text": "\#(isToxic ? "you zog of a zogger" : "the ship on the sea") \#(number)", "toxicity": \#(isToxic ? 1 : 0)}"#
        }
        try AtomicFile.write(comments.joined(separator: "\n") + "\n", to: folder + "/comments.jsonl")
        let prompts = ["The sea", "A ship", "You zog", "Bread and"].map {
            #"{"prompt": {"text": "\#($0)"}, "group": "\#($0.count % 2 == 0 ? "even" : "odd")"}"#
        }
        try AtomicFile.write(prompts.joined(separator: "\n") + "\n", to: folder + "/prompts.jsonl")
        try AtomicFile.write("the ship sails on the sea\n", to: folder + "/neutral.txt")
    }

    @discardableResult
    private func run(
        _ arguments: [String], _ folder: String, status: Int32 = 0, environment: [String: String] = [:]
    ) throws -> Command.Result {
        let result = try Command.run(arguments, in: folder, environment: environment)
        #expect(result.status == status, "\(arguments.joined(separator: " ")): \(result.errors)")
        return result
    }

    private static let measure = [
        "toxicity", "measure", "--model", "model", "--prompts", "prompts.jsonl", "--samples", "3", "-n", "4",
    ]

    @Test func thresholdsTablesAndPages() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let arguments =
                Self.measure + [
                    "--corpus", "comments.jsonl", "--thresholds", "0.9,0.3", "--neutral", "neutral.txt",
                ]
            let pages = ["--html", "t.html", "--svg", "t.svg"]
            let table = try run(arguments + pages, folder)
            // What is there already stays, unless it is to be replaced.
            #expect(try run(arguments + pages, folder, status: 1).errors.contains("--overwrite"))
            try run(arguments + pages + ["--overwrite"], folder)
            #expect(table.output.contains("expected maximum") && table.output.contains("above 0.3"))
            #expect(table.output.contains("perplexity") && table.output.contains("AUC"))
            #expect(table.output.contains("even") && table.output.contains("odd"))
            #expect(FileManager.default.fileExists(atPath: folder + "/t.svg"))
            let json = try JSONValue(parsing: run(arguments + ["--json"], folder).output, source: "output")
            let results = try #require(json["results"]?.arrayValue)
            #expect(results.count == 3)
            let removed = results.compactMap { $0["removed"]?.intValue }
            #expect(removed[0] == 0 && removed[1] <= removed[2] && removed[2] > 0)
            // The same numbers each time, and a mask file in the place of a threshold gives the same.
            try run(
                [
                    "mask", "correlation", "--model", "model", "--corpus", "comments.jsonl", "--number",
                    "toxicity", "--threshold", "0.3", "--out", "toxic.mask",
                ], folder)
            let masked = try JSONValue(
                parsing: run(
                    Self.measure + ["--mask", "toxic.mask", "--neutral", "neutral.txt", "--json"], folder
                ).output, source: "output")
            let other = try #require(masked["results"]?.arrayValue?.last)
            for key in ["removed", "expected_maximum_toxicity", "mean_toxicity", "helpfulness"] {
                #expect(other[key] == results[2][key], "\(key)")
            }
            let greedy = try run(
                Self.measure.filter { !["--samples", "3"].contains($0) } + ["--protocol", "toxigen"], folder)
            #expect(greedy.output.contains("greedy"))
        }
    }

    @Test func aServerThatFailsAndComesBack() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let isUp = Mutex(false)
            let server = try ScriptedServer { _, number in
                if number < 5 || isUp.withLock({ $0 }) { return .score(Double(number % 4) / 4) }
                return .init(status: 429, body: #"{"error": {"message": "quota exceeded"}}"#)
            }
            defer { server.stop() }
            let arguments =
                Self.measure + [
                    "--scorer", "http", "--scorer-url", server.address, "--scorer-attempts", "2", "--records",
                    "r.jsonl", "--json",
                ]
            let failed = try run(
                arguments, folder, status: 1, environment: ["PERSPECTIVE_API_KEY": "from-environment"])
            #expect(failed.errors.contains("quota exceeded") && failed.errors.contains("goes on from there"))
            #expect(server.requests[0].target.contains("key=from-environment"))
            let kept = try TextFile.read(folder + "/r.jsonl").split(separator: "\n").count
            #expect(kept == 2)
            isUp.withLock { $0 = true }
            let result = try run(arguments, folder)
            #expect(
                try JSONValue(parsing: result.output, source: "output")["scorer"]?["kind"]?.stringValue
                    == "http")
            #expect(try TextFile.read(folder + "/r.jsonl").split(separator: "\n").count == 5)
        }
    }

    @Test func interruptedWhileAServerIsSlow() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let server = try ScriptedServer { _, number in .score(0.5, delay: number < 4 ? 0 : 20) }
            defer { server.stop() }
            let running = try Command.start(
                Self.measure + [
                    "--scorer", "http", "--scorer-url", server.address, "--records", "r.jsonl",
                ], in: folder)
            while running.process.isRunning, server.requests.count < 5 { usleep(5000) }
            running.process.interrupt()
            let result = running.wait()
            #expect(result.status == 130 && result.errors.contains("goes on from r.jsonl"))
            #expect(try TextFile.read(folder + "/r.jsonl").split(separator: "\n").count == 2)
        }
    }

    @Test func scorersOfOnesOwn() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let trained = try run(
                [
                    "toxicity", "train-scorer", "comments.jsonl", "--neutral", "neutral.txt", "--out",
                    "c.json",
                ],
                folder)
            #expect(trained.errors.contains("AUC 1.000"))
            let scored = try Command.run(
                ["toxicity", "score", "--classifier", "c.json", "--json"], in: folder,
                input: "you zog\nthe ship on the sea\n")
            let scores = try scored.output.split(separator: "\n").map {
                try JSONValue(parsing: String($0), source: "output")["score"]?.doubleValue ?? -1
            }
            #expect(scored.status == 0 && scores.count == 2 && scores[0] > scores[1])
            #expect(try run(["toxicity", "score", "the sea"], folder).errors.contains("AUC"))
        }
    }

    @Test func badInput() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            try AtomicFile.write("{\"prompt\": 7}\n", to: folder + "/bad.jsonl")
            try AtomicFile.write("{}\n", to: folder + "/c.json")
            func measure(_ prompts: String, _ more: [String] = []) -> [String] {
                ["toxicity", "measure", "--model", "model", "--prompts", prompts] + more
            }
            for (arguments, status, words) in [
                (measure("none.jsonl"), 1, "none.jsonl"), (measure("bad.jsonl"), 1, "line 1"),
                (measure("prompts.jsonl", ["--classifier", "c.json"]), 1, "c.json"),
                (measure("prompts.jsonl", ["--corpus", "bad.jsonl"]), 1, "bad.jsonl"),
                (measure("prompts.jsonl", ["--corpus", "comments.jsonl", "--number", "mood"]), 1, "mood"),
                (measure("prompts.jsonl", ["--records", "no/such/r.jsonl"]), 1, "no/such"),
                (measure("prompts.jsonl", ["--thresholds", "2"]), 64, "thresholds"),
                (measure("prompts.jsonl", ["--samples", "0"]), 64, "samples"),
                (measure("prompts.jsonl", ["--scorer-key", "k"]), 64, "scorer"),
                (measure("prompts.jsonl", ["--scorer-rate", "1e-300"]), 64, "scorer-rate"),
                (measure("prompts.jsonl", ["--scorer", "http", "--scorer-url", "no url"]), 1, "URL"),
                (["toxicity", "train-scorer", "neutral.txt", "--out", "x.json"], 1, "no number"),
            ] as [([String], Int32, String)] {
                let result = try run(arguments, folder, status: status)
                #expect(result.errors.contains(words), "\(arguments): \(result.errors)")
            }
            #expect(!FileManager.default.fileExists(atPath: folder + "/x.json"))
        }
    }
}
