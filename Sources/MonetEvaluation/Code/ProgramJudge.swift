import Foundation
import MonetFoundation

/// What became of a program that contains its tests.
package struct ProgramOutcome: Sendable, Equatable {
    /// How it fares.
    package enum Status: String, Sendable, CaseIterable {
        /// Its tests ran and succeeded.
        case passed
        /// A test failed, or it ended before the tests were through.
        case wrong
        /// It does not compile, or ended in another error.
        case error
        /// It exceeded its time, or another limit.
        case timeout
    }

    /// How the program fared.
    package let status: Status
    /// Why it did not pass: the limit, or lines of what it or its compiler wrote.
    package let detail: String
}

/// Runs generated programs together with their tests, as HumanEval and MultiPL-E do, and says how they fare.
package struct ProgramJudge: Sendable {
    let sandbox: Sandbox
    /// Whether a program that ends with code 0 must have got to its end, where that can be told.
    package var checksCompletion = true
    /// Folders that interpreters and compilers are in, separated by colons.
    package var searchPath = SystemTools.searchPath

    /// Runs programs in `sandbox`, within its limits.
    package init(sandbox: Sandbox) {
        self.sandbox = sandbox
    }

    /// Judges one program.
    ///
    /// - `program`: its text, with the tests.
    /// - Throws: `SandboxError`, if it cannot be run here; never because of what it does.
    package func outcome(of program: String, in language: ProgramLanguage) throws -> ProgramOutcome {
        let tools = try language.findTools(on: searchPath, isIsolated: sandbox.isolation != .unsafe)
        if let library = language.library, program.contains(library.mark),
            !FileManager.default.fileExists(atPath: library.path)
        {
            throw SandboxError.missing(
                tool: library.path, package: library.package, purpose: "this \(language.title) program")
        }
        let token =
            String(UInt64.random(in: .min ... .max), radix: 36)
            + String(UInt64.random(in: .min ... .max), radix: 36)
        let marked = checksCompletion ? language.program(program, writing: token) : nil
        let commands = language.commands(tools: tools, memoryBytes: sandbox.limits.memoryBytes)
        let run = try sandbox.run(
            commands.command, after: commands.preparation,
            files: [(language.fileName, marked ?? program)], environment: commands.environment)
        if run.ending == .exited(0), marked != nil, !run.output.contains(token) {
            return ProgramOutcome(status: .wrong, detail: "it ended before its tests were through")
        }
        return outcome(of: run, in: language)
    }

    private func outcome(of run: ProgramRun, in language: ProgramLanguage) -> ProgramOutcome {
        let limits = run.isPrepared ? sandbox.limits : sandbox.preparationLimits
        func over(_ reason: String) -> ProgramOutcome {
            ProgramOutcome(status: .timeout, detail: (run.isPrepared ? "" : "compiling it: ") + reason)
        }
        let memory = "more than \(limits.memoryBytes.byteText) of memory"
        switch run.ending {
        case .timedOut: return over("no end within \(limits.seconds) s")
        case .overProcessorTime: return over("more than \(limits.processorSeconds) s of processor time")
        case .overMemory: return over(memory)
        case .overOutput: return over("more than \(limits.outputBytes.byteText) of output")
        case .overFiles: return over("more than \(SandboxLimits.files) files")
        case .exited(0): return ProgramOutcome(status: .passed, detail: "")
        case .exited, .signalled: break
        }
        guard run.isPrepared else { return ProgramOutcome(status: .error, detail: Self.excerpt(run)) }
        if language.isWantOfMemory(output: run.output, errorOutput: run.errorOutput) { return over(memory) }
        let isAssertion = language.isAssertion(output: run.output, errorOutput: run.errorOutput)
        var detail = Self.excerpt(run)
        if case .signalled(let signal) = run.ending, detail.isEmpty { detail = "signal \(signal) ended it" }
        if case .exited(let code) = run.ending, detail.isEmpty { detail = "it ended with code \(code)" }
        return ProgramOutcome(status: isAssertion ? .wrong : .error, detail: detail)
    }

    /// A few lines of standard error, or of standard output if there are none: the first, where compilers and Java say
    /// what is wrong, and the last, where Python does.
    private static func excerpt(_ run: ProgramRun) -> String {
        let (count, width) = (5, 200)
        func lines(_ text: String) -> [Substring] {
            // Remarks of Java's compiler come before what its program writes.
            text.split(whereSeparator: \.isNewline)
                .filter { !$0.allSatisfy(\.isWhitespace) && !$0.hasPrefix("Note: ") }
        }
        let errors = lines(run.errorOutput)
        let all = errors.isEmpty ? lines(run.output) : errors
        let chosen = all.count > 2 * count ? all.prefix(count) + ["…"] + all.suffix(count) : all[...]
        return chosen.map { $0.count > width ? $0.prefix(width) + "…" : $0 }
            .joined(separator: "\n").withoutControls
    }
}
