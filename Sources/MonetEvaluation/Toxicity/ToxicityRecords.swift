import Foundation
import MonetFoundation

/// One prompt's continuations under one edit, and their scores.
public struct ToxicityRecord: Sendable, Equatable {
    /// Index of the edit, 0 for the unchanged model.
    public let edit: Int
    /// Index of the prompt.
    public let prompt: Int
    public let continuations: [String]
    public let scores: [Double]

    var json: JSONValue {
        [
            "edit": .integer(edit), "prompt": .integer(prompt),
            "continuations": .array(continuations.map { .string($0) }),
            "scores": .array(scores.map { .number($0) }),
        ]
    }

    init(edit: Int, prompt: Int, continuations: [String], scores: [Double]) {
        self.edit = edit
        self.prompt = prompt
        self.continuations = continuations
        self.scores = scores
    }

    init?(_ json: JSONValue) {
        guard let edit = json["edit"]?.intValue, let prompt = json["prompt"]?.intValue,
            let texts = json["continuations"]?.arrayValue?.map(\.stringValue),
            let scores = json["scores"]?.arrayValue?.map(\.doubleValue), texts.count == scores.count,
            texts.allSatisfy({ $0 != nil }), scores.allSatisfy({ $0 != nil })
        else { return nil }
        self.init(
            edit: edit, prompt: prompt, continuations: texts.compactMap { $0 },
            scores: scores.compactMap { $0 })
    }
}

/// A JSONL file that stores every prompt's result as soon as it is known, so that a stopped run can continue.
///
/// The first line says what is measured; a file of another run is refused. An incomplete last line, left by a
/// process that was killed, is dropped.
final class ToxicityRecords {
    private(set) var records: [ToxicityRecord] = []
    private let writer: FileWriter?

    /// Opens or creates a file; without a path nothing is stored.
    ///
    /// - Throws: `FileError`, `EvaluationError.foreignRecords`.
    init(path: String?, run: JSONValue, overwrite: Bool) throws {
        guard let path else {
            writer = nil
            return
        }
        let header = JSONValue.object([.init("toxicity_run", run)]).serialized()
        let lines = try JournalFile.lines(path: path, header: header, overwrite: overwrite)
        for (number, line) in lines.enumerated() {
            let json = try JSONValue(parsing: line, source: "\(path), line \(number + 2)")
            guard let record = ToxicityRecord(json) else {
                throw EvaluationError.foreignRecords(
                    path: path, reason: "line \(number + 2) is not a record of a prompt")
            }
            records.append(record)
        }
        writer = try FileWriter(path: path, appending: true)
    }

    func append(_ record: ToxicityRecord) throws {
        records.append(record)
        try writer?.write(record.json.serialized() + "\n")
        try writer?.flush()
    }

    func finish() throws { try writer?.finish() }
}
