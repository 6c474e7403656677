import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText
import TestSupport
import Testing

@Suite struct EvaluationRunTests {
    private func parts(_ family: Family = .vertical) throws -> (
        model: MonetLanguageModel, tokenizer: Tokenizer
    ) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(family)
        c.vocabularySize = tokenizer.vocabularySize
        c.maxPositionEmbeddings = 96
        return (try scrambledModel(c, seed: 33), tokenizer)
    }

    // MARK: Scorer

    private static func queries(_ vocabulary: Int, count: Int, seed: UInt64) -> [ContinuationScorer.Query] {
        var random = SplitMix64(seed: seed)
        func tokens(_ count: Int) -> [Int32] {
            (0..<count).map { _ in Int32(random.next() % UInt64(vocabulary)) }
        }
        let shared = tokens(30)
        var result: [ContinuationScorer.Query] = []
        for number in 0..<count {
            // Contexts of their own, shared ones, equal ones, and continuations of one token or several.
            let context = number % 3 == 0 ? tokens(1 + number % 7) : shared + tokens(number % 5)
            for length in [1, 1, 3, 9] {
                result.append(.init(tokens: context + tokens(length), first: context.count))
            }
            if number % 4 == 1, let last = result.last { result.append(last) }
        }
        return result
    }

    private func scores(
        _ queries: [ContinuationScorer.Query], _ model: MonetLanguageModel, _ backend: any Backend,
        mask: UnitMask? = nil
    ) throws -> [ContinuationScorer.Score] {
        var scores = queries.map { _ in ContinuationScorer.Score(logLikelihood: .nan, isGreedy: false) }
        var reports = queries.map { _ in 0 }
        let isComplete = try ContinuationScorer(model: model, backend: backend, mask: mask).score(queries) {
            index, score in
            scores[index] = score
            reports[index] += 1
            return true
        }
        #expect(isComplete)
        #expect(reports.allSatisfy { $0 == 1 })
        return scores
    }

    /// Sums of log p compared with whole passes in double precision.
    @Test(arguments: Family.allCases) func scoresAreThoseOfWholePasses(_ family: Family) throws {
        let (model, _) = try parts(family)
        let queries = Self.queries(model.configuration.vocabularySize, count: 7, seed: 5)
        let found = try scores(queries, model, CPUBackend(isBatchInvariant: true))
        let reference = try model.moved(to: ReferenceBackend())
        for (query, score) in zip(queries, found) {
            let output = try reference.forward(ForwardInput([query.tokens]), on: ReferenceBackend())
            let logits = try reference.logits(output.hidden.value, on: ReferenceBackend())
            let (values, width) = (logits.floats().map(Double.init), logits.columnCount)
            var (sum, isGreedy) = (0.0, true)
            for place in query.first..<query.tokens.count {
                let row = values[((place - 1) * width)..<(place * width)]
                let largest = row.max() ?? 0
                let token = row.startIndex + Int(query.tokens[place])
                sum += row[token] - largest - log(row.reduce(0) { $0 + exp($1 - largest) })
                isGreedy = isGreedy && row.firstIndex(of: largest) == token
            }
            // float32 through three layers: a few units in the sixth digit of each term.
            #expect(abs(score.logLikelihood - sum) < 1e-4 * max(1, abs(sum)))
            #expect(score.isGreedy == isGreedy)
        }
    }

    /// A score does not depend on what else is scored, nor on threads: bit for bit.
    @Test func scoresAreTheSameInAnyCompany() throws {
        let (model, _) = try parts()
        let queries = Self.queries(model.configuration.vocabularySize, count: 24, seed: 8)
        let all = try scores(queries, model, CPUBackend(isBatchInvariant: true))
        for index in stride(from: 0, to: queries.count, by: 5) {
            #expect(try scores([queries[index]], model, CPUBackend(isBatchInvariant: true)) == [all[index]])
        }
        let one = CPUBackend(pool: WorkerPool(threadCount: 1), isBatchInvariant: true)
        #expect(try scores(queries.reversed(), model, one) == all.reversed())
        #expect(try scores([], model, one).isEmpty)
    }

    // MARK: Runs

    private func tasks(_ names: [String], shots: Int = 2) throws -> (
        tasks: [EvaluationTask], groups: [TaskGroup]
    ) {
        let library = try TaskLibrary(.harness, folders: [Fixture.path("benchmarks/tasks")])
        let selection = try library.selection(names)
        let data = DatasetFolder(Fixture.path("benchmarks/hub"))
        return (
            try selection.tasks.map { try EvaluationTask($0, data: data, shots: shots) }, selection.groups
        )
    }

    private static let names = [
        "arc_easy", "winogrande", "own_cloze", "own_rolling", "own_generated", "own_votes",
    ]

    private func run(
        _ names: [String] = names, mask: UnitMask? = nil, model: MonetLanguageModel? = nil,
        communicator: any Communicator = SingleProcess()
    ) throws -> EvaluationRun {
        let (own, tokenizer) = try parts()
        let (tasks, groups) = try tasks(names)
        return EvaluationRun(
            model: model ?? own, tokenizer: tokenizer, mask: mask, tasks: tasks, groups: groups,
            communicator: communicator)
    }

    private func text(_ results: EvaluationResults) -> String {
        let run = EvaluationResults.RunDescription(model: "m", start: .distantPast, end: .distantPast)
        return results.json(run).serialized(pretty: true)
    }

    /// Processes that share the questions have the results of one, also if they go on where others stopped.
    @Test func processesShareTheQuestions() throws {
        let whole = text(try run().results(limit: 6))
        for processes in [2, 3] {
            let shared = try ThreadProcesses(count: processes).run { communicator in
                try text(run(communicator: communicator).results(limit: 6))
            }
            #expect(shared.allSatisfy { $0 == whole }, "\(processes)")
        }
        try withTemporaryFolder { folder in
            let path = folder + "/answers.jsonl"
            let stopped = try ThreadProcesses(count: 2).run { communicator -> Bool in
                var passes = 0
                do {
                    _ = try run(communicator: communicator).results(limit: 6, recordsPath: path) { _ in
                        passes += 1
                        return communicator.isFirst || passes < 3
                    }
                    return false
                } catch is CancellationError { return true }
            }
            #expect(stopped == [true, true])
            let known = try TextFile.read(path).split(separator: "\n").count - 1
            #expect(known > 0 && known < 36, "\(known)")
            let resumed = try ThreadProcesses(count: 3).run { communicator in
                try text(run(communicator: communicator).results(limit: 6, recordsPath: path))
            }
            #expect(resumed.allSatisfy { $0 == whole })
            // Processes have fewer threads each, on which no answer depends.
            let names = [1, 3].flatMap { threads in
                [true, false].map {
                    CPUBackend(pool: WorkerPool(threadCount: threads), isBatchInvariant: $0).arithmeticName
                }
            }
            #expect(names[0] == names[2] && names[1] != names[3])
            #expect(try text(run().results(limit: 6, recordsPath: path)) == whole)
        }
    }

    /// A run that is stopped at any document, and whose last line may be cut, gives what an undisturbed one gives.
    @Test func stoppedRunsGoOnWithTheSameResults() throws {
        let whole = text(try run().results(limit: 6))
        for stop in [1, 5, 11, 19, 30] {
            try withTemporaryFolder { folder in
                let path = folder + "/answers.jsonl"
                #expect(throws: CancellationError.self) {
                    try run().results(limit: 6, recordsPath: path) { $0.done < stop }
                }
                let written = try TextFile.read(path)
                // As a process leaves it that is killed while it writes.
                try String(written.dropLast(stop % 3 * 7)).write(
                    toFile: path, atomically: true, encoding: .utf8)
                var known = -1
                let results = try run().results(limit: 6, recordsPath: path) {
                    if known < 0 { known = $0.done - $0.doneNow }
                    return true
                }
                #expect(known > 0 || stop == 1)
                #expect(text(results) == whole)
            }
        }
    }

    @Test func recordsOfOtherRunsAndOtherQuestionsAreRefused() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/answers.jsonl"
            _ = try run(["arc_easy"]).results(limit: 2, recordsPath: path)
            var mask = UnitMask(unitsPerGroup: 100)
            mask.remove(0..<10, group: 0)
            #expect(throws: EvaluationError.self) {
                try run(["arc_easy"], mask: mask).results(limit: 2, recordsPath: path)
            }
            let changed = try TextFile.read(path).replacing("\"doc\":0", with: "\"doc\":9")
                .replacing("\"doc\":1", with: "\"doc\":0")
            try changed.write(toFile: path, atomically: true, encoding: .utf8)
            #expect(throws: EvaluationError.self) {
                try run(["arc_easy"]).results(limit: 2, recordsPath: path)
            }
            _ = try run(["arc_easy"], mask: mask).results(limit: 2, recordsPath: path, overwrite: true)
        }
    }

    @Test func filesHaveTheHarnessLayoutAndCompare() throws {
        try withTemporaryFolder { folder in
            let first = try run(["own_group", "arc_easy"]).results()
            let start = Date(timeIntervalSince1970: 100)
            let path = try first.write(
                to: folder, .init(model: "models/a", start: start, end: Date(timeIntervalSince1970: 160.5)))
            #expect(path.hasSuffix("/models__a/results_1970-01-01T00-02-40.500000.json"))
            let json = try JSONValue(contentsOfFile: path)
            for key in [
                "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better",
                "n-samples", "config", "task_hashes",
            ] {
                #expect(json[key]?.members?.isEmpty == false, "\(key)")
            }
            var mask = UnitMask(unitsPerGroup: 100)
            mask.remove(0..<60, group: 0)
            let second = try run(["own_group", "arc_easy"], mask: mask).results()
            let comparison = try EvaluationComparison(.init(resultsFile: path), .init(second, name: "b"))
            #expect(comparison.rows.count == 6)
            for (row, (one, two)) in zip(comparison.rows, zip(first.tasks, second.tasks)) {
                let (a, b) = (one.main?.value ?? .nan, two.main?.value ?? .nan)
                #expect(abs(row.difference - (b - a)) < 1e-12)
                // The variance of differences from its definition.
                let d = zip(one.mainValues, two.mainValues).map { $1 - $0 }
                let mean = d.reduce(0, +) / Double(d.count)
                let variance = d.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(d.count - 1)
                #expect(abs((row.standardError ?? .nan) - (variance / Double(d.count)).squareRoot()) < 1e-12)
            }
        }
    }

    // MARK: Programs

    /// Compared with all ways to choose k of n samples.
    @Test func passRatesAreThoseOfAllChoices() {
        func ways(_ n: Int, _ k: Int) -> Double {
            k == 0 ? 1 : n < k ? 0 : ways(n - 1, k - 1) + ways(n - 1, k)
        }
        for n in 1...12 {
            for passed in 0...n {
                for k in 1...n {
                    let expected = 1 - ways(n - passed, k) / ways(n, k)
                    #expect(abs(PassRate.estimate(samples: n, passed: passed, k: k) - expected) < 1e-12)
                }
            }
        }
        #expect(abs(PassRate.estimate(samples: 200, passed: 1, k: 100) - 0.5) < 1e-12)
    }
}

extension TaskResult {
    /// Values of the main metric by document.
    fileprivate var mainValues: [Double] {
        items.filter { $0.filter == main?.filter }.compactMap { item in
            guard case .number(let value)? = item.metrics.first(where: { $0.name == main?.metric })?.value
            else { return nil }
            return value
        }
    }
}

/// The matrix over categories of benchmarks.
@Suite struct TaskUnlearningTests {
    private func parts() throws -> (model: MonetLanguageModel, tokenizer: Tokenizer, tasks: [EvaluationTask])
    {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(.vertical)
        c.vocabularySize = tokenizer.vocabularySize
        c.maxPositionEmbeddings = 128
        let selection = try TaskLibrary().selection(["mmlu_anatomy", "mmlu_philosophy"])
        let data = DatasetFolder(Fixture.path("benchmarks/hub"))
        return (
            try scrambledModel(c, seed: 33), tokenizer,
            try selection.tasks.map { try EvaluationTask($0, data: data, shots: 1) }
        )
    }

    /// Every entry is the accuracy of an evaluation with the same mask.
    @Test func entriesAreThoseOfEvaluations() throws {
        let (model, tokenizer, tasks) = try parts()
        var plan = TaskUnlearning.Plan()
        plan.criterion.minimumCount = 1
        plan.criterion.ratio = 1.2
        plan.draws = 1
        plan.limit = 5
        var evaluations: Set<Int> = []
        let unlearning = try TaskUnlearning(plan, tasks: tasks, model: model, tokenizer: tokenizer) {
            evaluations.insert($0.evaluation)
            return true
        }
        #expect(unlearning.matrix.labels == ["health", "philosophy"])
        #expect(evaluations.count == 5)
        #expect(unlearning.chance == [0.25, 0.25])
        #expect(unlearning.matrix.rows.allSatisfy { $0.removed > 0 })
        let results = try EvaluationRun(model: model, tokenizer: tokenizer, tasks: tasks).results(limit: 5)
        for (place, result) in results.tasks.enumerated() {
            let score = unlearning.matrix.baseline[place]
            #expect(score.tokens == 5)
            #expect(abs(score.accuracy - (result.value("acc")?.value ?? .nan)) < 1e-12)
        }
    }

    /// Programs are counted by those that pass; a model with random weights writes none.
    @Test func programsAreCounted() throws {
        let (model, tokenizer, tasks) = try parts()
        let data = DatasetFolder(Fixture.path("benchmarks/hub"))
        let programs = try TaskLibrary().selection(["humaneval", "multipl-e-py"]).tasks.map {
            try EvaluationTask($0.sampling(2, temperature: 1).limited(toNewTokens: 4), data: data)
        }
        var plan = TaskUnlearning.Plan()
        plan.categories = .tasks
        plan.criterion.minimumCount = 1
        plan.criterion.ratio = 1.2
        plan.draws = 1
        let unlearning = try TaskUnlearning(
            plan, tasks: programs, model: model, tokenizer: tokenizer, isolation: .unsafe)
        #expect(unlearning.arePrograms)
        #expect(unlearning.matrix.labels == ["humaneval", "multipl-e-py"])
        // Two problems and one, two programs of each.
        #expect(unlearning.matrix.baseline.map(\.tokens) == [4, 2])
        #expect(unlearning.matrix.baseline.allSatisfy { $0.hits == 0 })
        #expect(unlearning.chance == [0, 0])
        #expect(unlearning.pictures.count == 1)
        #expect(unlearning.notes.last?.contains("humaneval, multipl-e-py") == true)
        #expect(throws: EvaluationError.self) {
            try TaskUnlearning(
                plan, tasks: programs + tasks, model: model, tokenizer: tokenizer, isolation: .unsafe)
        }
        #expect(throws: EvaluationError.self) {
            try TaskUnlearning(plan, tasks: programs, model: model, tokenizer: tokenizer)
        }
    }

    @Test func whatHasNoCategoriesIsRefused() throws {
        let (model, tokenizer, tasks) = try parts()
        var plan = TaskUnlearning.Plan()
        plan.categories = .column("nothing")
        #expect(throws: TaskError.self) {
            try TaskUnlearning(plan, tasks: tasks, model: model, tokenizer: tokenizer)
        }
        plan.categories = .tasks
        #expect(throws: EvaluationError.self) {
            try TaskUnlearning(plan, tasks: [tasks[0]], model: model, tokenizer: tokenizer)
        }
        let data = DatasetFolder(Fixture.path("benchmarks/hub"))
        let piqa = try #require(try TaskLibrary().selection(["piqa"]).tasks.first)
        plan.categories = .mmluPro
        #expect(throws: TaskError.self) {
            try TaskUnlearning(
                plan, tasks: [EvaluationTask(piqa, data: data)], model: model, tokenizer: tokenizer)
        }
    }
}
