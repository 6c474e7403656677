import Foundation
import MonetFoundation
import TestSupport
import Testing

/// Standard streams that are closed, full, or without a reader.
@Suite struct StreamTests {
    private let model = Fixture.path("tiny-vd")

    @Test(
        arguments: ["exec >/dev/full", "exec >&-"],
        [["info"], ["info", "--json"], ["--help"], ["--version"]])
    func resultsThatCannotBeWrittenAreAnError(redirection: String, arguments: [String]) throws {
        let arguments = arguments[0] == "info" ? arguments + [model] : arguments
        try withTemporaryFolder { folder in
            let result = try Command.run(arguments, in: folder, shellPrefix: redirection)
            #expect(result.status == 1 && result.output.isEmpty)
            #expect(result.errors.hasPrefix("error: standard output: cannot be written"), "\(result.errors)")
            #expect(result.errors.split(separator: "\n").count == 1)
        }
    }

    @Test(arguments: ["exec 2>&-", "exec 2>/dev/full", "exec 2>&- <&-"])
    func messagesThatCannotBeWrittenAreLost(redirection: String) throws {
        try withTemporaryFolder { folder in
            let arguments = ["generate", "--model", model, "--token-ids", "1 5 9", "-n", "3", "--greedy"]
            let result = try Command.run(
                arguments + ["--log-level", "info"], in: folder, shellPrefix: redirection)
            let plain = try Command.run(arguments, in: folder)
            #expect(result.status == 0 && result.output == plain.output && !plain.output.isEmpty)
            let failed = try Command.run(["info", "nowhere"], in: folder, shellPrefix: redirection)
            #expect(failed.status == 1)
        }
    }

    /// A descriptor that is free must not be that of a file which then receives results.
    @Test func filesDoNotTakeTheStreamsPlaces() throws {
        try withTemporaryFolder { folder in
            let result = try Command.run(
                ["convert", "--model", model, "--out", "copy"], in: folder,
                shellPrefix: "exec <&- >&- 2>&-")
            #expect(result.status == 0)
            #expect(try Command.run(["info", "copy"], in: folder).status == 0)
        }
    }

    @Test(arguments: ["exec <&-", "exec </"])
    func inputThatCannotBeReadIsAnError(redirection: String) throws {
        try withTemporaryFolder { folder in
            let encode = ["tokenizer", "encode", "--tokenizer", Fixture.path("text/trained.model")]
            let result = try Command.run(encode, in: folder, shellPrefix: redirection)
            #expect(result.status == 1 && result.output.isEmpty)
            #expect(result.errors.hasPrefix("error: standard input: cannot be read"), "\(result.errors)")
        }
    }

    @Test func aReaderThatLeavesEndsTheCommand() throws {
        try withTemporaryFolder { folder in
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
            process.arguments = [
                "-c", #"(trap '' PIPE; "$@" 2>errors; echo $? >status) | head -c 2 >/dev/null"#, "sh",
                Command.path, "generate", "--model", model, "--token-ids", "1 5 9", "-n", "200",
                "--ignore-eos", "--json", "--log-probs", "400",
            ]
            process.currentDirectoryURL = URL(fileURLWithPath: folder)
            try process.run()
            process.waitUntilExit()
            #expect(try TextFile.read(folder + "/status") == "1\n")
            #expect(try TextFile.read(folder + "/errors").hasPrefix("error: standard output: "))
        }
    }

    /// SIGTERM ends any command at once, whatever its parent did with the signal.
    @Test(arguments: ["", "trap '' TERM"])
    func terminationIsImmediate(prefix: String) throws {
        try withTemporaryFolder { folder in
            let running = try Command.start(
                ["bench", "--preset", "nano-vd", "--tests", "train", "--repeats", "1000"], in: folder,
                shellPrefix: prefix.isEmpty ? nil : prefix)
            usleep(500_000)
            kill(running.process.processIdentifier, SIGTERM)
            let start = Date()
            running.process.waitUntilExit()
            #expect(running.process.terminationReason == .uncaughtSignal)
            #expect(running.process.terminationStatus == SIGTERM)
            // Generous: the machine may be busy.
            #expect(Date().timeIntervalSince(start) < 5)
        }
    }
}
