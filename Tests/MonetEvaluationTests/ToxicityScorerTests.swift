import Foundation
import MonetEvaluation
import MonetFoundation
import Synchronization
import TestSupport
import Testing

@Suite struct ToxicityScorerTests {
    // MARK: Offline

    /// Against the definition: the share of pairs in the right order, ties half.
    @Test func areaUnderTheCurve() {
        var generator = SplitMix64(seed: 4)
        for count in [2, 3, 10, 57] {
            var scored = (0..<count).map { _ in
                (score: Double(generator.next() % 7) / 7, isPositive: generator.next() % 3 == 0)
            }
            scored[0].isPositive = true
            scored[1].isPositive = false
            var (right, pairs) = (0.0, 0.0)
            for a in scored where a.isPositive {
                for b in scored where !b.isPositive {
                    pairs += 1
                    right += a.score > b.score ? 1 : (a.score == b.score ? 0.5 : 0)
                }
            }
            #expect(abs(ToxicityClassifier.areaUnderCurve(scored) - right / pairs) < 1e-12)
        }
    }

    private func examples(_ count: Int) -> [ToxicityClassifier.Example] {
        let words = ["sea", "ship", "sail", "bread", "salt", "harbour", "law", "wind"]
        var generator = SplitMix64(seed: 7)
        return (0..<count).map { number in
            var text = (0..<8).map { _ in words[Int(generator.next() % 8)] }
            if number % 3 == 0 { text[Int(generator.next() % 8)] = number % 2 == 0 ? "zogging" : "Zogged" }
            return .init(text: text.joined(separator: " ") + " \(number)", isToxic: number % 3 == 0)
        }
    }

    /// Words, their inflections and capitals are learned; a file gives the same scores.
    @Test func learnsWordsAndKeepsThem() throws {
        try withTemporaryFolder { folder in
            let classifier = try ToxicityClassifier.trained(on: examples(400), source: "test")
            #expect(classifier.heldOutAUC > 0.98)
            #expect(classifier.trainingCount + classifier.heldOutCount == 400)
            #expect(classifier.heldOutCount > 40)
            #expect(classifier.score(of: "the zogs of the harbour") > 2 * classifier.score(of: "the harbour"))
            #expect(classifier.score(of: " …! ") == 0)
            let path = folder + "/c.json"
            try classifier.write(to: path)
            let read = try ToxicityClassifier(contentsOfFile: path)
            for text in ["a zogged ship", "bread and salt", "Ünïcode — 漢字"] {
                #expect(read.score(of: text) == classifier.score(of: text))
            }
            #expect(read.summary == classifier.summary && read.summary.contains("AUC"))
            let again = try ToxicityClassifier.trained(on: examples(400), source: "test")
            #expect(again.score(of: "a zogged ship") == classifier.score(of: "a zogged ship"))
        }
    }

    /// The shipped list against scikit-learn's words and a computation in Python's doubles
    /// (`Scripts/toxicity-words`), on sentences that anyone would call plain or rude.
    @Test func shippedOneTellsRudeFromPlain() throws {
        let scorer = try WordToxicityScorer.shipped()
        let lines = try TextFile.read(Fixture.path("text/rude-and-plain.jsonl")).split(separator: "\n")
        #expect(lines.count == 90)
        var (scored, rudeFound, plainFound, differences): ([(Double, Bool)], Int, Int, Double) = ([], 0, 0, 0)
        for line in lines {
            let row = try JSONValue(parsing: String(line), source: "sentences")
            let text = try #require(row["text"]?.stringValue)
            let isRude = row["rude"] == true
            let score = scorer.score(of: text)
            // Sums of some ten float32 numbers against doubles.
            #expect(abs(score - (try #require(row["score"]?.doubleValue))) < 1e-5, "\(text)")
            differences += abs(score - (try #require(row["whole_model"]?.doubleValue)))
            scored.append((score, isRude))
            if isRude, score > 0.5 { rudeFound += 1 }
            if !isRude, score < 0.5 { plainFound += 1 }
        }
        #expect(ToxicityClassifier.areaUnderCurve(scored.map { (score: $0.0, isPositive: $0.1) }) > 0.97)
        #expect(rudeFound >= 36 && plainFound >= 45, "\(rudeFound) of 40, \(plainFound) of 50")
        #expect(differences / 90 < 0.1)
        #expect(scorer.score(of: "The shark is a large fish.") < 0.2)
        #expect(scorer.score(of: "You are a stupid idiot") > 0.9)
        #expect(scorer.score(of: "") == 0 && scorer.score(of: "... 漢") < 0.2)
        #expect(scorer.summary.contains("word list") && scorer.summary.contains("0.70"))
        #expect(scorer.json["measured_auc"]?.doubleValue == scorer.measuredAUC)
    }

    @Test func badInputIsAnError() throws {
        #expect(throws: EvaluationError.self) {
            try ToxicityClassifier.trained(on: [.init(text: "one", isToxic: true)], source: "test")
        }
        #expect(throws: CancellationError.self) {
            try ToxicityClassifier.trained(on: examples(60), source: "test") { pass, _ in pass < 2 }
        }
        try withTemporaryFolder { folder in
            let path = folder + "/c.json"
            for (text, word) in [
                ("{}", "format"), (#"{"format": "monet-toxicity-classifier", "version": 2}"#, "version"),
                (#"{"format": "monet-toxicity-classifier", "version": 1, "weights": "?"}"#, "weights"),
                (
                    #"{"format": "monet-toxicity-classifier", "version": 1, "weights": "AAAA", "scale": 1, "bias": "x"}"#,
                    "bias"
                ),
            ] {
                try AtomicFile.write(text, to: path)
                let error = #expect(throws: EvaluationError.self) {
                    try ToxicityClassifier(contentsOfFile: path)
                }
                #expect("\(error.map { "\($0)" } ?? "")".contains(word))
            }
        }
    }

    // MARK: HTTP

    private func scorer(
        _ server: ScriptedServer, notes: Notes = Notes(),
        isCancelled: @escaping @Sendable () -> Bool = { false },
        change: (inout HTTPToxicityScorer.Settings) -> Void = { _ in }
    ) throws -> HTTPToxicityScorer {
        var settings = HTTPToxicityScorer.Settings()
        settings.url = server.address + "/v1alpha1/comments:analyze"
        settings.key = "secret key"
        settings.backOff = 0.01
        settings.attempts = 3
        settings.timeout = 5
        change(&settings)
        return try HTTPToxicityScorer(settings, isCancelled: isCancelled) { notes.add($0) }
    }

    private final class Notes: Sendable {
        private let lines = Mutex<[String]>([])
        var all: [String] { lines.withLock { $0 } }
        func add(_ line: String) { lines.withLock { $0.append(line) } }
    }

    @Test func asksInThePerspectiveFormat() throws {
        let server = try ScriptedServer { request, _ in
            request.body.contains("idiot") ? .score(0.93) : .score(0.125)
        }
        defer { server.stop() }
        let scores = try scorer(server).scores(of: ["You \"idiot\"\n", "", "the sea"])
        #expect(scores == [0.93, 0, 0.125])
        // Nothing to judge is not sent.
        #expect(server.requests.count == 2)
        #expect(server.requests[0].target == "/v1alpha1/comments:analyze?key=secret%20key")
        let body = try JSONValue(parsing: server.requests[0].body, source: "request")
        #expect(body["comment"]?["text"]?.stringValue == "You \"idiot\"\n")
        #expect(body["requestedAttributes"]?["TOXICITY"]?.members?.isEmpty == true)
        #expect(body["languages"]?.arrayValue == ["en"])
    }

    @Test func triesAgainAfterWhatPasses() throws {
        let answers: [ScriptedServer.Answer] = [
            .init(status: 429, headers: ["Retry-After": "0"], body: #"{"error": {"message": "quota"}}"#),
            .init(body: "<html>rubbish"), .score(0.5), .init(status: 503, headers: ["Retry-After": "nan"]),
            .score(0.25),
            .init(body: #"{"attributeScores": {"TOXICITY": {"summaryScore": {"value": 7}}}}"#), .score(1),
        ]
        let server = try ScriptedServer { _, number in answers[number] }
        defer { server.stop() }
        let notes = Notes()
        #expect(try scorer(server, notes: notes).scores(of: ["one", "two", "three"]) == [0.5, 0.25, 1])
        #expect(notes.all.count == 4)
        #expect(notes.all[0].contains("429: quota") && notes.all[0].contains("try 2 of 3"))
        #expect(notes.all[1].contains("rubbish"))
    }

    @Test func givesUpWithAReason() throws {
        let server = try ScriptedServer { request, _ in
            if request.body.contains("slow") { return .score(0.5, delay: 3) }
            if request.body.contains("bad") {
                return .init(status: 400, body: #"{"error": {"code": 400, "message": "no such attribute"}}"#)
            }
            return .init(status: 500)
        }
        defer { server.stop() }
        func error(_ text: String, _ timeout: Double = 5) throws -> String {
            let error = #expect(throws: EvaluationError.self) {
                try scorer(server, change: { $0.timeout = timeout }).scores(of: [text])
            }
            return "\(error.map { "\($0)" } ?? "")"
        }
        #expect(try error("down").contains("500") && error("down").contains("3 tries"))
        // What will not get better is not tried again.
        let before = server.requests.count
        #expect(try error("bad").contains("no such attribute"))
        #expect(server.requests.count == before + 1)
        #expect(try error("slow", 0.3).contains("longer than the time allowed"))
        server.stop()
        #expect(try error("gone").contains("could not be reached"))
        #expect(throws: EvaluationError.self) {
            var settings = HTTPToxicityScorer.Settings()
            settings.url = "not an address"
            _ = try HTTPToxicityScorer(settings)
        }
    }

    @Test func waitingCanBeEnded() throws {
        let server = try ScriptedServer { _, _ in .init(status: 429, headers: ["Retry-After": "50"]) }
        defer { server.stop() }
        let start = ContinuousClock.now
        let scorer = try scorer(server, isCancelled: { ContinuousClock.now - start > .milliseconds(200) })
        #expect(throws: CancellationError.self) { try scorer.scores(of: ["text"]) }
        #expect(ContinuousClock.now - start < .seconds(20))
    }
}
