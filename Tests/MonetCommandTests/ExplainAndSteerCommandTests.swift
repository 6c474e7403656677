import Foundation
import MonetFoundation
import TestSupport
import Testing

/// pairs, steer, export, explain, ablations and opened graphs, as a user types them, with what goes wrong.
@Suite struct ExplainAndSteerCommandTests: InsightCommands {
    @Test func everyCommandOnASmallModel() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            // Ablations change what a text is worth, and a file of another width is refused.
            func loss(_ arguments: [String]) throws -> Double {
                try json(["perplexity", "--model", "model", "The sea and the law"] + arguments, folder)[
                    "loss"]?
                    .doubleValue ?? .nan
            }
            let plain = try loss([])
            #expect(try loss(["--ablate", "blocks.0.hook_attn_out=zero"]) != plain)
            #expect(
                try loss(["--ablate", "blocks.0.attn.hook_z#1=mean", "--ablate-from", "The judge"]) != plain)
            #expect(
                try loss([
                    "--ablate", "blocks.1.hook_resid_pre=prompt", "--ablate-from", "The sea and the law",
                ])
                    == plain, "patched with itself")
            for (arguments, status, word) in [
                (["--ablate", "nowhere=zero"], 64, "hook point"),
                (["--ablate-from", "a"], 64, "--ablate"),
                (["--ablate", "blocks.0.hook_attn_out=one"], 64, "zero"),
                (["--ablate", "blocks.0.hook_attn_out=mean"], 64, "--ablate-from"),
                (["--ablate", "blocks.0.attn.hook_z#99=zero"], 1, "heads 0 to"),
                (["--ablate", "blocks.99.hook_attn_out=zero"], 1, "blocks.99"),
                (["--ablate", "blocks.0.hook_attn_out=mean", "--ablate-from", ""], 1, "--ablate-from"),
                (["--ablate", "blocks.0.hook_attn_out=none.safetensors"], 1, "none.safetensors"),
                (["--ablate", "blocks.0.attn.hook_pattern=mean", "--ablate-from", "a"], 1, "no mean"),
            ] as [([String], Int32, String)] {
                let result = try run(
                    ["perplexity", "--model", "model", "The sea"] + arguments, folder, status: status)
                #expect(result.errors.contains(word), "\(arguments): \(result.errors)")
            }

            // Finding and sweeping.
            let texts = ["--positive", "The sea ship sail", "--negative", "The law judge right"]
            let found = try json(
                ["steer", "find", "--model", "model", "--top", "3", "--out", "sea.mask"] + texts + [
                    "--hook", "blocks.1.hook_resid_post", "--vector", "v.safetensors",
                ], folder)
            let names = try #require(found["experts"]?.arrayValue).compactMap { $0["expert"]?.stringValue }
            #expect(names.count == 3)
            #expect(try loss(["--mask", "sea.mask"]) != plain)
            #expect(try loss(["--steer", "v.safetensors:1@blocks.1.hook_resid_post"]) != plain)
            let wide = try run(
                [
                    "perplexity", "--model", "model", "The sea", "--steer",
                    "v.safetensors:1@blocks.1.attn.hook_pattern",
                ],
                folder, status: 1)
            #expect(wide.errors.contains("probabilities"))
            try AtomicFile.write("The sea\nThe law\n", to: folder + "/prompts.txt")
            let sweep = try json(
                ["steer", "sweep", "--model", "model", "--prompts", "prompts.txt", "--metric", "logit( the)"]
                    + texts
                    + [
                        "--hook", "blocks.1.hook_resid_post", "--scores", "0.5,1", "--scales", "1",
                        "--random", "2",
                        "--neutral", "corpus", "--neutral-tokens", "200", "--svg", "sweep.svg",
                    ], folder)
            #expect(sweep["curves"]?.arrayValue?.count == 4)
            #expect(try String(contentsOfFile: folder + "/sweep.svg", encoding: .utf8).contains("<svg"))
            for (arguments, status, word) in [
                (["find", "--model", "model"], 64, "--pairs"),
                (["find", "--model", "model", "--group", "99"] + texts, 1, "--group"),
                (["find", "--model", "model", "--out", "none/x.mask"] + texts, 1, "none"),
                (["find", "--model", "model", "--positive", "a", "--negative", "a"], 1, "no expert"),
                (["find", "--model", "model", "--pairs", "sea.jsonl"], 1, "sea.jsonl, line 1"),
                (
                    ["find", "--model", "model", "--hook", "blocks.0.attn.hook_pattern", "--vector", "w"]
                        + texts, 1,
                    "probabilities"
                ),
                (
                    [
                        "sweep", "--model", "model", "--units", "0/1", "--prompts", "prompts.txt",
                        "--neutral", "corpus",
                        "--metric", "logit(",
                    ], 1, "metric"
                ),
                (
                    [
                        "sweep", "--model", "model", "--units", "0/1", "--prompts", "prompts.txt",
                        "--neutral", "corpus",
                        "--scores", "-1",
                    ], 64, "--scores"
                ),
            ] as [([String], Int32, String)] {
                let result = try run(["steer"] + arguments, folder, status: status)
                #expect(result.errors.contains(word), "\(arguments): \(result.errors)")
            }

            // Pairs, against permutations.
            let pairs = try json(
                [
                    "pairs", "--index", "i.sqlite", "--corpus", "corpus", "--pairs", "4", "--min-expected",
                    "2",
                ], folder)
            #expect(pairs["summary"]?["pairs"]?.intValue ?? 0 > 0)
            #expect(pairs["labels"]?.arrayValue?.count == 3)
            let none = try run(
                ["pairs", "--index", "i.sqlite", "--corpus", "corpus", "--min-expected", "1e9"], folder,
                status: 1)
            #expect(none.errors.contains("--min-expected"))

            // Exports, which are there as a whole or not at all.
            for (format, file) in [
                ("neuronpedia", "m/0-monet-experts/source.jsonl"),
                ("saedashboard", "0-monet-experts/batch-0.json"),
                ("delphi", "latents/layers.0.moe/config.json"),
            ] {
                let context =
                    format == "delphi" ? ["--context", "32", "--tokens", "200"] : ["--min-count", "20"]
                try run(
                    [
                        "export", format, "--index", "i.sqlite", "--name", "m", "--group", "0", "--group",
                        "0", "--out", format,
                    ]
                        + context, folder)
                #expect(FileManager.default.fileExists(atPath: folder + "/\(format)/\(file)"), "\(file)")
                let again = try run(
                    ["export", format, "--index", "i.sqlite", "--out", format] + context, folder, status: 1)
                #expect(again.errors.contains("already"))
                try run(
                    ["export", format, "--index", "i.sqlite", "--group", "7", "--out", "x"] + context, folder,
                    status: 1)
                #expect(!FileManager.default.fileExists(atPath: folder + "/x"))
            }
            try run(
                ["export", "delphi", "--index", "i.sqlite", "--out", "x", "--tokens", "9223372036854775807"],
                folder,
                status: 64)
            try run(
                ["export", "saedashboard", "--index", "i.sqlite", "--out", "x", "--min-count", "99999999"],
                folder,
                status: 1)
            try run(["export", "parquet", "--index", "i.sqlite", "--out", "x"], folder, status: 64)

            // Prompts of their own, without edits of their own.
            try AtomicFile.write(
                #"{"prompt": "The sea"}"# + "\n" + #"{"token_ids": [4, 5, 6]}"# + "\n",
                to: folder + "/p.jsonl")
            try run(
                [
                    "activations", "--model", "model", "--prompts", "p.jsonl", "--units", "all", "--out",
                    "acts",
                ], folder)
            let manifest = try JSONValue(contentsOfFile: folder + "/acts/manifest.json")
            #expect(manifest["shards"]?.arrayValue?.first?["end_document"]?.intValue == 2)
            try AtomicFile.write(#"{"prompt": "The sea", "steer": {"0/1": 2}}"#, to: folder + "/q.jsonl")
            let edited = try run(
                ["activations", "--model", "model", "--prompts", "q.jsonl", "--units", "all", "--out", "x"],
                folder,
                status: 1)
            #expect(edited.errors.contains("q.jsonl, line 1"))
            try run(["activations", "--model", "model", "--units", "all", "--out", "x"], folder, status: 64)
            for extra in [["--units=,"], ["--hooks", ""], ["--units", "all", "--corpus", "empty.txt"]] {
                try AtomicFile.write("", to: folder + "/empty.txt")
                let corpus = extra.contains("--corpus") ? [] : ["--prompts", "p.jsonl"]
                try run(
                    ["activations", "--model", "model", "--out", "x"] + extra + corpus, folder, status: 1)
                #expect(!FileManager.default.fileExists(atPath: folder + "/x"))
            }

            // Opened paths are nodes of the graph.
            let graph = try json(
                [
                    "attribute", "--model", "model", "The sea and", "--node-threshold", "1", "--open",
                    "patterns", "routing",
                ],
                folder)
            let types = Set((graph["nodes"]?.arrayValue ?? []).compactMap { $0["feature_type"]?.stringValue })
            #expect(types.isSuperset(of: ["attention pattern", "routing"]))
            #expect(graph["metadata"]?["info"]?["opened"] == ["patterns", "routing"])
            try run(["attribute", "--model", "model", "The", "--open", "norms"], folder, status: 64)
        }
    }

    /// An explainer that answers, then one that does not: what was paid for stays.
    @Test func explanationsResume() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let found = try #require(
                json(["experts", "find", "--index", "i.sqlite", "--min-count", "20", "--limit", "3"], folder)
                    .arrayValue)
            let names = found.compactMap { $0["expert"]?.stringValue }
            try #require(names.count == 3)
            @Sendable func answer(_ request: ScriptedServer.Request) -> ScriptedServer.Answer {
                let body = try? JSONValue(parsing: request.body, source: "body")
                let prompt = body?["messages"]?.arrayValue?.first?["content"]?.stringValue ?? ""
                var content = "words of the sea"
                if let list = prompt.range(of: "a list of ") {
                    let count = Int(prompt[list.upperBound...].prefix { $0.isNumber }) ?? 0
                    content = "[" + (0..<count).map { $0 % 2 == 0 ? "1" : "0" }.joined(separator: ", ") + "]"
                }
                return .init(
                    body: (["choices": [["message": ["content": .string(content)]]]] as JSONValue)
                        .serialized())
            }
            // The fourth request, of the second expert, is answered with rubbish for good.
            let failing = try ScriptedServer { request, number in
                number < 3 ? answer(request) : .init(body: "rubbish")
            }
            defer { failing.stop() }
            func explain(_ address: String, _ more: [String], status: Int32 = 0) throws -> Command.Result {
                try run(
                    ["explain"] + names + [
                        "--index", "i.sqlite", "--corpus", "corpus", "--url", address + "/v1", "--explainer",
                        "judge",
                        "--attempts", "1", "--timeout", "5",
                    ] + more, folder, status: status)
            }
            let plan = try explain(failing.address, ["--dry-run", "--price", "1,2"])
            #expect(
                plan.errors.contains("3 experts to explain with judge, ")
                    && plan.errors.contains("costs about"))
            #expect(failing.requests.isEmpty)
            let failed = try explain(failing.address, ["--json"], status: 1)
            #expect(failed.errors.contains("choices[0].message.content: rubbish"))
            let kept = try JSONValue(parsing: failed.output, source: "output")
            #expect(kept["experts"]?.arrayValue?.count == 1, "the first is shown and stored")
            let working = try ScriptedServer { request, _ in answer(request) }
            defer { working.stop() }
            let rest = try JSONValue(
                parsing: explain(working.address, ["--json", "--baseline"]).output, source: "output")
            #expect(
                rest["experts"]?.arrayValue?.compactMap { $0["expert"]?.stringValue }
                    == Array(names.dropFirst()))
            #expect(
                rest["experts"]?.arrayValue?.allSatisfy { $0["other_explanation"]?["detection"] != nil }
                    == true)
            let dossier = try json(["experts", "show", names[1], "--index", "i.sqlite"], folder)
            #expect(dossier["explanations"]?.arrayValue?.first?["text"] == "words of the sea")
            #expect(try explain(working.address, []).errors.contains("3 have been explained"))
            _ = try explain(working.address, ["--overwrite"])
            let again = try json(["experts", "show", names[1], "--index", "i.sqlite"], folder)
            #expect(again["explanations"]?.arrayValue?.count == 1, "replaced, not added")
            // A longer name of another explainer is another explainer.
            _ = try run(
                [
                    "explain", names[0], "--index", "i.sqlite", "--corpus", "corpus", "--url",
                    working.address,
                    "--explainer", "jud",
                ], folder)
            try run(["explain", "--index", "i.sqlite", "--corpus", "corpus"], folder, status: 64)
            try run(
                [
                    "explain", names[0], "--index", "i.sqlite", "--corpus", "corpus", "--url", "gopher://x",
                    "--overwrite",
                ],
                folder, status: 1)
        }
    }
}
