import Foundation
import MonetFoundation
import TestSupport
import Testing

/// Suites of commands that inspect one small model.
protocol InsightCommands {}

extension InsightCommands {
    /// A model in `model`, a corpus with three labels in `corpus`, an index in `i.sqlite`.
    func prepare(_ folder: String) throws {
        try run(
            [
                "init", "--preset", "nano-vd", "--tokenizer", Fixture.path("text/trained.model"), "--out",
                "model", "--seed", "3", "--calibrate",
            ], folder)
        for (label, words) in [
            ("sea", "sea ship sail"), ("law", "law judge right"), ("food", "bread salt oil"),
        ] {
            let lines = (0..<40).map { number in
                let text = (0..<6).map { words.split(separator: " ")[($0 * number) % 3] }.joined(
                    separator: " ")
                return #"{"text": "The \#(text) \#(number)", "mood": \#(number % 5)}"#
            }
            try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder + "/\(label).jsonl")
        }
        try run(
            [
                "corpus", "build", "--tokenizer", Fixture.path("text/trained.model"), "--out", "corpus",
                "sea.jsonl", "law.jsonl", "food.jsonl", "--validation-share", "0.3",
            ], folder)
        try run(["index", "build", "--model", "model", "--corpus", "corpus", "--out", "i.sqlite"], folder)
    }

    @discardableResult
    func run(_ arguments: [String], _ folder: String, status: Int32 = 0) throws -> Command.Result {
        let result = try Command.run(arguments, in: folder)
        #expect(result.status == status, "\(arguments.joined(separator: " ")): \(result.errors)")
        return result
    }

    func json(_ arguments: [String], _ folder: String) throws -> JSONValue {
        try JSONValue(parsing: run(arguments + ["--json"], folder).output, source: "output")
    }
}
