import Foundation
import MonetFoundation
import MonetModel
import TestSupport
import Testing

/// From a corpus to an index, a dossier, masks, an edited model and a matrix, as a user types it.
@Suite struct InsightCommandTests: InsightCommands {
    @Test func everyStepFromCorpusToMatrix() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let info = try json(["index", "info", "i.sqlite", "--ratio", "1.2"], folder)
            let labels = try #require(info["label_sets"]?["label"]?.arrayValue)
            #expect(labels.compactMap { $0["label"]?.stringValue } == ["sea", "law", "food"])
            #expect(labels.contains { ($0["specialists"]?.intValue ?? 0) > 0 })

            let found = try #require(
                json(["experts", "find", "--index", "i.sqlite", "--label", "law"], folder).arrayValue)
            let name = try #require(found.first?["expert"]?.stringValue)
            #expect(
                try run(["experts", "find", "--index", "i.sqlite", "--sort", "mean"], folder).output
                    .contains("top tokens"))
            #expect(
                try json(["experts", "find", "--index", "i.sqlite", "--text", "The law"], folder).arrayValue?
                    .isEmpty == false)
            let dossier = try json(
                ["experts", "show", name, "--index", "i.sqlite", "--html", "e.html"], folder)
            #expect(dossier["expert"]?.stringValue == name)
            #expect(dossier["activations"]?.arrayValue?.isEmpty == false)
            let page = try String(contentsOfFile: folder + "/e.html", encoding: .utf8)
            #expect(page.contains("<mark") && page.contains("<svg") && !page.contains("http"))
            #expect(try run(["experts", "show", name, "--index", "i.sqlite"], folder).output.contains(name))

            try run(
                [
                    "mask", "label", "--index", "i.sqlite", "--label", "law", "--ratio", "1.2", "-o",
                    "law.mask",
                ],
                folder)
            try run(["mask", "list", name, "0/5", "--model", "model", "-o", "two.mask"], folder)
            try run(
                [
                    "mask", "correlation", "--model", "model", "--corpus", "sea.jsonl", "--number", "mood",
                    "--threshold", "0.2", "-o", "mood.mask",
                ], folder)
            try run(
                [
                    "mask", "effect", "--model", "model", "--corpus", "corpus", "--labels", "law", "--limit",
                    "300", "--count", "20", "-o", "effect.mask",
                ], folder)
            try run(
                ["mask", "combine", "law.mask", "two.mask", "--model", "model", "-o", "both.mask"], folder)
            try run(
                ["mask", "random", "--like", "two.mask", "--model", "model", "-o", "random.mask"], folder)
            let origin = try json(["mask", "info", "effect.mask", "--model", "model"], folder)
            #expect(origin["experts"]?.intValue == 20 && origin["fits_this_model"]?.boolValue == true)
            #expect(origin["recipe"]?["kind"]?.stringValue == "effect")

            // Strengths: 1 changes nothing, another strength does, and the edited folder is the mask.
            func generated(_ arguments: [String]) throws -> String {
                try run(
                    ["perplexity", "The law of the sea is the right of the ship", "--json"] + arguments,
                    folder
                ).output
            }
            let plain = try generated(["--model", "model"])
            let masked = try generated(["--model", "model", "--mask", "both.mask"])
            #expect(try generated(["--model", "model", "--mask", "both.mask:1"]) == plain)
            #expect(masked != plain)
            #expect(try generated(["--model", "model", "--mask", "both.mask:3"]) != masked)
            #expect(
                try generated(["--model", "model", "--mask", "law.mask", "--mask", "two.mask"]) == masked)
            try run(["edit", "--model", "model", "--mask", "both.mask", "--out", "edited"], folder)
            #expect(try generated(["--model", "edited"]) == masked)
            let trace = try run(["trace", "--model", "model", "the law", "--mask", "both.mask"], folder)
            #expect(!trace.output.contains(name + " "))

            let matrix = try json(
                [
                    "unlearn-matrix", "--model", "model", "--index", "i.sqlite", "--corpus", "corpus",
                    "--ratio", "1.2", "--html", "m.html", "--svg", "m.svg", "--sweep", "1.5",
                ], folder)
            #expect(matrix["experts"]?["labels"]?.arrayValue?.count == 3)
            #expect(matrix["sweep"]?.arrayValue?.count == 1)
            #expect(
                try String(contentsOfFile: folder + "/m.html", encoding: .utf8).contains("class=\"heat\""))
        }
    }

    /// Experts that an edit removed fire nowhere: not in a trace, not under a further mask, not in an index.
    @Test func anEditCannotBeUndone() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            func experts(_ arguments: [String]) throws -> Set<String> {
                let tokens = try #require(
                    json(["trace", "--top", "9999"] + arguments, folder)["tokens"]?.arrayValue)
                let groups = tokens.flatMap { $0["groups"]?.arrayValue ?? [] }
                return Set(
                    groups.flatMap { $0["experts"]?.arrayValue ?? [] }.compactMap {
                        $0["expert"]?.stringValue
                    })
            }
            let text = "The law judge"
            let before = try experts(["--model", "model", text])
            let removed = Set(before.sorted().prefix(5))
            #expect(removed.count == 5)
            let list = ["mask", "list"] + removed.sorted() + ["--model", "model", "--out", "five.mask"]
            try run(list, folder)
            try run(["edit", "--model", "model", "--mask", "five.mask", "--out", "edited"], folder)
            let other = try #require(before.subtracting(removed).sorted().first)
            try run(
                ["mask", "list", other, "--model", "model", "--strength", "2", "--out", "other.mask"], folder)
            let after = try experts(["--model", "edited", text])
            #expect(!after.isEmpty && after.isDisjoint(with: removed))
            let more = try experts(["--model", "edited", "--mask", "other.mask", text])
            #expect(more.contains(other) && more.isDisjoint(with: removed))
            try run(
                ["index", "build", "--model", "edited", "--corpus", "corpus", "--out", "e.sqlite"], folder)
            for name in removed {
                let dossier = try json(["experts", "show", name, "--index", "e.sqlite"], folder)
                #expect(dossier["count"]?.intValue == 0)
            }
        }
    }

    /// A dense model's neurons are traced, indexed and masked as experts are.
    @Test func neuronsAreUnits() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            try run(
                [
                    "init", "--preset", "nano-llama", "--tokenizer", Fixture.path("text/trained.model"),
                    "--out",
                    "dense", "--seed", "4",
                ], folder)
            let trace = try json(["trace", "--model", "dense", "The law"], folder)
            #expect(trace["units"]?.stringValue == "neurons" && trace["experts_per_side"]?.isNull ?? false)
            try run(
                ["index", "build", "--model", "dense", "--corpus", "corpus", "--out", "d.sqlite"], folder)
            #expect(
                try run(["experts", "show", "1/3", "--index", "d.sqlite"], folder).output.hasPrefix(
                    "neuron 1/3"))
            try run(
                [
                    "mask", "label", "--index", "d.sqlite", "--label", "sea", "--ratio", "1.01", "--out",
                    "sea.mask",
                ],
                folder)
            #expect(
                try run(["mask", "info", "sea.mask", "--model", "dense"], folder).output.contains(
                    "this model"))
            try run(
                [
                    "generate", "--model", "dense", "--mask", "sea.mask", "-p", "The", "-n", "3", "--seed",
                    "1",
                ], folder)
        }
    }

    @Test func badInputIsNamed() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            try run(
                [
                    "init", "--preset", "nano-hd", "--tokenizer", Fixture.path("text/trained.model"), "--out",
                    "other",
                ], folder)
            try run(["mask", "list", "0/5", "--model", "model", "-o", "m.mask"], folder)
            func fails(_ arguments: [String], _ words: String, status: Int32 = 1) throws {
                let result = try run(arguments, folder, status: status)
                #expect(result.errors.contains(words), "\(result.errors)")
            }
            try fails(["generate", "--model", "other", "--mask", "m.mask", "-p", "a"], "another model")
            try fails(["generate", "--model", "model", "--mask", "none.mask", "-p", "a"], "none.mask")
            try fails(
                ["generate", "--model", "model", "--mask", "m.mask:-2", "-p", "a"], "strength", status: 64)
            try fails(["mask", "list", "7/5", "--model", "model", "-o", "x.mask"], "7/5")
            try fails(["mask", "list", "0/4096", "--model", "model", "-o", "x.mask"], "1/4095")
            try fails(["experts", "show", "0/x", "--index", "i.sqlite"], "0/x")
            try fails(["experts", "find", "--index", "i.sqlite", "--label", "sky"], "sea, law, food")
            try fails(["experts", "find", "--index", "model/config.json"], "not a usable expert index")
            try fails(
                ["index", "build", "--model", "model", "--corpus", "corpus", "--out", "i.sqlite"],
                "--overwrite")
            try fails(
                ["index", "build", "--model", "model", "--corpus", "corpus", "--out", "none/i.sqlite"],
                "none/i.sqlite")
            try fails(
                [
                    "unlearn-matrix", "--model", "other", "--index", "i.sqlite", "--corpus", "corpus",
                ], "another model")
            try fails(
                [
                    "mask", "correlation", "--model", "model", "--corpus", "sea.jsonl", "--number", "none",
                    "-o",
                    "x.mask",
                ], "no number")
            #expect(!FileManager.default.fileExists(atPath: folder + "/x.mask"))
            try run(["edit", "--model", "model", "--mask", "m.mask", "--out", "edited"], folder)
            try fails(["edit", "--model", "model", "--mask", "m.mask", "--out", "edited"], "exists")
            // A disk that is full: nothing half-written, the old index stays.
            let before = try Data(contentsOf: URL(fileURLWithPath: folder + "/i.sqlite"))
            let full = try Command.run(
                [
                    "index", "build", "--model", "model", "--corpus", "corpus", "--out", "i.sqlite",
                    "--overwrite",
                ],
                in: folder, shellPrefix: "ulimit -f 64")
            #expect(full.status == 1 && full.errors.contains("cannot be written"), "\(full.errors)")
            #expect(try Data(contentsOf: URL(fileURLWithPath: folder + "/i.sqlite")) == before)
        }
    }

    @Test func anInterruptedIndexGoesOn() throws {
        try withTemporaryFolder { folder in
            try prepare(folder)
            let arguments = [
                "index", "build", "--model", "model", "--corpus", "corpus", "--out", "j.sqlite",
                "--batch-tokens",
                "16",
            ]
            let running = try Command.start(arguments, in: folder)
            running.waitUntil("tokens/s")
            kill(running.process.processIdentifier, SIGINT)
            let stopped = running.wait()
            if stopped.status == 130 {
                #expect(stopped.errors.contains("goes on from j.sqlite.partial"))
                #expect(!FileManager.default.fileExists(atPath: folder + "/j.sqlite"))
                try run(arguments, folder)
            }
            #expect(FileManager.default.fileExists(atPath: folder + "/j.sqlite"))
            #expect(!FileManager.default.fileExists(atPath: folder + "/j.sqlite.partial"))
            #expect(try json(["index", "info", "j.sqlite"], folder)["documents"]?.intValue ?? 0 > 50)
        }
    }
}
