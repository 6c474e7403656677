import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// Prompts, metrics, standard errors and groups compared with what lm-evaluation-harness recorded for the same
/// tasks and the same answers (`Tests/Fixtures/benchmarks/make-golden.py`).
@Suite struct HarnessGoldenTests {
    private static let golden = try? JSONValue(contentsOfFile: Fixture.path("benchmarks/golden.json"))

    /// The formula that answers in place of a model.
    private static func code(_ text: String) -> Int {
        text.utf8.enumerated().reduce(0) { $0 + Int($1.element) * ($1.offset % 31 + 1) } % 1009
    }

    private static func answer(_ request: TaskRequest, repeats: Int) -> TaskResponse {
        switch request {
        case .logLikelihood(let context, let continuation):
            let value = code(context + "|" + continuation)
            return .logLikelihood(-1 - Double(value) / 100, isGreedy: value % 3 == 0)
        case .rolling(let text): return .rolling(-1 - Double(code(text)) / 100)
        case .generation(let context):
            return .texts(
                (0..<repeats).map { sample in
                    let value = code(context) + 5 * sample
                    let letter = ["A", "B", "C", "D"][value % 4]
                    return " so 3 + 4 = \(value % 12). #### \(value % 12). The best answer is (\(letter))"
                })
        }
    }

    @Test(arguments: [0, 1, 2]) func promptsMetricsAndGroupsAreTheHarness(_ number: Int) throws {
        let run = try #require(Self.golden?["runs"]?.arrayValue?[number])
        let folder = Fixture.path("benchmarks/tasks")
        let library = try TaskLibrary(.harness, folders: [folder])
        let names = try #require(run["tasks"]?.arrayValue).compactMap(\.stringValue)
        let selection = try library.selection(names)
        let data = DatasetFolder(Fixture.path("benchmarks/hub"))
        var results: [TaskResult] = []
        for definition in selection.tasks {
            let task = try EvaluationTask(definition, data: data, shots: run["shots"]?.intValue)
            let expected = try #require(run["samples"]?[definition.name]?.arrayValue, "\(definition.name)")
            let items = try task.items()
            let scored = try items.map { item in
                try definition.scored(
                    item, item.requests.map { Self.answer($0, repeats: definition.repeats) },
                    hasManyTargets: task.hasManyTargets, name: task.name(of: item.index))
            }
            let found = scored.flatMap { $0 }
            #expect(found.count == expected.count, "\(definition.name)")
            for sample in expected {
                let name = "\(definition.name), document \(sample["doc_id"]?.intValue ?? -1)"
                let own = found.first {
                    $0.item.index == sample["doc_id"]?.intValue && $0.filter == sample["filter"]?.stringValue
                }
                let item = try #require(own, "\(name)")
                check(item, sample, name)
            }
            results.append(try TaskResult(task, scored))
        }
        let all = try EvaluationResults(results, groups: selection.groups)
        for (name, values) in (run["results"]?.members ?? []).map({ ($0.key, $0.value) }) {
            let own =
                all.tasks.first { $0.task.name == name }?.values ?? all.groups.first {
                    $0.group.name == name
                }?.values ?? []
            for member in values.members ?? []
            where member.key != "sample_len" && !member.key.contains("_stderr") {
                let parts = member.key.split(separator: ",").map(String.init)
                let match = own.first { $0.metric == parts[0] && $0.filter == parts[1] }
                let value = try #require(match, "\(name) \(member.key)")
                // Means of doubles: equal but for the order of sums.
                #expect(
                    abs(value.value - (member.value.doubleValue ?? .nan)) <= 1e-9, "\(name) \(member.key)")
                // Resampled errors are drawn from chunks of another number of resamples there.
                let isResampled = ["f1", "mcc", "perplexity"].contains(parts[0])
                guard run["shots"]?.intValue != 5 else { continue }
                let error = values["\(parts[0])_stderr,\(parts[1])"]?.doubleValue
                #expect((error == nil) == (value.standardError == nil), "\(name) \(member.key)")
                if let error, let found = value.standardError {
                    #expect(abs(found - error) <= (isResampled ? 0.1 * error : 1e-9), "\(name) \(member.key)")
                }
            }
        }
    }

    private func check(_ item: ScoredItem, _ sample: JSONValue, _ name: String) {
        let prompts = item.item.requests.map { request -> JSONValue in
            switch request {
            case .logLikelihood(let context, let continuation):
                .array([.string(context), .string(continuation)])
            case .rolling(let text), .generation(let text): .array([.string(text)])
            }
        }
        #expect(JSONValue.array(prompts) == sample["arguments"], "\(name)")
        if let filtered = sample["filtered"], !filtered.isNull {
            #expect(JSONValue.array(item.filtered) == filtered, "\(name)")
        }
        let metrics = sample["metrics"]?.members ?? []
        #expect(item.metrics.map(\.name).sorted() == metrics.map(\.key).sorted(), "\(name)")
        for metric in item.metrics {
            let expected = sample["metrics"]?[metric.name]
            if case .probabilities(let gold, let values) = metric.value {
                #expect(expected?.arrayValue?.first?.intValue == gold, "\(name)")
                for (value, other) in zip(values, expected?.arrayValue?.last?.arrayValue ?? []) {
                    #expect(abs(value - (other.doubleValue ?? .nan)) < 1e-12, "\(name)")
                }
            } else if let number = expected?.doubleValue, case .number(let value) = metric.value {
                #expect(abs(value - number) <= 1e-9 * max(1, abs(number)), "\(name) \(metric.name)")
            } else {
                #expect(
                    metric.value.json.serialized().replacing(".0", with: "")
                        == expected?.serialized().replacing(".0", with: ""), "\(name) \(metric.name)")
            }
        }
    }
}
