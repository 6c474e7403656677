import Foundation
import MonetFoundation
import MonetProcesses

/// Runs whose questions several processes share. Each answers its own, and all know all answers in the end.
extension EvaluationRun {
    /// The items that this process answers.
    func own(_ items: [TaskItem]) -> [TaskItem] {
        items.enumerated().filter { $0.offset % communicator.count == communicator.rank }.map(\.element)
    }

    /// Sends answers to all processes and takes over those of the others.
    ///
    /// - `answered`: items that this process has answered.
    /// - Returns: the items that others have answered.
    /// - Throws: `ProcessError`.
    func exchange(_ answered: [TaskItem], _ open: inout Open) throws -> [TaskItem] {
        let lines = answered.map { item -> JSONValue in
            [
                "doc": .integer(item.index),
                "resps": .array((open.answers[item.index] ?? []).map(\.record)),
            ]
        }
        let all = try communicator.gather(Data(JSONValue.array(lines).serialized().utf8))
        let items = Dictionary(open.items.map { ($0.index, $0) }, uniquingKeysWith: { first, _ in first })
        var others: [TaskItem] = []
        for (rank, data) in all.enumerated() where rank != communicator.rank {
            let json = try JSONValue(
                parsing: String(decoding: data, as: UTF8.self), source: "process \(rank)")
            for line in json.arrayValue ?? [] {
                guard let index = line["doc"]?.intValue, let item = items[index],
                    let list = line["resps"]?.arrayValue,
                    case let answers = list.compactMap(TaskResponse.init(record:)),
                    answers.count == list.count, answers.count == item.requests.count
                else {
                    throw ProcessError.unexpectedAnswer(
                        rank: rank, expected: "answers about a document of \(open.task.definition.name)",
                        found: String(line.serialized().prefix(100)))
                }
                open.answers[index] = answers
                others.append(item)
            }
        }
        return others
    }

    /// Answers items, of which this process does its own, and exchanges what was answered.
    ///
    /// - `body`: answers items of this process.
    /// - Throws: `CancellationError` if any process is to stop, and what `body` throws.
    func share(
        _ items: [TaskItem], _ open: inout Open, _ records: EvaluationRecords, _ counter: inout Counter,
        _ body: ([TaskItem], inout Open, inout Counter) throws -> Void
    ) throws {
        guard communicator.isShared else { return try body(items, &open, &counter) }
        let own = own(items)
        var isStopped = false
        do { try body(own, &open, &counter) } catch is CancellationError { isStopped = true }
        let answered = own.filter { open.answers[$0.index] != nil }
        for item in try exchange(answered, &open) {
            try records.append(open.task.definition.name, item, open.answers[item.index] ?? [])
            counter.done += 1
            counter.doneNow += 1
        }
        try records.flush()
        if try communicator.gather([isStopped ? 1.0 : 0]).contains(where: { $0.contains(1) }) {
            throw CancellationError()
        }
    }
}
