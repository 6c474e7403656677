import Foundation
import MonetEvaluation
import Testing

/// Programs in every language, judged.
@Suite struct ProgramJudgeTests {
    /// Judges one program.
    ///
    /// - `name`: what it does; programs that take time get little.
    /// - `detail`: what the outcome's detail must contain.
    private func judge(
        _ name: String, _ program: String, in language: ProgramLanguage, memoryBytes: Int = 512 << 20,
        expecting status: ProgramOutcome.Status, _ detail: String
    ) throws {
        var limits = SandboxLimits()
        limits.seconds = ["takes time", "waits"].contains(name) ? 0.3 : 20
        limits.memoryBytes = memoryBytes
        let judge = ProgramJudge(
            sandbox: Sandbox(isolation: try #require(Installed.isolation), limits: limits))
        let outcome = try judge.outcome(of: program, in: language)
        #expect(outcome.status == status, "\(name): \(outcome)")
        #expect(detail.isEmpty || outcome.detail.contains(detail), "\(name): \(outcome)")
        #expect(outcome.detail.count < 2500 && (outcome.status != .passed || outcome.detail.isEmpty))
    }

    @Test(
        .enabled(if: Installed.has(.python), "bubblewrap or python3 is missing"),
        arguments: [
            ("passes", ProgramOutcome.Status.passed, "", "return n + 1"),
            ("fails", .wrong, "AssertionError", "return n"),
            ("does not compile", .error, "SyntaxError", "return n +"),
            ("raises", .error, "ZeroDivisionError", "return n / 0"),
            (
                "raises after a failed assertion", .error, "KeyError",
                "try: assert False\n    except AssertionError: {}[1]"
            ),
            ("leaves", .wrong, "before its tests", "raise SystemExit"),
            ("leaves at once", .wrong, "before its tests", "import os; os._exit(0)"),
            ("replaces print", .passed, "", "global print; print = None; return n + 1"),
            (
                "takes memory", .timeout, "128.00 MiB of memory",
                "x = []\n    while True: x.append(bytearray(1 << 20))"
            ),
            ("takes memory at once", .timeout, "128.00 MiB of memory", "return bytearray(1 << 36)"),
            ("takes time", .timeout, "no end within 0.3 s", "while True: pass"),
            ("writes", .timeout, "1.00 MiB of output", "while True: print('x' * 1000)"),
            ("reads what is not there", .error, "EOFError", "input()"),
            (
                "uses the library", .passed, "",
                "import hashlib, math, re, typing; hashlib.md5(b'').hexdigest(); return n + 1"
            ),
        ])
    func python(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws {
        let program = """
            def add(n):
                \(body)

            def check(candidate):
                assert candidate(1) == 2

            check(add)
            """
        try judge(name, program, in: .python, memoryBytes: 128 << 20, expecting: status, detail)
    }

    @Test(
        .enabled(if: Installed.has(.cpp), "bubblewrap, g++ or libboost-dev is missing"),
        arguments: [
            ("passes", ProgramOutcome.Status.passed, "", "return n + 1;"),
            ("fails", .wrong, "Assertion", "return n;"),
            ("does not compile", .error, "error:", "return n + ;"),
            ("crashes", .error, "Segmentation fault", "return *(volatile long*)nullptr;"),
            ("takes time", .timeout, "no end within", "for (volatile long i = 0;; i++);"),
            (
                "takes memory", .timeout, "of memory",
                "while (true) if (void* p = malloc(1 << 20)) memset(p, 1, 1 << 20);"
            ),
            ("takes memory at once", .timeout, "of memory", "return (long)new char[1l << 40];"),
            ("includes secrets", .error, "/etc/shadow", "\n#include \"/etc/shadow\"\n return n + 1;"),
        ])
    func cpp(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws {
        // The whole library takes seconds to compile; one program does it as MultiPL-E's do.
        let headers =
            name == "passes" ? ["bits/stdc++.h", "boost/any.hpp"] : ["stdlib.h", "string.h"]
        let program = """
            #include<assert.h>
            \(headers.map { "#include<\($0)>" }.joined(separator: "\n"))
            long add(long n) {
                \(body)
            }
            int main() {
                auto candidate = add;
                assert(candidate((1)) == (2));
            }
            """
        try judge(name, program, in: .cpp, expecting: status, detail)
    }

    @Test(
        .enabled(if: Installed.has(.java), "bubblewrap, a JDK or libjavatuples-java is missing"),
        arguments: [
            (
                // With more garbage than there is memory.
                "passes", ProgramOutcome.Status.passed, "",
                "for (int i = 0; i < 10000; i++) n = new long[10000].length; return Pair.with(n, 2l).getValue1();"
            ),
            ("fails", .wrong, "AssertionError", "return n;"),
            ("does not compile", .error, "error:", "return n"),
            (
                "takes memory", .timeout, "of memory",
                "List<long[]> x = new ArrayList<>(); while (true) x.add(new long[100000]);"
            ),
        ])
    func java(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws {
        let program = """
            import java.util.*;
            import org.javatuples.*;
            class Problem {
                public static long add(long n) {
                    \(body)
                }
                public static void main(String[] args) {
                    assert(add((1l)) == (2l));
                }
            }
            """
        try judge(name, program, in: .java, expecting: status, detail)
    }

    @Test(
        .enabled(if: Installed.has(.javascript), "bubblewrap or node is missing"),
        arguments: [
            ("passes", ProgramOutcome.Status.passed, "", "return n + 1;"),
            ("fails", .wrong, "AssertionError", "return n;"),
            ("does not compile", .error, "SyntaxError", "return n +;"),
            ("throws", .error, "ReferenceError", "return m;"),
            ("leaves", .wrong, "before its tests", "process.exit(0);"),
            ("replaces the console", .passed, "", "console.log = null; return n + 1;"),
            ("takes time", .timeout, "no end within", "while (true);"),
            ("waits", .timeout, "no end within", "setInterval(() => 0, 1000); return n + 1;"),
            (
                "takes memory", .timeout, "of memory",
                "const x = []; while (true) x.push(new Array(1000).fill(1.5));"
            ),
            (
                "takes memory in buffers", .timeout, "of memory",
                "const x = []; while (true) x.push(Buffer.alloc(1 << 20, 1));"
            ),
            (
                "writes much", .passed, "",
                "for (let i = 0; i < 900; i++) console.log('x'.repeat(1000)); return n + 1;"
            ),
        ])
    func javascript(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws
    {
        let program = """
            function add(n) {
              \(body)
            }
            const assert = require('node:assert');
            function test() {
              let candidate = add;
              assert.deepEqual(candidate(1), 2);
            }
            test();
            """
        try judge(name, program, in: .javascript, memoryBytes: 256 << 20, expecting: status, detail)
    }

    @Test(
        .enabled(if: Installed.has(.lua), "bubblewrap, lua5.4 or lua-unit is missing"),
        arguments: [
            ("passes", ProgramOutcome.Status.passed, "", "return n + 1"),
            ("fails", .wrong, "1 failure", "return n"),
            ("does not compile", .error, "unexpected symbol", "return n + + 1"),
            ("raises", .error, "1 error", "return n.x.y"),
            ("leaves", .wrong, "before its tests", "return n\nend\nos.exit(0)\nlocal function other()"),
            ("leaves in a test", .error, "1 error", "os.exit(0)"),
            ("takes time", .timeout, "no end within", "while true do end"),
            (
                "takes memory", .timeout, "of memory",
                "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end"
            ),
        ])
    func lua(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws {
        let program = """
            local function add(n)
              \(body)
            end
            lu = require('luaunit')

            function test_humaneval()
            local candidate = add
                lu.assertEquals(candidate(1), 2)
            end

            os.exit(lu.LuaUnit.run())
            """
        try judge(name, program, in: .lua, memoryBytes: 128 << 20, expecting: status, detail)
    }

    @Test(
        .enabled(if: Installed.has(.php), "bubblewrap or php is missing"),
        arguments: [
            ("passes", ProgramOutcome.Status.passed, "", "return $n + 1;"),
            ("fails", .wrong, "Test failed!", "return $n;"),
            ("does not compile", .error, "Parse error", "return $n + ;"),
            ("raises", .error, "undefined function", "return nothing($n);"),
            ("leaves", .wrong, "before its tests", "exit(0);"),
            ("takes time", .timeout, "no end within", "while (true);"),
            ("takes memory", .timeout, "of memory", "$x = []; while (true) $x[] = str_repeat('x', 1000000);"),
        ])
    func php(_ name: String, _ status: ProgramOutcome.Status, _ detail: String, _ body: String) throws {
        let program = """
            <?php
            function add($n) {
                \(body)
            }
            function candidate(...$args) {
                return add(...$args);
            }
            function test(): void {
                if (candidate(1) !== 2) { throw new Exception("Test failed!"); }
            }
            test();
            """
        try judge(name, program, in: .php, memoryBytes: 128 << 20, expecting: status, detail)
    }

    @Test(.enabled(if: Installed.has(.python), "bubblewrap or python3 is missing"))
    func completionNeedNotBeChecked() throws {
        var judge = ProgramJudge(sandbox: Sandbox(isolation: try #require(Installed.isolation)))
        #expect(try judge.outcome(of: "raise SystemExit", in: .python).status == .wrong)
        judge.checksCompletion = false
        #expect(try judge.outcome(of: "raise SystemExit", in: .python).status == .passed)
    }

    @Test func luaTokensAreWrittenWhereProgramsEnd() {
        let language = ProgramLanguage.lua
        #expect(language.program("x = 1", writing: "t") == "x = 1\nio.stdout:write(\"\\nt\\n\")\n")
        #expect(language.program("os.exit( lu.LuaUnit.run() )", writing: "t") == nil)
        #expect(ProgramLanguage.cpp.program("int main() {}", writing: "t") == nil)
    }

    @Test func missingToolsAreNamedWithTheirPackages() throws {
        let packages: [ProgramLanguage: String] = [
            .python: "python3", .cpp: "g++", .java: "default-jdk-headless", .javascript: "nodejs",
            .lua: "lua5.4",
            .php: "php-cli",
        ]
        try withFolder { folder in
            // In the user's own folders, where no sandbox shows it.
            for name in ["python3", "g++", "java", "javac", "node", "lua5.4", "php"] {
                try "#!/bin/sh\n".write(toFile: folder + "/" + name, atomically: true, encoding: .utf8)
                chmod(folder + "/" + name, 0o755)
            }
            for language in ProgramLanguage.allCases {
                var judge = ProgramJudge(sandbox: Sandbox(isolation: .bubblewrap(path: "/nowhere/bwrap")))
                judge.searchPath = folder
                do {
                    _ = try judge.outcome(of: "", in: language)
                    Issue.record("\(language) needs nothing")
                } catch let error as SandboxError {
                    let package = try #require(packages[language])
                    #expect("\(error)".contains("Debian package \(package))"), "\(error)")
                }
                #expect(
                    try language.findTools(on: folder, isIsolated: false).first?.hasPrefix(folder) == true)
            }
        }
    }

    @Test func languagesHaveTheNamesOfMultiPLE() {
        #expect(ProgramLanguage.allCases.map(\.rawValue) == ["py", "cpp", "java", "js", "lua", "php"])
    }
}
