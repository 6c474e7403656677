import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// The same items in the hub's format and in that of the original files give the same questions.
@Suite struct DatasetFolderTests {
    private static let tasks = [
        "arc_easy", "arc_challenge", "winogrande", "piqa", "social_iqa", "openbookqa", "hellaswag",
        "commonsense_qa",
        "mmlu_anatomy", "mmlu_philosophy",
    ]

    private func requests(_ task: String, _ folder: String, _ plan: EvaluationProtocol = .harness) throws
        -> [[TaskRequest]]
    {
        let definition = try #require(try TaskLibrary(plan).selection([task]).tasks.first)
        let items = try EvaluationTask(definition, data: DatasetFolder(folder), shots: 3).items()
        #expect(!items.isEmpty)
        return items.map(\.requests)
    }

    @Test(arguments: tasks) func originalFilesGiveTheSameQuestions(_ task: String) throws {
        for plan in EvaluationProtocol.allCases {
            #expect(
                try requests(task, Fixture.path("benchmarks/original"), plan)
                    == requests(task, Fixture.path("benchmarks/hub"), plan))
        }
    }

    private func copied(_ body: (String) throws -> Void) throws {
        try withTemporaryFolder { folder in
            try FileManager.default.createDirectory(
                atPath: folder + "/allenai", withIntermediateDirectories: true)
            try FileManager.default.copyItem(
                atPath: Fixture.path("benchmarks/hub/allenai/winogrande"),
                toPath: folder + "/allenai/winogrande")
            try body(folder)
        }
    }

    /// Names of files as on the hub, with and without a card, and tables of values between commas.
    @Test func otherNamesAndFormatsGiveTheSameQuestions() throws {
        let expected = try requests("winogrande", Fixture.path("benchmarks/hub"))
        try copied { folder in
            let root = folder + "/allenai/winogrande"
            let files = FileManager.default
            for split in ["train", "validation"] {
                try files.createDirectory(atPath: root + "/data", withIntermediateDirectories: true)
                try files.moveItem(
                    atPath: "\(root)/winogrande_xl/\(split).jsonl",
                    toPath: "\(root)/data/\(split)-00000-of-00001.jsonl")
            }
            try files.removeItem(atPath: root + "/winogrande_xl")
            #expect(try requests("winogrande", folder) == expected)
            try files.moveItem(
                atPath: root + "/data/train-00000-of-00001.jsonl", toPath: root + "/data/part-a.jsonl")
            #expect(throws: TaskError.self) { try requests("winogrande", folder) }
            try """
            ---
            configs:
            - config_name: winogrande_xl
              data_files:
              - split: train
                path: data/part-*
              - split: validation
                path: data/validation-00000-of-00001.jsonl
            ---
            # A card
            """.write(toFile: root + "/README.md", atomically: true, encoding: .utf8)
            #expect(try requests("winogrande", folder) == expected)
        }
        try copied { folder in
            let root = folder + "/allenai/winogrande/winogrande_xl"
            for split in ["train", "validation"] {
                let text = try TextFile.read("\(root)/\(split).jsonl")
                let rows = try text.split(separator: "\n").map {
                    try JSONValue(parsing: String($0), source: "")
                }
                let names = ["sentence", "option1", "option2", "answer"]
                let lines =
                    [names]
                    + rows.map { row in
                        names.map { "\"" + (row[$0]?.stringValue ?? "").replacing("\"", with: "\"\"") + "\"" }
                    }
                try lines.map { $0.joined(separator: ",") + "\r\n" }.joined().write(
                    toFile: "\(root)/\(split).csv", atomically: true, encoding: .utf8)
                try FileManager.default.removeItem(atPath: "\(root)/\(split).jsonl")
            }
            #expect(try requests("winogrande", folder) == expected)
            try "sentence,answer\na,1,2\n".write(
                toFile: root + "/validation.csv", atomically: true, encoding: .utf8)
            let error = #expect(throws: TaskError.self) { try requests("winogrande", folder) }
            #expect(error?.description.contains("validation.csv, line 2: 3 values, expected 2") ?? false)
        }
    }
}
