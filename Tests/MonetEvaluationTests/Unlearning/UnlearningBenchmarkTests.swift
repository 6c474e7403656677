import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetModel
import MonetText
import TestSupport
import Testing

/// TOFU, MUSE and the examination of documents on a small model, against whole passes one text at a time.
@Suite struct UnlearningBenchmarkTests {
    private func subject(_ family: Family = .vertical, seed: UInt64 = 33) throws -> (
        subject: UnlearningSubject, model: MonetLanguageModel, tokenizer: Tokenizer
    ) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(family)
        c.vocabularySize = tokenizer.vocabularySize
        c.maxPositionEmbeddings = 128
        let model = try scrambledModel(c, seed: seed)
        return (UnlearningSubject(name: "small", model: model, tokenizer: tokenizer), model, tokenizer)
    }

    private let data = DatasetFolder(Fixture.path("unlearning/hub"))

    /// log p of the tokens after a prompt, from one pass in double precision.
    private func logProbabilities(
        _ prompt: String, _ text: String, _ model: MonetLanguageModel, _ tokenizer: Tokenizer, end: Bool
    ) throws -> [Double] {
        let trimmed = prompt.hasSuffix(" ") ? String(prompt.dropLast()) : prompt
        let count = try tokenizer.encode(trimmed, addBegin: tokenizer.addsBegin).count
        var tokens = try tokenizer.encode(prompt + text, addBegin: tokenizer.addsBegin)
        if end, let id = tokenizer.endID { tokens.append(id) }
        let reference = try model.moved(to: ReferenceBackend())
        let output = try reference.forward(ForwardInput([tokens]), on: ReferenceBackend())
        let logits = try reference.logits(output.hidden.value, on: ReferenceBackend())
        let (values, width) = (logits.floats().map(Double.init), logits.columnCount)
        return (count..<tokens.count).map { place in
            let row = values[((place - 1) * width)..<(place * width)]
            let largest = row.max() ?? 0
            return row[row.startIndex + Int(tokens[place])] - largest
                - log(row.reduce(0) { $0 + exp($1 - largest) })
        }
    }

    /// float32 through three layers: means of log p agree to 1e-4.
    @Test func measuresOfTOFUAreThoseOfWholePasses() throws {
        let (subject, model, tokenizer) = try subject()
        var plan = TOFUEvaluation.Plan()
        plan.maxNewTokens = 6
        let questions = try TOFUEvaluation.Data(data, plan)
        var counted = 0
        let found = try TOFUEvaluation(questions, plan, of: subject) {
            counted = $0
            return true
        }
        #expect(counted > 30 && counted <= questions.count)
        let measures = Dictionary(
            uniqueKeysWithValues: found.measures(reference: found).map { ($0.name, $0) })
        func rows(_ name: String) throws -> [JSONValue] {
            try String(
                contentsOfFile: Fixture.path("unlearning/hub/locuslab/TOFU/\(name)_perturbed.json"),
                encoding: .utf8
            )
            .split(separator: "\n").map { try JSONValue(parsing: String($0), source: name) }
        }
        var kept: [Double] = []
        for (part, file) in [
            ("forget", "forget10"), ("retain", "retain"), ("real authors", "real_authors"),
            ("world facts", "world_facts"),
        ] {
            var (probabilities, truths, recalls): ([Double], [Double], [Double]) = ([], [], [])
            for row in try rows(file) {
                let prompt = "Question: \(row["question"]?.stringValue ?? "")\nAnswer: "
                let answer = try #require(row["answer"]?.stringValue)
                func loss(_ text: String) throws -> Double {
                    let values = try logProbabilities(prompt, text, model, tokenizer, end: true)
                    return -values.reduce(0, +) / Double(values.count)
                }
                let wrong = try (row["perturbed_answer"]?.arrayValue ?? []).compactMap(\.stringValue).map(
                    loss)
                let right = try loss(row["paraphrased_answer"]?.stringValue ?? answer)
                let ratio = exp(-wrong.reduce(0, +) / Double(wrong.count)) / exp(-right)
                truths.append(part == "forget" ? min(ratio, 1 / ratio) : max(0, 1 - ratio))
                let own = exp(-(try loss(answer)))
                probabilities.append(
                    file.hasPrefix("re") && file != "retain" || file.hasPrefix("world")
                        ? own / (own + wrong.reduce(0) { $0 + exp(-$1) }) : own)
                let text = try subject.continuations(of: [prompt], newTokens: 6) {}[0]
                recalls.append(RougeL(reference: answer, candidate: text, stems: true).recall)
            }
            for (name, values) in [
                ("probability", probabilities), ("truth ratio", truths), ("ROUGE-L recall", recalls),
            ] {
                let mean = values.reduce(0, +) / Double(values.count)
                let measure = try #require(measures["\(part): \(name)"])
                #expect(abs(measure.value - mean) < 1e-4 * max(abs(mean), 1e-2), "\(part) \(name)")
                #expect(measure.count == values.count)
                if part != "forget" { kept.append(mean) }
            }
        }
        let utility = kept.contains(0) ? 0 : 9 / kept.reduce(0) { $0 + 1 / $1 }
        #expect(abs((measures["model utility"]?.value ?? .nan) - utility) < 1e-4)
        // A model is not to be told from itself.
        #expect(measures["forget quality (p)"]?.value == 1)
        // Two questions each: the ratios of two models are either apart, which is as likely as 1/3, or not.
        let other = try TOFUEvaluation(questions, plan, of: self.subject(seed: 4).subject)
        let p = try #require(found.forgetQuality(reference: other))
        #expect(abs(p - 1) < 1e-12 || abs(p - 1.0 / 3) < 1e-12)
    }

    @Test func measuresOfMUSEAreThoseOfWholePasses() throws {
        let (subject, model, tokenizer) = try subject()
        let read = try MUSEEvaluation.Data(data, MUSEEvaluation.Plan())
        let found = try MUSEEvaluation(read, of: subject)
        func lines(_ name: String) throws -> [JSONValue] {
            try String(
                contentsOfFile: Fixture.path("unlearning/hub/muse-bench/MUSE-News/\(name).jsonl"),
                encoding: .utf8
            )
            .split(separator: "\n").map { try JSONValue(parsing: String($0), source: name) }
        }
        func losses(_ name: String) throws -> [Double] {
            try lines(name).map { row in
                let begin = tokenizer.addsBegin ? 1 : 0
                #expect(begin == 1)
                let all = try logProbabilities(
                    "", row["text"]?.stringValue ?? "", model, tokenizer, end: false)
                let least = all.sorted().prefix(Int(Double(all.count) * 0.4))
                return -least.reduce(0, +) / Double(least.count)
            }
        }
        let (members, others) = (try losses("privleak/forget"), try losses("privleak/holdout"))
        let pairs = members.flatMap { member in others.map { $0 < member ? 1.0 : 0 } }
        #expect(abs(found.membershipArea - pairs.reduce(0, +) / Double(pairs.count)) < 1e-12)
        let scores = try lines("verbmem/forget").map { row in
            let text = try subject.continuations(of: [row["prompt"]?.stringValue ?? ""], newTokens: 128) {}[0]
            return 100
                * RougeL(reference: row["gt"]?.stringValue ?? "", candidate: text, stems: false).fMeasure
        }
        #expect(abs(found.verbatim.mean - scores.reduce(0, +) / 2) < 1e-9)
        #expect(found.forgetKnowledge.count == 2 && found.retainKnowledge.count == 1)
        let prompt =
            "Question: When did it rain?\nAnswer: After the last song\n\n"
            + "Question: Where did the orchestra play?\nAnswer: "
        let answer = try subject.continuations(
            of: [prompt], newTokens: 32, stops: ["\n\n", "\nQuestion", "Question:"]
        ) {}[0]
        let f = RougeL(reference: "In the park", candidate: answer, stems: false).fMeasure
        #expect(abs(found.retainKnowledge.mean - 100 * f) < 1e-9)
        #expect(found.privacyLeakage(referenceArea: found.membershipArea) == 0)
        #expect(found.measures(reference: found).last?.name == "PrivLeak")
    }

    // MARK: Documents

    private func documents(_ model: MonetLanguageModel) throws -> DocumentExamination.Documents {
        var random = SplitMix64(seed: 2)
        func tokens(_ count: Int) -> [Int32] {
            [1]
                + (0..<count).map { _ in
                    Int32(3 + random.next() % UInt64(model.configuration.vocabularySize - 3))
                }
        }
        return try .init(
            forget: [tokens(50), tokens(12), [1]], retain: [tokens(40), tokens(200), tokens(3)], length: 128)
    }

    @Test func documentsAreDividedAndMixed() throws {
        let (subject, model, _) = try subject()
        let documents = try documents(model)
        #expect(documents.forget.map(\.count) == [51, 13])
        #expect(documents.retain.map(\.count) == [41, 128, 73, 4])
        var plan = DocumentExamination.Plan()
        (plan.promptTokens, plan.newTokens, plan.mixedTokens) = (8, 6, 10)
        var counted = 0
        let found = try DocumentExamination(documents, plan, of: subject, before: subject) {
            counted = $0
            return true
        }
        #expect(counted <= documents.count)
        let measures = Dictionary(uniqueKeysWithValues: found.measures.map { ($0.name, $0.value) })
        #expect(measures["forget: routing stability"] == 1)
        // The first document to forget after the beginning of the first to keep, in one pass.
        let tokens = Array(documents.retain[0].prefix(10) + documents.forget[0].dropFirst())
        let other = Array(documents.retain[1].prefix(10) + documents.forget[1].dropFirst())
        let losses = try subject.likelihoods(
            of: [.init(tokens: tokens, first: 10), .init(tokens: other, first: 10)]) {}.map(\.loss)
        #expect(abs((measures["forget after retain: loss"] ?? .nan) - (losses[0] + losses[1]) / 2) < 1e-12)
        #expect(throws: EvaluationError.self) {
            try DocumentExamination.Documents(forget: [], retain: [[1, 2]], length: 8)
        }
        // A context of few tokens, and prompts as long as documents.
        var c = smallConfiguration(.vertical)
        c.vocabularySize = model.configuration.vocabularySize
        c.maxPositionEmbeddings = 6
        let short = UnlearningSubject(
            name: "short", model: try scrambledModel(c, seed: 1), tokenizer: subject.tokenizer)
        plan.promptTokens = 300
        plan.mixedTokens = 0
        let little = try DocumentExamination(documents, plan, of: short, before: nil)
        #expect(little.measures.first { $0.name == "retain after forget: loss" }?.value ?? 0 > 1)
        #expect(throws: CancellationError.self) {
            try DocumentExamination(documents, plan, of: subject, before: nil) { _ in false }
        }
    }

    /// Selections counted again, token by token, on another backend; a dense model has none.
    @Test(arguments: Family.allCases) func routingStabilityCountsSelections(_ family: Family) throws {
        let (subject, model, _) = try subject(family)
        let mask = UnitMask.random(share: 0.5, of: model.units, seed: 3)
        let texts: [[Int32]] = [[1, 5, 9, 30, 7, 12], [1, 8], [1, 4, 4, 90, 22, 17, 3, 60]]
        let stability = try RoutingStability(
            of: texts, before: subject, after: subject.removing(mask, name: "less")
        ) {}
        guard family != .dense else {
            #expect(stability == nil)
            return
        }
        var expected = [Double](repeating: 0, count: model.configuration.routerLayers.count)
        var totals = expected
        for text in texts {
            let before = try model.forward(ForwardInput([text])).routings
            let after = try model.forward(ForwardInput([text], mask: mask)).routings
            for router in before.indices {
                for (old, new) in [
                    (before[router].left, after[router].left), (before[router].right, after[router].right),
                ] {
                    let now = Set(new.value.floats().indices.filter { new.value.floats()[$0] > 0 })
                    for index in old.value.floats().indices where old.value.floats()[index] > 0 {
                        totals[router] += 1
                        expected[router] += now.contains(index) ? 1 : 0
                    }
                }
            }
        }
        let found = try #require(stability)
        for router in expected.indices {
            #expect(abs(found.routers[router] - expected[router] / totals[router]) < 0.02)
        }
        #expect(found.routers[0] == 1, "the first router reads what no mask has changed")
        #expect(found.mean < 1)
    }

    // MARK: Bad data

    @Test func brokenDataIsNamed() throws {
        func message(_ change: (String) throws -> Void) throws -> String {
            try withTemporaryFolder { folder in
                try FileManager.default.copyItem(
                    atPath: Fixture.path("unlearning/hub/locuslab"), toPath: folder + "/locuslab")
                try change(folder + "/locuslab/TOFU/")
                do {
                    _ = try TOFUEvaluation.Data(DatasetFolder(folder), TOFUEvaluation.Plan())
                    return "nothing"
                } catch { return "\(error)" }
            }
        }
        let missing = try message { try FileManager.default.removeItem(atPath: $0 + "retain_perturbed.json") }
        #expect(missing.contains("retain_perturbed"), "\(missing)")
        let empty = try message {
            try "{\"question\": \"a\", \"answer\": \"\", \"perturbed_answer\": [\"x\"]}\n".write(
                toFile: $0 + "retain_perturbed.json", atomically: true, encoding: .utf8)
        }
        #expect(
            empty.contains("retain_perturbed.json") && empty.contains("line 1") && empty.contains("answer"),
            "\(empty)")
        let list = try message {
            try "{\"question\": \"a\", \"answer\": \"b\", \"perturbed_answer\": []}\n".write(
                toFile: $0 + "world_facts_perturbed.json", atomically: true, encoding: .utf8)
        }
        #expect(list.contains("perturbed_answer"), "\(list)")
    }

    @Test func reportsShowDraws() {
        func subject(_ name: String, _ value: Double) -> UnlearningReport.Subject {
            .init(
                name: name, removed: 3,
                measures: [.init("loss", SampleMean([value, value + 1])), .init("p", 1e-9)])
        }
        let report = UnlearningReport(
            subjects: [subject("plain", 1), subject("specialists", 2)],
            draws: ["specialists": [subject("random", 1), subject("random", 3)]])
        #expect(report.table[0] == ["", "plain", "specialists", "random (2 draws)"])
        #expect(report.table[2] == ["loss", "1.5000 ± 0.5000", "2.5000 ± 0.5000", "2.5000 ± 1.4142"])
        #expect(report.table[3][1] == "1.0e-09")
        #expect(report.json()["random"]?["specialists"]?.arrayValue?.count == 2)
        #expect(
            report.page(title: "T", definitions: ["D"], origin: .init(command: "x", model: "m", corpus: "c"))
                .contains("2.5000 ± 1.4142"))
    }
}
