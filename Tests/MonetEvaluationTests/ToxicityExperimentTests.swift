import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

@Suite struct ToxicityExperimentTests {
    /// Scores that depend on the text alone, so that everything can be recomputed.
    private struct LengthScorer: ToxicityScorer {
        var summary: String { "length" }
        var json: JSONValue { ["kind": "length"] }
        func scores(of texts: [String]) -> [Double] { texts.map(Self.score) }
        static func score(_ text: String) -> Double { Double(text.utf8.count % 10) / 9 }
    }

    private static let prompts = [
        ToxicityPrompt(text: "The sea", group: "b"), ToxicityPrompt(text: "A ship", group: "a"),
        ToxicityPrompt(text: "The law of the", group: "b"), ToxicityPrompt(text: "Bread"),
    ]

    private func parts() throws -> (model: MonetLanguageModel, tokenizer: Tokenizer) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(.vertical)
        c.vocabularySize = tokenizer.vocabularySize
        return (try scrambledModel(c, seed: 33), tokenizer)
    }

    private var plan: ToxicityProtocol {
        var plan = ToxicityProtocol.realToxicityPrompts
        plan.samples = 3
        plan.tokens = 5
        return plan
    }

    private func experiment(_ prompts: [ToxicityPrompt] = prompts, seed: UInt64 = 1) throws
        -> ToxicityExperiment
    {
        let (model, tokenizer) = try parts()
        return ToxicityExperiment(
            model: model, tokenizer: tokenizer, backend: CPUBackend(), prompts: prompts, plan: plan,
            scorer: LengthScorer(), seed: seed)
    }

    private func edits() -> [ToxicityExperiment.Edit] {
        var mask = UnitMask(unitsPerGroup: 100)
        mask.remove(0..<50, group: 0)
        return [.init(name: "nothing", mask: nil), .init(name: "half", mask: mask)]
    }

    private struct Line {
        let edit: Int
        let prompt: Int
        let continuations: [String]
        let scores: [Double]
    }

    private func lines(_ path: String) throws -> [Line] {
        try TextFile.read(path).split(separator: "\n").dropFirst().map { line in
            let json = try JSONValue(parsing: String(line), source: path)
            return Line(
                edit: json["edit"]?.intValue ?? -1, prompt: json["prompt"]?.intValue ?? -1,
                continuations: json["continuations"]?.arrayValue?.compactMap(\.stringValue) ?? [],
                scores: json["scores"]?.arrayValue?.compactMap(\.doubleValue) ?? [])
        }
    }

    /// The measures against their definitions, from the records; the texts against generation one by one.
    @Test func measuresAreWhatTheyAreDefinedAs() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/r.jsonl"
            let (model, tokenizer) = try parts()
            let neutral = LabelledDocuments(
                tokens: [try tokenizer.encode("the ship on the sea", addBegin: true)], origin: "test")
            let results = try experiment().run(edits(), recordsPath: path, neutral: neutral)
            let lines = try lines(path)
            #expect(lines.count == 8)
            for line in lines {
                #expect(line.scores == line.continuations.map(LengthScorer.score))
                #expect(line.continuations.count == 3)
            }
            #expect(Set(lines.flatMap(\.continuations)).count > 12)
            for (number, result) in results.enumerated() {
                let own = lines.filter { $0.edit == number }.sorted { $0.prompt < $1.prompt }
                let largest = own.map { $0.scores.max() ?? 0 }
                let mean = largest.reduce(0, +) / 4
                #expect(abs(result.expectedMaximum - mean) < 1e-12)
                let deviation = (largest.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 3).squareRoot()
                #expect(abs(result.expectedMaximumError - deviation / 2) < 1e-12)
                #expect(result.probability == Double(largest.count { $0 > 0.5 }) / 4)
                #expect(abs(result.mean - own.flatMap(\.scores).reduce(0, +) / 12) < 1e-12)
                #expect(result.groups.map(\.name) == ["a", "b"] && result.groups.map(\.prompts) == [1, 2])
                let second = own[0].scores + own[2].scores
                #expect(abs(result.groups[1].mean - second.reduce(0, +) / 6) < 1e-12)
            }
            #expect(results[1].removed == 50 && results[1].removedShare == 50.0 / 100 / 2)
            let scorer = HeldOutScorer(model: model, backend: CPUBackend())
            #expect(try results[0].helpfulness == scorer.total(neutral))
            #expect(results[1].helpfulness != results[0].helpfulness)
            // The masked model's continuations differ: the mask reaches generation.
            #expect(lines[0].continuations != lines[4].continuations)
        }
    }

    /// Stopped after each number of prompts, and with a line cut short, the run ends as one that was not.
    @Test(arguments: [1, 3, 5])
    func goesOnWhereItStopped(after stop: Int) throws {
        try withTemporaryFolder { folder in
            let (whole, pieces) = (folder + "/whole.jsonl", folder + "/pieces.jsonl")
            let expected = try experiment().run(edits(), recordsPath: whole)
            #expect(throws: CancellationError.self) {
                try experiment().run(edits(), recordsPath: pieces) { $0.done < stop }
            }
            #expect(try lines(pieces).count == stop)
            // A kill while a line was written.
            let text = try TextFile.read(pieces)
            try AtomicFile.write(text + #"{"edit": 0, "pro"#, to: pieces)
            let results = try experiment().run(edits(), recordsPath: pieces)
            let (found, wanted) = (try TextFile.read(pieces), try TextFile.read(whole))
            #expect(found == wanted)
            #expect(results.map(\.expectedMaximum) == expected.map(\.expectedMaximum))
            // Everything is there: nothing is generated again.
            var calls = 0
            _ = try experiment().run(edits(), recordsPath: pieces) { _ in
                calls += 1
                return true
            }
            #expect(calls == 0)
        }
    }

    @Test func recordsOfAnotherRunAreRefused() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/r.jsonl"
            _ = try experiment().run(edits(), recordsPath: path)
            let before = try TextFile.read(path)
            #expect(throws: EvaluationError.self) { try experiment(seed: 2).run(edits(), recordsPath: path) }
            #expect(throws: EvaluationError.self) {
                try experiment(Self.prompts.reversed()).run(edits(), recordsPath: path)
            }
            #expect(throws: EvaluationError.self) {
                try experiment().run(Array(edits().prefix(1)), recordsPath: path)
            }
            #expect(try TextFile.read(path) == before)
            try AtomicFile.write(before + "{\"edit\": 1}\n", to: path)
            #expect(throws: EvaluationError.self) { try experiment().run(edits(), recordsPath: path) }
            _ = try experiment(seed: 2).run(edits(), recordsPath: path, overwrite: true)
            // A file of something else, with and without a last newline, stays as it is.
            for text in ["my notes", "my notes\n", "{\"a\": 1}\n"] {
                try AtomicFile.write(text, to: path)
                #expect(throws: EvaluationError.self) { try experiment().run(edits(), recordsPath: path) }
                #expect(try TextFile.read(path) == text)
            }
            // A header cut short, and an empty file, are begun anew.
            for text in [String(before.prefix(9)), ""] {
                try AtomicFile.write(text, to: path)
                _ = try experiment().run(edits(), recordsPath: path)
                #expect(try TextFile.read(path) == before)
            }
        }
    }

    @Test func promptsOfEveryFormat() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/p.jsonl"
            try AtomicFile.write(
                """
                {"filename": "x", "prompt": {"text": "So I", "toxicity": 0.2}, "challenging": false}

                {"prompt": "they are", "group": "women"}
                {"text": "plain"}
                """, to: path)
            let prompts = try ToxicityPrompt.read(path)
            #expect(prompts.map(\.text) == ["So I", "they are", "plain"])
            #expect(prompts.map(\.group) == [nil, "women", nil])
            #expect(try ToxicityPrompt.read(path, limit: 1).count == 1)
            try AtomicFile.write("one\n\ntwo {\n", to: folder + "/p.txt")
            #expect(try ToxicityPrompt.read(folder + "/p.txt").map(\.text) == ["one", "two {"])
            for text in ["", "\n", "{\"prompt\": 3}\n", "[1]\n", "{\"text\": \"\"}\n", "{\n"] {
                try AtomicFile.write(text, to: path)
                #expect(throws: (any Error).self) { try ToxicityPrompt.read(path) }
            }
        }
    }

    /// A prompt longer than the context keeps its end; greedy protocols repeat exactly.
    @Test func longPromptsAndGreedyTexts() throws {
        let (model, tokenizer) = try parts()
        let long = String(repeating: "the sea and the ship ", count: 200)
        let prompts = [ToxicityPrompt(text: long)]
        func run() throws -> [ToxicityResult] {
            try ToxicityExperiment(
                model: model, tokenizer: tokenizer, backend: CPUBackend(), prompts: prompts, plan: .toxiGen,
                scorer: LengthScorer(), seed: 9
            ).run([.init(name: "nothing", mask: nil)], recordsPath: nil)
        }
        // Of a context of 64, 34 tokens are left for the prompt.
        #expect(model.configuration.contextLength == 64)
        #expect(try run()[0].mean == run()[0].mean)
        var tooLong = plan
        tooLong.tokens = 64
        #expect(throws: ModelError.self) {
            try ToxicityExperiment(
                model: model, tokenizer: tokenizer, backend: CPUBackend(), prompts: prompts, plan: tooLong,
                scorer: LengthScorer()
            ).run([.init(name: "nothing", mask: nil)], recordsPath: nil)
        }
    }

    @Test(arguments: [(0.0, 1.0), (0.41, 0.43), (-3, 12), (5, 5), (0, 0), (1e-9, 3e-9), (117.2, 131.9)])
    func ticksEnclose(least: Double, most: Double) {
        let (ticks, low, high) = LinePlot.scale(least, most)
        // Multiples of a step are exact but for rounding.
        let rounding = 1e-12 * max(abs(least), abs(most))
        #expect(low <= least + rounding && most <= high + rounding && low < high)
        #expect((2...8).contains(ticks.count))
        #expect(zip(ticks, ticks.dropFirst()).allSatisfy { $0 < $1 })
    }

    /// Lines do not join what does not follow from each other.
    @Test func linesBeginAnewAtGaps() {
        var plot = LinePlot(
            title: "t", conditions: (0..<5).map { ("\($0)", "") },
            panels: [.init(title: "p", series: [.init(name: "s", values: [1, 2, 3, .nan, 5])])])
        func lines() -> [Int] {
            plot.svg().components(separatedBy: "<polyline points=\"").dropFirst().map {
                $0.prefix { $0 != "\"" }.split(separator: " ").count
            }
        }
        #expect(lines() == [4])
        plot.gaps = [2]
        #expect(lines() == [2, 2])
        // No value is left between the two.
        plot.gaps = [3, 4]
        #expect(lines() == [3, 1])
    }

    @Test func reportNamesScorerAndItsQuality() throws {
        let results = try experiment().run(edits(), recordsPath: nil)
        let report = try ToxicityReport(
            plan: plan, promptCount: 4, scorer: WordToxicityScorer.shipped(), results: results)
        #expect(report.notes.contains { $0.contains("AUC") })
        #expect(report.table.count == 3 && report.groupTable.count == 3)
        let page = report.page(title: "a < b", origin: PageOrigin(command: "monet", model: "m"))
        #expect(page.contains("a &lt; b") && page.contains("<svg") && page.contains("AUC"))
        #expect(report.json()["results"]?.arrayValue?.count == 2)
    }
}
