import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// The programs of tasks, with the reference solutions and with mistakes in place of a model's.
@Suite struct ProgramRunnerTests {
    private static let isIsolated = (try? Isolation.find()) != nil

    private static func hasTools(_ language: ProgramLanguage) -> Bool {
        isIsolated && (try? language.findTools(isIsolated: true)) != nil
    }

    private func statuses(_ task: String, _ texts: [String]) throws -> [ProgramOutcome.Status] {
        let definition = try #require(try TaskLibrary().selection([task]).tasks.first)
        let item = try #require(
            try EvaluationTask(definition, data: DatasetFolder(Fixture.path("benchmarks/hub"))).items().first)
        let language = try #require(definition.programLanguage)
        guard
            case .programs(let programs) = try ProgramRunner(language: language, isolation: .sandbox())
                .judged(texts, of: item)
        else { return [] }
        #expect(programs.map(\.text) == texts)
        return programs.map(\.status)
    }

    @Test(.enabled(if: hasTools(.python), "bubblewrap and python3 are needed"))
    func humanEvalJudgesByItsTests() throws {
        let texts = [
            "    return 2 * x\n", "    return x\n", "    return (\n", "    import os; os._exit(0)\n",
        ]
        #expect(try statuses("humaneval", texts) == [.passed, .wrong, .error, .wrong])
    }

    /// The six kinds of programs among the example samples of OpenAI's `human-eval`, whose README gives pass@1 as
    /// 0.4999999999999999: a call of another program, one that takes too long, one that reads input, and three right ones
    /// with other white space.
    @Test(.enabled(if: hasTools(.python), "bubblewrap and python3 are needed"))
    func exampleSamplesHaveThePublishedRate() throws {
        try withTemporaryFolder { folder in
            let problem: JSONValue = [
                "task_id": "test/0", "prompt": "def return1():\n", "entry_point": "return1",
                "canonical_solution": "    return 1",
                "test": "def check(candidate):\n    assert candidate() == 1",
            ]
            let path = folder + "/openai/openai_humaneval"
            try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
            try (problem.serialized() + "\n").write(
                toFile: path + "/test.jsonl", atomically: true, encoding: .utf8)
            let definition = try #require(try TaskLibrary().selection(["humaneval"]).tasks.first)
            let item = try #require(
                try EvaluationTask(definition, data: DatasetFolder(folder)).items().first)
            let programs = [
                "    import subprocess\n    subprocess.run(['rm', '-rf', 'tmp'])\n",
                "    import time\n    time.sleep(600)\n    return 1\n", "    return input('a number')\n",
                "    return 1\n", "  return 1\n", "\treturn 1\n",
            ]
            guard
                case .programs(let judged) = try ProgramRunner(language: .python, isolation: .sandbox())
                    .judged(programs, of: item)
            else { return }
            #expect(judged.map(\.status) == [.wrong, .timeout, .error, .passed, .passed, .passed])
            let passed = judged.count { $0.status == .passed }
            #expect(PassRate.estimate(samples: 6, passed: passed, k: 1) == 0.4999999999999999)
        }
    }

    @Test(.enabled(if: hasTools(.cpp) && hasTools(.javascript), "bubblewrap, g++ and node are needed"))
    func otherLanguagesAreCompiledAndRun() throws {
        #expect(
            try statuses("multipl-e-cpp", ["  return 2 * x;\n", "  return x;\n", "  return\n"]) == [
                .passed, .wrong, .error,
            ])
        #expect(
            try statuses("multipl-e-js", ["  return 2 * x;\n}\n", "  return x;\n}\n"]) == [.passed, .wrong])
    }

    @Test func samplesAreDrawnAtATemperature() throws {
        let definition = try #require(try TaskLibrary().selection(["humaneval"]).tasks.first)
        #expect(definition.runsPrograms)
        #expect(definition.sampling(5, temperature: nil).repeats == 5)
        let other = try #require(try TaskLibrary().selection(["piqa"]).tasks.first)
        #expect(!other.runsPrograms && other.sampling(5, temperature: 1).repeats == 1)
    }
}
