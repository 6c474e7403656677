import Foundation
import MonetFoundation
import TestSupport
import Testing

/// `monet unlearn`, `monet report` and `monet corpus questions` as their users run them.
@Suite struct UnlearnCommandTests: InsightCommands {
    private static let documents = ["--corpus", "corpus", "--forget", "sea"]

    @Test func examinationsAndTheirReport() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            try AtomicFile.createFolder(folder + "/results")
            let rmu =
                [
                    "unlearn", "rmu", "--model", "model", "--layer", "1", "--layers", "0,1", "--steps", "2",
                    "--lr", "1e-3",
                ]
                + Self.documents
            try run(rmu + ["--out", "rmu"], folder)
            #expect(try run(rmu + ["--out", "rmu"], folder, status: 1).errors.contains("--overwrite"))
            let examine = [
                "unlearn", "examine", "--model", "model", "--beside", "other=rmu", "--new-tokens", "4",
                "--prompt-tokens", "3",
            ]
            let examined = try json(
                examine + Self.documents + [
                    "--specialists", "--min-count", "1", "--ratio", "1", "--random", "2",
                ], folder)
            #expect(examined["subjects"]?.members?.map(\.key) == ["model", "specialists", "other"])
            #expect(examined["random"]?["specialists"]?.arrayValue?.count == 2)
            let own = examined["subjects"]?["model"]?["measures"]
            #expect(own?["retain: routing stability"]?["value"]?.doubleValue == 1)
            #expect((own?["forget: loss"]?["n"]?.intValue ?? 0) > 3)
            try AtomicFile.write(examined.serialized(), to: folder + "/results/examined.json")
            let relearned = try json(
                [
                    "unlearn", "relearn", "--model", "model", "--beside", "other=rmu", "--tokens", "256",
                    "--every", "128",
                    "--batch-size", "2", "--length", "32", "--seeds", "2", "--svg", "r.svg",
                ] + Self.documents, folder)
            #expect(relearned["curves"]?.arrayValue?.count == 2)
            #expect(relearned["curves"]?.arrayValue?[0]["points"]?.arrayValue?.count == 3)
            #expect(FileManager.default.fileExists(atPath: folder + "/r.svg"))
            try AtomicFile.write(relearned.serialized(), to: folder + "/results/relearned.json")
            let report = try run(["report", "results"], folder)
            #expect(report.errors.contains("results/report.html"))
            let page = try String(contentsOfFile: folder + "/results/report.html", encoding: .utf8)
            #expect(page.contains("specialists") && page.contains("tokens of fine-tuning"))
            #expect(try run(["report", "results"], folder, status: 1).errors.contains("--overwrite"))
        }
    }

    @Test func benchmarksOfUnlearning() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let data = ["--model", "model", "--data", Fixture.path("unlearning/hub"), "--reference", "model"]
            let tofu = try run(["unlearn", "tofu", "-n", "3", "--html", "t.html"] + data, folder)
            #expect(
                tofu.output.contains("forget quality (p)") && tofu.output.contains("world facts: truth ratio")
            )
            #expect(FileManager.default.fileExists(atPath: folder + "/t.html"))
            let muse = try run(["unlearn", "muse"] + data, folder)
            #expect(muse.output.contains("PrivLeak"))
            let missing = try run(["unlearn", "muse", "--texts", "Books"] + data, folder, status: 1)
            #expect(missing.errors.contains("fetch-benchmarks --tasks muse-books"), "\(missing.errors)")
        }
    }

    /// Text and JSONL know no splits: what is measured is not what is fine-tuned on.
    @Test func textIsDivided() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let documents = ["--corpus", "sea=sea.jsonl", "--corpus", "law=law.jsonl", "--forget", "sea"]
            let examined = try json(
                ["unlearn", "examine", "--model", "model", "--new-tokens", "2", "--prompt-tokens", "2"]
                    + documents, folder)
            let count = try #require(
                examined["subjects"]?["model"]?["measures"]?["forget: loss"]?["n"]?.intValue)
            #expect((1...15).contains(count), "of 40 documents, about a tenth is held out")
            try AtomicFile.write("only one text\n", to: folder + "/one.txt")
            let refused = try run(
                [
                    "unlearn", "examine", "--model", "model", "--corpus", "a=one.txt", "--corpus",
                    "law=law.jsonl", "--forget", "a",
                ],
                folder, status: 1)
            #expect(
                refused.errors.contains("held-out") || refused.errors.contains("documents to forget"),
                "\(refused.errors)")
        }
    }

    @Test func mistakesAreNamed() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let relearn = ["unlearn", "relearn", "--model", "model"] + Self.documents
            for (arguments, part) in [
                (relearn, "--beside"),
                (relearn + ["--beside", "a=model", "--beside", "a=model"], "called a"),
                (
                    relearn + ["--beside", "a=model", "--tokens", "9000000000000000000", "--seeds", "2"],
                    "--tokens"
                ),
                (["unlearn", "tofu", "--model", "model", "--data", ".", "--forget", "forget20"], "forget20"),
                (
                    ["unlearn", "rmu", "--model", "model", "--out", "x", "--steps", "0"] + Self.documents,
                    "--steps"
                ),
                (
                    ["unlearn", "rmu", "--model", "model", "--out", "x", "--layers", ""] + Self.documents,
                    "--layers"
                ),
                (["corpus", "questions", "corpus", "--out", "q", "--per-label", "0"], "--per-label"),
            ] {
                let result = try run(arguments, folder, status: 64)
                #expect(result.errors.contains(part), "\(result.errors)")
            }
            let label = try run(
                ["unlearn", "examine", "--model", "model", "--corpus", "corpus", "--forget", "tea"], folder,
                status: 1)
            #expect(label.errors.contains("'tea'") && label.errors.contains("sea"))
            #expect(
                try run(["report", "corpus"], folder, status: 1).errors.contains("no .json file with results")
            )
            #expect(!FileManager.default.fileExists(atPath: folder + "/x"))
        }
    }

    @Test func questionsAreABenchmark() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let lines = (0..<40).map { number in
                let text = (0..<60).map { "word\($0 * number % 97)" }.joined(separator: " ")
                return "{\"text\": \"\(text)\", \"label\": \"\(number % 2)\"}\n"
            }
            try AtomicFile.write(lines.joined(), to: folder + "/long.jsonl")
            try run(
                [
                    "corpus", "build", "--tokenizer", Fixture.path("text/trained.model"), "--out", "long",
                    "long.jsonl", "--validation-share", "0.5",
                ], folder)
            let make = ["corpus", "questions", "long", "--out", "q", "--choice-tokens", "6"]
            let made = try run(make, folder)
            #expect(made.errors.contains("q/questions.yaml"), "\(made.errors)")
            #expect(try run(make, folder, status: 1).errors.contains("--overwrite"))
            let table = try run(
                ["eval", "--model", "model", "--tasks", "q/questions.yaml", "--data", "q", "--limit", "8"],
                folder)
            #expect(table.output.contains("questions") && table.output.contains("0.2500"))
        }
    }
}
