import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

@Suite struct ResultsReportTests {
    private func page(_ files: [String: String]) throws -> String {
        try withTemporaryFolder { folder in
            for (name, text) in files {
                let path = folder + "/" + name
                try FileManager.default.createDirectory(
                    atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
                try text.write(toFile: path, atomically: true, encoding: .utf8)
            }
            return try ResultsReport(folder: folder).page(
                title: "All of it", origin: .init(command: "monet report", model: "m"))
        }
    }

    private static func evaluation(
        _ model: String, _ accuracy: Double, mask: String = "", limit: String = "null"
    ) -> String {
        """
        {"results": {"piqa": {"alias": "piqa", "acc,none": \(accuracy), "acc_stderr,none": 0.02,
          "acc_norm,none": \(accuracy + 0.01), "acc_norm_stderr,none": 0.02},
          "words": {"word_perplexity,none": 31.5, "word_perplexity_stderr,none": "N/A"}},
         "configs": {"piqa": {}, "words": {}}, "n-shot": {"piqa": 0, "words": 0}, "chance": {"piqa": 0.5},
         "config": {"protocol": "lm-eval", "mask": [\(mask)], "limit": \(limit)}, "model_name": "\(model)"}
        """
    }

    private static func score(_ loss: Double, _ accuracy: Double) -> HeldOutScore {
        var score = HeldOutScore()
        (score.tokens, score.negativeLogLikelihood, score.hits) = (100, 100 * loss, Int(100 * accuracy))
        return score
    }

    private static func matrix() -> UnlearningMatrix {
        UnlearningMatrix(
            labels: ["law", "music"], baseline: [score(2, 0.5), score(3, 0.4)],
            rows: [
                .init(removed: 7, meanFrequency: 0.1, scores: [score(2.5, 0.3), score(3.01, 0.4)]),
                .init(removed: 9, meanFrequency: nil, scores: [score(2, 0.5), score(3.75, 0.2)]),
            ],
            controls: [
                [.init(removed: 7, meanFrequency: 0.1, scores: [score(2.1, 0.5), score(3, 0.4)])], [],
            ])
    }

    @Test func everyKindIsShown() throws {
        let matrix = Self.matrix()
        let plain: JSONValue = ["ratio": 2.0, "experts": matrix.json()]
        let relearning = RelearningReport(
            curves: [
                .init(
                    name: "rmu", removed: 0,
                    points: [
                        .init(tokens: 0, values: [0.1, 5, 0.3, 4]),
                        .init(tokens: 1000, values: [0.3, 4, 0.3, 4]),
                    ])
            ], original: [0.25, 4, 0.3, 4], level: 1, what: "law")
        let examined = UnlearningReport(
            subjects: [.init(name: "plain", removed: 0, measures: [.init("forget: loss", 4.5678)])])
        let page = try page([
            "a/results_1.json": Self.evaluation("checkpoints/small", 0.6),
            "b/results_2.json": Self.evaluation(
                "checkpoints/small", 0.55, mask: "\"runs/law.mask\"", limit: "10"),
            "matrix.json": plain.serialized(), "relearning.json": relearning.json().serialized(),
            "examined.json": examined.json().serialized(),
            "toxicity.json": """
            {"protocol": {}, "prompts": 20, "results": [{"name": "nothing", "removed": 0,
              "expected_maximum_toxicity": 0.4321, "expected_maximum_toxicity_stderr": 0.01,
              "toxicity_probability": 0.2, "mean_toxicity": 0.1, "helpfulness": null}]}
            """,
            "mono.json": """
            [{"unit": "experts", "units": 100, "token_concentration": 0.5432,
              "measured": {"label_entropy": 1.25}, "shuffled": {"label_entropy": 2.5}}]
            """,
            "notes.json": "{\"by\": \"hand\"}", "samples.jsonl": "not JSON",
        ])
        for text in [
            "All of it", "0.6100 ± 0.0200", "0.5600 ± 0.0200", "small+law", "31.5000",
            "Only the first documents of each task were asked in 1 of 2 runs", "0.500", "750",
            "4.5678", "0.4321 ± 0.0100", "0.5432", "1.2500",
            "Not read, because they hold no results: notes.json",
        ] { #expect(page.contains(text), "\(text)") }
        #expect(page.components(separatedBy: "<svg").count > 3)
        // 0.55 and 0.6 are 2.5 and 5 errors from guessing; what is within two is called chance.
        #expect(!page.contains("These results are chance"))
        let guessed = try self.page(["r.json": Self.evaluation("m", 0.52)])
        #expect(guessed.contains("Within two standard errors of guessing in every run: piqa."))
    }

    /// The matrix of a page is the one that was written.
    @Test func matricesComeBack() throws {
        let json: JSONValue = ["ratio": 2.0, "experts": Self.matrix().json()]
        let page = try page(["m.json": json.serialized()])
        let summary = Self.matrix().summary(.loss)
        #expect(page.contains(String(format: "+%.3f nats on the target", summary.target)))
        #expect(page.contains("law") && page.contains("music"))
    }

    @Test func brokenResultsAreNamed() throws {
        func message(_ files: [String: String]) -> String {
            do {
                _ = try page(files)
                return "nothing"
            } catch { return "\(error)" }
        }
        #expect(message(["a.json": "{"]).contains("a.json"))
        #expect(message(["a.txt": "x"]).contains("no .json file with results"))
        #expect(
            message(["m.json": "{\"ratio\": 2, \"experts\": {\"labels\": [\"law\"]}}"]).contains(
                "scores of \"law\""))
        #expect(
            message(["r.json": "{\"original\": [], \"curves\": [{\"points\": []}]}"]).contains("\"name\""))
        func curves(_ counts: [Int]) -> String {
            let lists = counts.enumerated().map { place, count in
                let points = (0..<count).map {
                    "{\"tokens\": \($0), \"accuracy\": 0.1, \"loss\": 1, \"others_accuracy\": 0.1, \"others_loss\": 1}"
                }
                return
                    "{\"name\": \"\(place == 0 ? "a" : "b")\", \"points\": [\(points.joined(separator: ","))]}"
            }
            return "{\"original\": [1,1,1,1], \"level\": 1, \"curves\": [\(lists.joined(separator: ","))]}"
        }
        #expect(message(["r.json": curves([3, 3, 2])]).contains("incomplete"))
        #expect(message(["r.json": curves([3, 3, 3])]) == "nothing")
        let huge = Self.matrix().json().serialized().replacing("\"tokens\": 100", with: "\"tokens\": 1e300")
            .replacing("\"tokens\":100", with: "\"tokens\":1e300")
        #expect(message(["m.json": "{\"ratio\": 2, \"experts\": \(huge)}"]).contains("tokens"))
        #expect(throws: FileError.self) { try ResultsReport(folder: "/nowhere") }
    }

    /// Models of one folder name, and a run that was repeated.
    @Test func runsAreToldApart() throws {
        let page = try page([
            "a/results_1.json": Self.evaluation("a/last", 0.6),
            "b/results_1.json": Self.evaluation("b/last", 0.7),
            "c/results_1.json": Self.evaluation("c", 0.8, mask: "\"x.mask:0.5\""),
            "c/results_2.json": Self.evaluation("c", 0.9, mask: "\"x.mask:1\""),
        ])
        for text in [
            "a/last, lm-eval", "b/last, lm-eval", "c+x:0.5", "c+x:1", "0.6100", "0.7100", "0.8100",
            "0.9100",
        ] {
            #expect(page.contains(text), "\(text)")
        }
        // A run by acc alone beside one with acc_norm: the row is of acc.
        let plain = Self.evaluation("d", 0.65).replacing("\"acc_norm", with: "\"other")
        let mixed = try self.page(["a.json": Self.evaluation("a", 0.6), "d.json": plain])
        #expect(mixed.contains("0.6000") && mixed.contains("0.6500") && !mixed.contains("0.6100"))
    }
}
