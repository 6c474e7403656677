import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import Synchronization
import TestSupport
import Testing

/// Explanations by a real HTTP server on this machine whose answers the tests write.
@Suite struct ExplanationTests {
    private func server(_ address: String, attempts: Int = 1) throws -> ExplanationServer {
        var settings = ExplanationServer.Settings()
        (settings.url, settings.attempts, settings.backOff) = (address + "/v1", attempts, 0.01)
        (settings.key, settings.model, settings.timeout) = ("secret", "judge", 5)
        return try ExplanationServer(settings)
    }

    private func answer(_ content: String) -> ScriptedServer.Answer {
        let json: JSONValue = ["choices": [["message": ["role": "assistant", "content": .string(content)]]]]
        return .init(body: json.serialized())
    }

    private func context(_ text: String, firing: Set<Int>) -> ScoredContext {
        let pieces = text.split(separator: " ").map { " " + $0 }
        return ScoredContext(
            pieces: pieces, scores: pieces.indices.map { firing.contains($0) ? 1 : 0 },
            place: firing.min() ?? 0)
    }

    @Test func marksStandAroundTokens() {
        let context = ScoredContext(
            pieces: ["<0xE2>", "<0x82>", "<0xAC>", " sea", "man"], scores: [0, 0, 0, 2, 0], place: 3)
        #expect(context.text { context.scores[$0] > 0 } == "€ «sea»man")
        #expect(context.text { _ in false } == "€ seaman")
        #expect(context.fires)
    }

    @Test func requestsAreThoseOfTheFormat() throws {
        let scripted = try ScriptedServer { _, number in
            number == 0 ? answer("EXPLANATION: words of the\nsea") : answer("I think: [1, 0,\n 1]")
        }
        defer { scripted.stop() }
        let server = try server(scripted.address)
        #expect(try server.explanation(of: [context("the sea rises", firing: [1])]) == "words of the sea")
        #expect(
            try server.judgements(of: ["a", "b", "c"], by: "words", marked: true) == [true, false, true])
        let request = try #require(scripted.requests.first)
        #expect(request.method == "POST" && request.target == "/v1/chat/completions")
        #expect(request.headers["authorization"] == "Bearer secret")
        let body = try JSONValue(parsing: request.body, source: "body")
        #expect(body["model"] == "judge" && body["temperature"] == 0)
        let prompt = body["messages"]?.arrayValue?.first?["content"]?.stringValue ?? ""
        #expect(prompt.contains("1. the «sea» rises"))
        let second = try JSONValue(parsing: scripted.requests[1].body, source: "body")
        #expect(second["messages"]?.arrayValue?.first?["content"]?.stringValue?.contains("3. c") == true)
    }

    @Test func rubbishIsAnErrorThatSaysWhatWasExpected() throws {
        for (body, word) in [
            ("nonsense", "choices[0].message.content"), ("{}", "choices[0].message.content"),
            (#"{"choices": []}"#, "choices[0].message.content"),
            (#"{"choices": [{"message": {"content": "[1, 0]"}}]}"#, "a list of 3 zeros and ones"),
            (#"{"choices": [{"message": {"content": "[1, 0, 2]"}}]}"#, "a list of 3 zeros and ones"),
            (#"{"choices": [{"message": {"content": "yes"}}]}"#, "a list of 3 zeros and ones"),
        ] {
            let scripted = try ScriptedServer { _, _ in .init(body: body) }
            defer { scripted.stop() }
            do {
                _ = try server(scripted.address, attempts: 2).judgements(
                    of: ["a", "b", "c"], by: "x", marked: false)
                Issue.record("\(body) was taken")
            } catch let error as EvaluationError {
                #expect("\(error)".contains(word) && "\(error)".contains("2 tries"), "\(error)")
            }
            #expect(scripted.requests.count == 2)
        }
        let refusing = try ScriptedServer { _, _ in
            .init(status: 401, body: #"{"error": {"message": "bad key"}}"#)
        }
        defer { refusing.stop() }
        do {
            _ = try server(refusing.address, attempts: 5).explanation(of: [context("a b", firing: [0])])
            Issue.record("a refusal was taken")
        } catch let error as EvaluationError {
            #expect("\(error)".contains("401: bad key") && "\(error)".contains("1 try"))
        }
        #expect(throws: EvaluationError.self) { try server("ftp://nowhere") }
        var nowhere = ExplanationServer.Settings()
        for address in ["http://", "http:", "", "nowhere"] {
            nowhere.url = address
            #expect(throws: EvaluationError.self, "\(address)") { try ExplanationServer(nowhere) }
        }
    }

    @Test func scoresAreSharesOfRightJudgements() {
        let score = JudgementScore(
            [true, true, false, false, false], truth: [true, false, false, false, true])
        #expect(score.hits == 3 && score.accuracy == 0.6)
        #expect(score.sensitivity == 0.5 && abs((score.specificity ?? 0) - 2 / 3) < 1e-12)
        #expect(abs((score.balanced ?? 0) - (0.5 + 2.0 / 3) / 2) < 1e-12)
        #expect(JudgementScore([true], truth: [true]).balanced == nil)
        #expect(JudgementScore([], truth: []).accuracy == 0)
    }

    /// A judge that knows which contexts fire scores 1; one that says no to all scores one half.
    @Test(arguments: [true, false])
    func anExpertIsExplainedAndScored(knows: Bool) throws {
        try withTemporaryFolder { folder in
            let (index, model, documents) = try smallIndex(in: folder)
            let unit = try index.experts(minimumCount: 8)[0]
            var dossiers = [try index.dossier(of: unit, context: 4)]
            try index.measureContexts(of: &dossiers, model: model)
            let reader = try ActivationReader(
                model: model, documents: documents, ActivationSelection(units: .these([unit])))
            let heldOut = try ScoredDocuments(reader, names: { " t\($0)" })
            var settings = ExplanationTask.Settings()
            (settings.top, settings.samples, settings.reach) = (3, 2, 4)
            let task = ExplanationTask(dossiers[0], heldOut: heldOut, settings: settings)
            #expect(task.isUsable && task.shown.allSatisfy(\.fires) && task.detection.contains { !$0.fires })
            #expect(task.detection.filter(\.fires).allSatisfy { !task.shown.contains($0) })
            // Pieces name tokens, so that a context can be found in its document and run again.
            let expectedScores = try documents.allScores(of: unit, model: model)
            for context in task.detection.filter({ !$0.fires }) + task.routing {
                let matches = expectedScores.indices.flatMap { document -> [Int] in
                    let names = documents.tokens(document).map { " t\($0)" }
                    guard names.count >= context.pieces.count else { return [] }
                    return (0...(names.count - context.pieces.count)).filter { start in
                        Array(names[start..<(start + context.pieces.count)]) == context.pieces
                            && zip(expectedScores[document][start...], context.scores).allSatisfy {
                                abs($0 - $1) < 1e-5
                            }
                    }
                }
                #expect(!matches.isEmpty, "the scores of a context are those of its tokens")
            }
            let routed = task.routing.map { $0.scores[$0.place] > 0 }
            #expect(routed.count { $0 } * 2 == routed.count && !routed.isEmpty)
            let truths = [task.detection.map(\.fires), routed]
            let scripted = try ScriptedServer { _, number in
                if number == 0 { return answer("salt water") }
                let truth = truths[number - 1]
                return answer("[" + truth.map { knows && $0 ? "1" : "0" }.joined(separator: ", ") + "]")
            }
            defer { scripted.stop() }
            let result = try ScoredExplanation(task, by: server(scripted.address))
            #expect(scripted.requests.count == task.requestCount)
            #expect(result.text == "salt water" && result.isCredible == knows)
            #expect(result.detection.balanced == (knows ? 1 : 0.5))
            #expect(result.routing?.balanced == (knows ? 1 : 0.5))
            // What was announced is what was sent, but for the explanation that both judgements repeat.
            let sent = try scripted.requests.reduce(0) { sum, request in
                let body = try JSONValue(parsing: request.body, source: "body")
                let prompt = body["messages"]?.arrayValue?.first?["content"]?.stringValue ?? ""
                return sum + prompt.utf8.count
            }
            #expect(sent == task.promptBytes + 2 * "salt water".utf8.count)
        }
    }

    private func smallIndex(in folder: String) throws -> (ExpertIndex, MonetLanguageModel, LabelledDocuments)
    {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 21)
        var source = TensorSource(seed: 3)
        let documents = LabelledDocuments(
            tokens: (0..<12).map { _ in source.ids(30, below: 67) }, origin: "test")
        var settings = ExpertIndexBuilder.Settings()
        settings.window = 32
        let builder = try ExpertIndexBuilder(
            model: model, modelPath: "none", tokenizer: nil, documents: documents, settings: settings)
        #expect(try builder.build(at: folder + "/i.sqlite"))
        return (try ExpertIndex(path: folder + "/i.sqlite", model: model), model, documents)
    }
}

extension LabelledDocuments {
    /// A unit's score on every token, document by document, each run alone.
    fileprivate func allScores(of unit: UnitID, model: MonetLanguageModel) throws -> [[Double]] {
        try (0..<count).map { document in
            let ids = tokens(document)
            var scores = [Double](repeating: 0, count: ids.count)
            var input = ForwardInput([ids])
            input.keepsUnits = true
            for group in try model.forward(input).groups where group.group == unit.group {
                var reader = group.reader()
                for row in ids.indices {
                    reader.visit(row) { index, score in if index == unit.index { scores[row] = Double(score) }
                    }
                }
            }
            return scores
        }
    }
}
