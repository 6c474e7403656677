import Foundation
import MonetFoundation
import Synchronization

/// What separates programs that a model writes from this machine.
public struct ProgramIsolation: Sendable {
    let isolation: Isolation

    /// Bubblewrap's namespaces: no network, nothing to read but the system, nothing to write but memory.
    ///
    /// - Throws: `EvaluationError.noIsolation`, which says what to install.
    public static func sandbox() throws -> ProgramIsolation {
        do {
            return ProgramIsolation(isolation: try Isolation.find())
        } catch let error as SandboxError {
            throw EvaluationError.noIsolation(reason: error.description)
        }
    }

    /// Nothing but limits: programs can do what their user can.
    public static let unsafe = ProgramIsolation(isolation: .unsafe)

    /// Checks that a task's programs can be run here.
    ///
    /// - Throws: `EvaluationError.noIsolation` naming the interpreter or compiler that is missing, and its package.
    public func check(_ task: TaskDefinition) throws {
        guard let language = task.programLanguage else { return }
        do {
            _ = try language.findTools(isIsolated: isolation != .unsafe)
        } catch let error as SandboxError {
            throw EvaluationError.noIsolation(reason: error.description)
        }
    }
}

/// Runs the programs of a task, several at a time.
package struct ProgramRunner {
    private let language: ProgramLanguage
    private let judge: ProgramJudge

    package init(language: ProgramLanguage, isolation: ProgramIsolation) throws {
        self.language = language
        judge = ProgramJudge(sandbox: Sandbox(isolation: isolation.isolation))
    }

    /// The programs that a model wrote for a document, each run with the document's tests.
    ///
    /// - Throws: `EvaluationError.noIsolation` if they cannot be run here; never because of what they do.
    package func judged(_ texts: [String], of item: TaskItem) throws -> TaskResponse {
        let prompt = item.requests.first?.context ?? ""
        let tests = item.target.stringValue ?? ""
        let results = SharedResults(count: texts.count)
        let (judge, language) = (judge, language)
        ParallelLoop.run(texts.count) { index in
            results.set(
                index,
                Result { try judge.outcome(of: prompt + texts[index] + "\n" + tests, in: language) })
        }
        return .programs(
            try zip(texts, results.values).map { text, result in
                do {
                    let outcome = try result.get()
                    return JudgedProgram(text: text, status: outcome.status, detail: outcome.detail)
                } catch let error as SandboxError {
                    throw EvaluationError.noIsolation(reason: error.description)
                }
            })
    }
}

/// Outcomes by index, set from several threads.
private final class SharedResults: Sendable {
    private let storage: Mutex<[Int: Result<ProgramOutcome, any Error>]>
    private let count: Int

    init(count: Int) {
        self.count = count
        storage = Mutex([:])
    }

    func set(_ index: Int, _ result: Result<ProgramOutcome, any Error>) {
        storage.withLock { $0[index] = result }
    }

    var values: [Result<ProgramOutcome, any Error>] {
        storage.withLock { known in
            (0..<count).map { known[$0] ?? .failure(SandboxError.notStarted(reason: "it was not run")) }
        }
    }
}
