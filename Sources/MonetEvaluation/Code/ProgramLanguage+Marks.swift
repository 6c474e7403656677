import Foundation

/// What programs' messages and ends mean.
extension ProgramLanguage {
    /// Whether a failed program says that a test's assertion failed, rather than that it could not go on.
    func isAssertion(output: String, errorOutput: String) -> Bool {
        switch self {
        case .python:
            // The line after the traceback names the exception; the same word elsewhere may be the program's.
            lastException(errorOutput).map { $0 == "AssertionError" || $0.hasPrefix("AssertionError:") }
                ?? false
        case .cpp: errorOutput.contains("Assertion `") && errorOutput.contains("' failed.")
        case .java: errorOutput.contains("java.lang.AssertionError")
        case .javascript: errorOutput.contains("AssertionError")
        case .lua:
            // Its test library counts failures and errors apart, on standard output.
            errorOutput.contains("assertion failed!")
                || lines(output).contains {
                    $0.hasPrefix("Ran ") && $0.contains(" failure") && !$0.contains(" error")
                }
        case .php: errorOutput.contains("Test failed!") || errorOutput.contains("AssertionError")
        }
    }

    /// Whether a failed program says that there is no memory left.
    func isWantOfMemory(output: String, errorOutput: String) -> Bool {
        switch self {
        case .python: lastException(errorOutput)?.hasPrefix("MemoryError") ?? false
        case .cpp: errorOutput.contains("std::bad_alloc")
        case .java:
            // Java writes it to standard output where the setting that ends it then is at work.
            (errorOutput + output).contains("java.lang.OutOfMemoryError")
        case .javascript:
            ["heap out of memory", "Array buffer allocation failed"].contains { errorOutput.contains($0) }
        case .lua: (errorOutput + output).contains("not enough memory")
        case .php: ["Allowed memory size of", "Out of memory"].contains { errorOutput.contains($0) }
        }
    }

    /// What Python ended with: the line after the last traceback, whose own lines are indented.
    private func lastException(_ text: String) -> String? {
        let lines = lines(text)
        guard let traceback = lines.lastIndex(where: { $0.hasPrefix("Traceback (") }) else { return nil }
        return lines[(traceback + 1)...].first { !$0.hasPrefix(" ") }
    }

    private func lines(_ text: String) -> [String] {
        text.split(separator: "\n").map(String.init)
    }

    /// The program with code behind its tests that writes `token`, and nil where that cannot be done simply.
    ///
    /// A program that ends itself with code 0 before the tests ran, as with `exit(0)` in the function that is tested,
    /// would pass for one whose tests went well. With the token, it does not. The code writes past what the program may
    /// have made of the functions for output. A program that reads its own file can still write the token; none does so
    /// that was not written against this judge.
    ///
    /// In C++ and Java, the end of the tests is inside of `main`, which to find takes a parser.
    package func program(_ text: String, writing token: String) -> String? {
        switch self {
        case .python: text + "\n__import__(\"os\").write(1, b\"\\n\(token)\\n\")\n"
        case .javascript: text + "\n;globalThis.process.stdout.write(\"\\n\(token)\\n\");\n"
        case .php: text + "\n;\\fwrite(\\STDOUT, \"\\n\(token)\\n\");\n"
        case .lua: luaProgram(text, writing: token)
        case .cpp, .java: nil
        }
    }

    /// MultiPL-E's Lua programs end themselves with the number of failures, so what writes the token goes in between.
    private func luaProgram(_ text: String, writing token: String) -> String? {
        let write = "io.stdout:write(\"\\n\(token)\\n\")"
        guard let end = text.range(of: "os.exit(lu.LuaUnit.run())", options: .backwards) else {
            return text.contains("os.exit") ? nil : text + "\n\(write)\n"
        }
        let call = "os.exit((function(failures) \(write) return failures end)(lu.LuaUnit.run()))"
        return text.replacingCharacters(in: end, with: call)
    }
}
