import Foundation
import TestSupport

/// The built `monet` command, run as a user runs it.
struct Command {
    struct Result {
        let status: Int32
        let output: String
        let errors: String
    }

    /// The products lie beside the test bundle.
    static let path =
        URL(fileURLWithPath: CommandLine.arguments[0]).deletingLastPathComponent().path + "/monet"

    /// Starts the command with its output going to files, which no full pipe can block.
    static func start(
        _ arguments: [String], in folder: String, input: String? = nil, environment: [String: String] = [:],
        shellPrefix: String? = nil
    ) throws -> Running {
        let process = Process()
        if let shellPrefix {
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
            process.arguments = ["-c", shellPrefix + "; exec \"$@\"", "sh", path] + arguments
        } else {
            process.executableURL = URL(fileURLWithPath: path)
            process.arguments = arguments
        }
        process.currentDirectoryURL = URL(fileURLWithPath: folder)
        process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
        let names = ["in", "out", "err"].map { folder + "/." + UUID().uuidString + "." + $0 }
        for name in names {
            try Data((name.hasSuffix(".in") ? input ?? "" : "").utf8).write(to: URL(fileURLWithPath: name))
        }
        process.standardInput = try FileHandle(forReadingFrom: URL(fileURLWithPath: names[0]))
        process.standardOutput = try FileHandle(forWritingTo: URL(fileURLWithPath: names[1]))
        process.standardError = try FileHandle(forWritingTo: URL(fileURLWithPath: names[2]))
        try process.run()
        return Running(process: process, outputPath: names[1], errorPath: names[2])
    }

    struct Running {
        let process: Process
        let outputPath: String
        let errorPath: String

        var errors: String { text(errorPath) }

        private func text(_ path: String) -> String {
            String(decoding: FileManager.default.contents(atPath: path) ?? Data(), as: UTF8.self)
        }

        func wait() -> Result {
            process.waitUntilExit()
            return Result(
                status: process.terminationStatus, output: text(outputPath), errors: text(errorPath))
        }

        /// Waits until standard error says `words`, or the command ends.
        func waitUntil(_ words: String) {
            while process.isRunning, !errors.contains(words) { usleep(2000) }
        }
    }

    static func run(
        _ arguments: [String], in folder: String, input: String? = nil, environment: [String: String] = [:],
        shellPrefix: String? = nil
    ) throws -> Result {
        try start(arguments, in: folder, input: input, environment: environment, shellPrefix: shellPrefix)
            .wait()
    }
}
