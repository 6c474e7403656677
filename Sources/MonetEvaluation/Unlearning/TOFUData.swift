import Foundation
import MonetFoundation

/// The questions of TOFU (Maini et al. 2024, `locuslab/TOFU`): fictitious authors to forget and to keep, real authors, and
/// facts of the world.
struct TOFUData {
    /// One question with what may be answered.
    struct Question {
        let question: String
        let answer: String
        /// The answer in other words; the answer itself where the data has none.
        let paraphrased: String
        /// Wrong answers in the same form.
        let perturbed: [String]

        /// The prompt of a base model.
        var prompt: String { "Question: \(question)\nAnswer: " }
    }

    /// The sets, in the order in which they are shown.
    enum Part: String, CaseIterable {
        case forget, retain
        case realAuthors = "real authors"
        case worldFacts = "world facts"
    }

    let questions: [Part: [Question]]

    /// Reads the files of `forget01`, `forget05` or `forget10` and of the other sets.
    ///
    /// - `limit`: questions of each set, the first ones.
    /// - Throws: `TaskError` for files and keys that are missing.
    init(_ folder: DatasetFolder, forget: String, limit: Int?) throws {
        let names: [Part: String] = [
            .forget: forget + "_perturbed", .retain: "retain_perturbed",
            .realAuthors: "real_authors_perturbed", .worldFacts: "world_facts_perturbed",
        ]
        questions = try names.mapValues { name in
            let rows = try UnlearningRows(
                folder, dataset: "locuslab/TOFU", configuration: name, split: "train")
            return try rows.prefix(limit).map { row in
                let answer = try rows.text("answer", in: row)
                return Question(
                    question: try rows.text("question", in: row), answer: answer,
                    paraphrased: row.value["paraphrased_answer"]?.stringValue ?? answer,
                    perturbed: try rows.texts("perturbed_answer", in: row))
            }
        }
    }
}

/// The rows of one file of an unlearning benchmark.
struct UnlearningRows {
    /// A row and its place, from 1 on.
    struct Row {
        let number: Int
        let value: JSONValue
    }

    private let rows: [Row]
    private let path: String

    /// - Throws: `TaskError.missingData`, `TaskError.malformedData`, `FileError`.
    init(_ folder: DatasetFolder, dataset: String, configuration: String, split: String) throws {
        let read = try folder.split(
            .init(
                task: (dataset as NSString).lastPathComponent.lowercased(), dataset: dataset,
                configuration: configuration,
                split: split, files: nil, taskFolder: folder.path))
        rows = read.table.rows.enumerated().map { Row(number: $0 + 1, value: $1) }
        path = read.path
    }

    func prefix(_ limit: Int?) -> ArraySlice<Row> { rows.prefix(limit ?? rows.count) }

    /// - Throws: `TaskError.malformedData` for a row without this text.
    func text(_ key: String, in row: Row) throws -> String {
        guard let text = row.value[key]?.stringValue, !text.isEmpty else {
            throw TaskError.malformedData(
                path: path, line: row.number, reason: "\"\(key)\" is not a text that is not empty")
        }
        return text
    }

    /// - Throws: `TaskError.malformedData` for a row without such a list.
    func texts(_ key: String, in row: Row) throws -> [String] {
        let texts = row.value[key]?.arrayValue?.compactMap(\.stringValue) ?? []
        guard !texts.isEmpty, !texts.contains("") else {
            throw TaskError.malformedData(
                path: path, line: row.number, reason: "\"\(key)\" is not a list of texts that are not empty")
        }
        return texts
    }
}
