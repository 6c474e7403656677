import Foundation
import MonetFoundation

/// The built-in tasks' data as their authors distribute it, in the shape that it has on the hub.
enum OriginalData {
    /// Names of the folders in which archives of the authors are unpacked.
    static func folders(of dataset: String) -> [String] {
        switch dataset {
        case "allenai/ai2_arc": ["ARC-V1-Feb2018-2", "ARC-V1-Feb2018", "ARC"]
        case "allenai/winogrande": ["winogrande_1.1", "winogrande"]
        case "baber/piqa", "ybisk/piqa": ["piqa", "physicaliqa-train-dev"]
        case "lighteval/siqa", "allenai/social_i_qa":
            ["siqa", "social_iqa", "social_i_qa", "socialiqa-train-dev"]
        case "allenai/openbookqa": ["OpenBookQA-V1-Sep2018/Data/Main", "openbookqa"]
        case "Rowan/hellaswag": ["hellaswag"]
        case "tau/commonsense_qa": ["commonsense_qa", "csqa", "CommonsenseQA"]
        case "cais/mmlu": ["mmlu", "data", "MMLU"]
        case "TIGER-Lab/MMLU-Pro": ["mmlu_pro", "MMLU-Pro"]
        default: []
        }
    }

    /// A file whose format is its authors' alone: MMLU's tables without names of columns.
    ///
    /// - Throws: `TaskError.malformedData`.
    static func table(_ path: String, dataset: String, configuration: String?) throws -> DataTable? {
        guard dataset == "cais/mmlu", path.hasSuffix(".csv"), let subject = configuration else { return nil }
        let text = try TextFile.read(path)
        let values = try SeparatedValues(text, path: path)
        let names = ["question", "subject", "choices", "answer"]
        if let first = values.records.first, first.values.contains("question") { return nil }
        let rows = try values.records.map { record -> JSONValue in
            guard record.values.count == 6,
                let answer = ["A", "B", "C", "D"].firstIndex(of: record.values[5])
            else {
                throw TaskError.malformedData(
                    path: path, line: record.line,
                    reason: "expected a question, four choices and a letter from A to D")
            }
            return .object([
                .init("question", .string(record.values[0])), .init("subject", .string(subject)),
                .init("choices", .array(record.values[1...4].map { .string($0) })),
                .init("answer", .integer(answer)),
            ])
        }
        return DataTable(rows: rows, fields: names)
    }

    /// Rows in the shape of the hub: questions with `stem` and a list of choices become columns, and labels
    /// come from the file of labels beside.
    static func standardized(_ table: DataTable, path: String, dataset: String) -> DataTable {
        var rows = table.rows
        if rows.first?["question"]?["stem"] != nil {
            let name = dataset == "allenai/openbookqa" ? "question_stem" : "question"
            rows = rows.map { row in
                let question = row["question"]
                let choices = question?["choices"]?.arrayValue ?? []
                var members: [JSONValue.Member] = [.init("id", row["id"] ?? .null)]
                members.append(.init(name, question?["stem"] ?? .null))
                if let concept = question?["question_concept"] {
                    members.append(.init("question_concept", concept))
                }
                members.append(
                    .init(
                        "choices",
                        .object([
                            .init("text", .array(choices.map { $0["text"] ?? .null })),
                            .init("label", .array(choices.map { $0["label"] ?? .null })),
                        ])))
                members.append(.init("answerKey", row["answerKey"] ?? .null))
                return .object(members)
            }
            return DataTable(unifying: rows)
        }
        guard !table.fields.contains("label"), let labels = labels(beside: path), labels.count == rows.count
        else {
            return table
        }
        // PIQA counts from 0 and has numbers on the hub; SIQA counts from 1 and has texts.
        let areTexts = table.fields.contains("answerA")
        rows = zip(rows, labels).map { row, label in
            row.with([
                .init("label", areTexts ? .string(label) : Int(label).map { .integer($0) } ?? .string(label))
            ])
        }
        return DataTable(rows: rows, fields: table.fields + ["label"])
    }

    private static func labels(beside path: String) -> [String]? {
        let stem = (path as NSString).deletingPathExtension
        guard let text = try? TextFile.read(stem + "-labels.lst") else { return nil }
        return text.lines.map { $0.trimmingCharacters(in: .whitespaces) }.filter {
            !$0.isEmpty
        }
    }
}
