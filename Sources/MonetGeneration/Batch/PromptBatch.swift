import Foundation
import MonetFoundation
import MonetModel
import MonetText

/// Continues the prompts of a file, many at a time, and appends each result to another file when it is done.
///
///     let batch = PromptBatch(lines, results: "results.jsonl", fingerprint: fingerprint)
///     let isDone = try batch.run(on: TextEngine(engine, tokenizer: tokenizer)) { progress in true }
///
/// While it runs, results lie in `results.jsonl.partial`, in the order in which they were done; a batch that was
/// interrupted continues from there. At the end they are sorted and the file gets its name.
public struct PromptBatch {
    /// How far a batch is.
    public struct Progress: Sendable {
        /// Prompts done, those of earlier runs included, and all.
        public let done: Int
        public let total: Int
        /// Tokens drawn in this run, and its seconds.
        public let tokens: Int
        public let seconds: Double
    }

    private let lines: [PromptLine]
    private let results: String
    private let fingerprint: String
    private let partial: String

    /// - Parameters:
    ///   - results: the file to write.
    ///   - fingerprint: what the results depend on: model, prompts and settings. A batch continues only with the same.
    public init(_ lines: [PromptLine], results: String, fingerprint: String) {
        (self.lines, self.results, self.fingerprint) = (lines, results, fingerprint)
        partial = results + ".partial"
    }

    /// Removes the results of an interrupted run.
    public static func discard(_ results: String) { unlink(results + ".partial") }

    /// Runs the prompts that have no result yet.
    ///
    /// - `progress`: called after every step; false stops, and what is done is kept.
    /// - Returns: whether all are done.
    /// - Throws: `FileError`, `GenerationError`. An error of one prompt is its result.
    public func run(on engine: TextEngine, _ progress: (Progress) -> Bool) throws -> Bool {
        let lock = try FileLock.acquire(results + ".lock", for: results)
        defer { withExtendedLifetime(lock) {} }
        var done = try earlier()
        let writer = try FileWriter(path: partial, keeping: done.bytes)
        if done.bytes == 0 {
            try writer.write(JSONValue.object([.init("batch", .string(fingerprint))]).serialized() + "\n")
            try writer.flush()
        }
        var next = lines.filter { done.results[$0.index] == nil }[...]
        var running: [Int: PromptLine] = [:]
        let began = ContinuousClock.now
        var tokens = 0
        func add(_ line: PromptLine, _ members: [JSONValue.Member]) throws {
            var all: [JSONValue.Member] = [.init("index", .integer(line.index))]
            if let id = line.id { all.append(.init("id", id)) }
            all.append(.init("prompt", .string(line.prompt)))
            let result = JSONValue.object(all + members)
            done.results[line.index] = result
            try writer.write(result.serialized() + "\n")
            try writer.flush()
        }
        while !next.isEmpty || !running.isEmpty {
            // A few more than run at a time, so that a place never waits for the next prompt.
            while running.count < 64, let line = next.popFirst() {
                do {
                    let number = try engine.submit(
                        line.request.generation, stopStrings: line.request.stopStrings)
                    running[number] = line
                } catch {
                    try add(line, [.init("error", .string("\(error)"))])
                }
            }
            for event in engine.step() {
                guard let line = running[event.request] else { continue }
                switch event.kind {
                case .step(let step): tokens += step.token == nil ? 0 : 1
                case .scored, .observed: continue
                case .failed(let error):
                    running[event.request] = nil
                    try add(line, [.init("error", .string("\(error)"))])
                case .finished(let result):
                    running[event.request] = nil
                    try add(
                        line,
                        [
                            .init("text", .string(result.text)),
                            .init("tokens", .array(result.ids.map { .integer(Int($0)) })),
                            .init("prompt_tokens", .integer(result.promptTokens)),
                            .init("finish_reason", .string(result.finishReason.rawValue)),
                            .init(
                                "log_probability", .number(result.tokens.reduce(0) { $0 + $1.logProbability })
                            ),
                        ])
                }
            }
            let state = Progress(
                done: done.results.count, total: lines.count, tokens: tokens,
                seconds: (.now - began).seconds)
            guard progress(state) else {
                try writer.finish()
                return false
            }
        }
        try writer.finish()
        try AtomicFile.write(to: results) { file in
            for line in lines {
                if let result = done.results[line.index] { try file.write(result.serialized() + "\n") }
            }
        }
        unlink(partial)
        return true
    }

    /// The results of an interrupted run, and the bytes that hold them whole.
    private func earlier() throws -> (results: [Int: JSONValue], bytes: Int) {
        guard FileManager.default.fileExists(atPath: partial) else { return ([:], 0) }
        let file = try MappedFile(path: partial)
        // The last line may have been cut off anywhere, even inside a character.
        let end = file.bytes.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0
        let text = String(decoding: file.bytes[..<end], as: UTF8.self)
        var results: [Int: JSONValue] = [:]
        let known = Set(lines.map(\.index))
        var bytes = 0
        for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast()
            .enumerated()
        {
            // A line that was cut off ends what can be used.
            guard let json = try? JSONValue(parsing: String(line), source: partial) else { break }
            if number == 0 {
                guard let found = json["batch"]?.stringValue else { break }
                guard found == fingerprint else {
                    throw GenerationError.malformedPrompt(
                        source: partial, line: 1,
                        reason:
                            "it has results of other prompts, settings or another model; delete it to begin anew"
                    )
                }
            } else if let index = json["index"]?.intValue, known.contains(index) {
                results[index] = json
            }
            bytes += line.utf8.count + 1
        }
        return (results, bytes)
    }
}
