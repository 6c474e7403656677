import Foundation
import MonetFoundation

/// A JSONL file with a model's answers about each document as soon as they are known, so that a stopped run
/// goes on where it was.
///
/// The first line says what is measured; a file of another run is refused. An incomplete last line, left by a
/// process that was killed, is dropped.
final class EvaluationRecords {
    struct Key: Hashable {
        let task: String
        let document: Int
    }

    private(set) var responses: [Key: [TaskResponse]] = [:]
    private var prompts: [Key: String] = [:]
    private let writer: FileWriter?
    private let path: String

    /// Opens or creates a file; without a path nothing is stored.
    ///
    /// - Throws: `FileError`, `EvaluationError.foreignRecords`.
    init(path: String?, run: JSONValue, overwrite: Bool) throws {
        self.path = path ?? ""
        guard let path else {
            writer = nil
            return
        }
        let header = JSONValue.object([.init("evaluation", run)]).serialized()
        let lines = try JournalFile.lines(path: path, header: header, overwrite: overwrite)
        for (number, line) in lines.enumerated() {
            let json = try JSONValue(parsing: line, source: "\(path), line \(number + 2)")
            guard let task = json["task"]?.stringValue, let document = json["doc"]?.intValue,
                let prompt = json["prompt"]?.stringValue, let list = json["resps"]?.arrayValue,
                case let found = list.compactMap(TaskResponse.init(record:)), found.count == list.count
            else {
                throw EvaluationError.foreignRecords(
                    path: path, reason: "line \(number + 2) has no answers about a document")
            }
            let key = Key(task: task, document: document)
            responses[key] = found
            prompts[key] = prompt
        }
        writer = try FileWriter(path: path, appending: true)
    }

    /// The answers about a document that are known.
    ///
    /// - Throws: `EvaluationError.foreignRecords` if they are answers to other questions.
    func responses(_ task: String, _ item: TaskItem) throws -> [TaskResponse]? {
        let key = Key(task: task, document: item.index)
        guard let known = responses[key] else { return nil }
        guard prompts[key] == item.fingerprint, known.count == item.requests.count else {
            throw EvaluationError.foreignRecords(
                path: path,
                reason:
                    "the answers about document \(item.index + 1) of \(task) are to other questions; its data has changed"
            )
        }
        return known
    }

    func append(_ task: String, _ item: TaskItem, _ answers: [TaskResponse]) throws {
        responses[Key(task: task, document: item.index)] = answers
        let record: JSONValue = [
            "task": .string(task), "doc": .integer(item.index), "prompt": .string(item.fingerprint),
            "resps": .array(answers.map(\.record)),
        ]
        try writer?.write(record.serialized() + "\n")
    }

    func flush() throws { try writer?.flush() }

    /// Closes the file; all that was appended is in it.
    func finish() throws { try writer?.finish() }
}

/// Files of lines under a header, of which the last may be cut short.
enum JournalFile {
    /// The complete lines after the header; an absent file is created with the header alone.
    ///
    /// - Throws: `FileError`, `EvaluationError.foreignRecords` for a file with another header.
    static func lines(path: String, header: String, overwrite: Bool) throws -> [String] {
        guard FileManager.default.fileExists(atPath: path), !overwrite else {
            try AtomicFile.write(header + "\n", to: path)
            return []
        }
        let text = try TextFile.read(path)
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        let wasCut = lines.last?.isEmpty == false
        lines.removeLast()
        guard let first = lines.first else {
            guard header.hasPrefix(text) else {
                throw EvaluationError.foreignRecords(path: path, reason: "not a file of records")
            }
            try AtomicFile.write(header + "\n", to: path)
            return []
        }
        guard first == header else {
            // A file without answers holds nothing that could be lost.
            if lines.count == 1, header.hasPrefix(String(first.prefix(12))) {
                try AtomicFile.write(header + "\n", to: path)
                return []
            }
            throw EvaluationError.foreignRecords(
                path: path, reason: "records of another run (\(first.prefix(400)))")
        }
        if wasCut { try AtomicFile.write(lines.map { $0 + "\n" }.joined(), to: path) }
        return Array(lines.dropFirst())
    }
}

extension TaskItem {
    /// Stands for the questions, in records.
    var fingerprint: String {
        let texts = requests.map { request -> String in
            switch request {
            case .logLikelihood(let context, let continuation): context + "\u{0}" + continuation
            case .rolling(let text), .generation(let text): text
            }
        }
        return String(StableHash.of(texts.joined(separator: "\u{1}")), radix: 16)
    }
}

extension TaskResponse {
    var record: JSONValue {
        switch self {
        case .logLikelihood(let value, let isGreedy): .array([.number(value), .bool(isGreedy)])
        case .rolling(let value): .number(value)
        case .texts(let texts): .array(texts.map { .string($0) })
        case .programs: .array(values)
        }
    }

    init?(record: JSONValue) {
        if let value = record.doubleValue {
            self = .rolling(value)
        } else if let list = record.arrayValue, list.count == 2, let value = list[0].doubleValue,
            let isGreedy = list[1].boolValue
        {
            self = .logLikelihood(value, isGreedy: isGreedy)
        } else if let list = record.arrayValue, list.first?.members != nil {
            let programs = list.compactMap { item -> JudgedProgram? in
                guard let text = item["text"]?.stringValue, let detail = item["detail"]?.stringValue,
                    let status = item["status"]?.stringValue.flatMap(ProgramOutcome.Status.init(rawValue:))
                else { return nil }
                return JudgedProgram(text: text, status: status, detail: detail)
            }
            guard programs.count == list.count else { return nil }
            self = .programs(programs)
        } else if let list = record.arrayValue, list.allSatisfy({ $0.stringValue != nil }) {
            self = .texts(list.compactMap(\.stringValue))
        } else {
            return nil
        }
    }
}
