import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// Mistakes in task files and data are errors that name the file, the line and the key.
@Suite struct TaskFileTests {
    private static let start = "task: t\ndataset_path: own/facts\ntest_split: test\n"

    private func message(_ yaml: String, data: String? = nil, shots: Int? = nil) throws -> String {
        try withTemporaryFolder { folder in
            try yaml.write(toFile: folder + "/t.yaml", atomically: true, encoding: .utf8)
            let root = data.map { _ in folder + "/data" } ?? Fixture.path("benchmarks/hub")
            if let data {
                try FileManager.default.createDirectory(
                    atPath: root + "/own/facts", withIntermediateDirectories: true)
                try data.write(toFile: root + "/own/facts/test.jsonl", atomically: true, encoding: .utf8)
            }
            do {
                for definition in try TaskLibrary().selection([folder + "/t.yaml"]).tasks {
                    _ = try EvaluationTask(definition, data: DatasetFolder(root), shots: shots).items()
                }
                return "no error"
            } catch let error as TaskError {
                return error.description.replacing(folder + "/", with: "")
            }
        }
    }

    @Test(arguments: [
        (
            "output_type: multiple_choice\ndoc_to_target: gold\ndoc_to_chioce: choices\n",
            "t.yaml, line 6: unknown key 'doc_to_chioce'"
        ),
        (
            "output_type: multiple\n",
            "t.yaml, line 4: output_type is \"multiple\", expected one of multiple_choice"
        ),
        ("output_type: multiple_choice\ndoc_to_target: gold\n", "t.yaml, line 4: no 'doc_to_choice'"),
        ("num_fewshot: many\n", "t.yaml, line 4: num_fewshot is \"many\""),
        (
            "doc_to_text: \"{{a\"\ndoc_to_target: gold\n",
            "t.yaml, line 4: doc_to_text: line 1 of the template"
        ),
        (
            "doc_to_text: !function utils.text\ndoc_to_target: gold\n",
            "t.yaml, line 4: doc_to_text is the Python function"
        ),
        (
            "doc_to_target: gold\nmetric_list:\n  - metric: acc\n  - metric: bleu\n",
            "t.yaml, line 6: metric_list[0].metric is \"acc\", expected one of exact_match"
        ),
        (
            "doc_to_target: gold\nfilter_list:\n  - name: x\n    filter:\n      - function: regex\n        regex_pattern: '('\n",
            "t.yaml, line 8: filter_list[0].filter[0]"
        ),
        ("doc_to_image: x\n", "t.yaml, line 4: doc_to_image asks for images"),
        ("include: other.yaml\n", "t.yaml, line 4: include is other.yaml"),
        ("include: t.yaml\n", "it includes itself"), ("doc_to_text: [\n", "not YAML"),
        (
            "fewshot_config: {sampler: best}\ndoc_to_target: gold\n",
            "fewshot_config.sampler is \"best\", expected one of default, first_n"
        ),
        (
            "generation_kwargs: {max_gen_toks: none}\ndoc_to_target: gold\n",
            "generation_kwargs.max_gen_toks is \"none\""
        ),
        ("doc_to_text: \"{{nothing}}\"\ndoc_to_target: gold\n", "doc_to_text fails for"),
        (
            "doc_to_target: \"{{gold}}\"\ndoc_to_text: question\noutput_type: multiple_choice\ndoc_to_choice: \"{{question}}\"\n",
            "doc_to_choice fails for"
        ),
    ])
    func mistakesNameFileLineAndKey(_ rest: String, _ expected: String) throws {
        let found = try message(Self.start + rest)
        #expect(found.contains(expected), "\(found)")
    }

    @Test(arguments: [
        (
            #"{"question": "q", "choices": ["a", "b"], "gold": 5}"#,
            "document 1, task t: the answer 5 is none of the 2 choices"
        ),
        (#"{"question": "q", "choices": ["a", "b"], "gold": null}"#, "document 1, task t: the answer null"),
        (#"{"question": "q", "choices": [], "gold": 0}"#, "document 1, task t: there are no choices"),
        (#"{"question": "q", "choices": ["a", 3], "gold": 0}"#, "a choice is 3, expected a text"),
        ("", "the split 'test' of the task t has no documents"),
        ("{\"question\": \"q\"}\n{\"question\": }", "test.jsonl, line 2: malformed JSON"),
        ("[1]", "element 1 is an integer"), ("3", "line 1: an integer, expected an object"),
        (#"{"other": 1}"#, "doc_to_text"),
    ])
    func dataThatCannotBeUsedIsNamed(_ data: String, _ expected: String) throws {
        let found = try message(
            Self.start
                + "output_type: multiple_choice\ndoc_to_text: \"{{question}}\"\ndoc_to_target: gold\ndoc_to_choice: choices\n",
            data: data)
        #expect(found.contains(expected), "\(found)")
    }

    @Test func missingDataSaysWhatToRun() throws {
        try withTemporaryFolder { folder in
            let definition = try #require(try TaskLibrary().selection(["piqa"]).tasks.first)
            let error = #expect(throws: TaskError.self) {
                try EvaluationTask(definition, data: DatasetFolder(folder))
            }
            let text = error?.description ?? ""
            #expect(text.contains("Scripts/fetch-benchmarks --tasks piqa --data \(folder)"), "\(text)")
            #expect(throws: FileError.self) {
                try EvaluationTask(definition, data: DatasetFolder(folder + "/none"))
            }
        }
    }

    @Test func tooFewExamplesAndUnknownNamesAreErrors() throws {
        let found = try message(
            Self.start
                + "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: gold\ndoc_to_choice: choices\n",
            shots: 50)
        #expect(
            found.contains("11 documents in its split 'test' for few-shot examples, expected 50"), "\(found)")
        let error = #expect(throws: TaskError.self) { try TaskLibrary().selection(["arc_esy"]) }
        #expect(error?.description.contains("similar: arc_easy") ?? false)
    }

    /// YAML 1.1 as PyYAML reads it.
    @Test func scalarsAreReadAsInPython() throws {
        let file = Self.start + "doc_to_target: gold\nmetadata: {version: 1e-4}\ntask_alias: yes\n"
        #expect(try message(file).contains("task_alias is true"))
        // 013 is eleven, as many documents as there are.
        let choice =
            "output_type: multiple_choice\ndoc_to_text: question\ndoc_to_target: gold\n"
            + "doc_to_choice: choices\n"
        #expect(try message(Self.start + choice + "num_fewshot: 013\n") == "no error")
        #expect(try message(Self.start + choice + "num_fewshot: 014\n").contains("expected 12"))
    }

    @Test func allBuiltInTasksCanBeAsked() throws {
        for plan in EvaluationProtocol.allCases {
            let library = try TaskLibrary(plan)
            let selection = try library.selection([
                "mmlu", "ai2_arc", "winogrande", "piqa", "social_iqa", "openbookqa", "hellaswag",
                "commonsense_qa",
            ])
            #expect(selection.tasks.count == 57 + 8)
            #expect(
                selection.groups.map(\.name) == [
                    "mmlu", "mmlu_stem", "mmlu_other", "mmlu_social_sciences", "mmlu_humanities",
                ])
        }
    }
}
