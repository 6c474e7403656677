import Foundation
import MonetEvaluation
import Testing

/// What this machine has for the tests.
enum Installed {
    /// Bubblewrap, if it works here.
    static let isolation: Isolation? = try? Isolation.find()

    /// Whether programs of a language can be run isolated.
    static func has(_ language: ProgramLanguage) -> Bool {
        isolation != nil && (try? language.findTools(isIsolated: true)) != nil
            && (language.library.map { FileManager.default.fileExists(atPath: $0.path) } ?? true)
    }

    static let canRunPython = has(.python)
    static let python =
        (try? ProgramLanguage.python.findTools(isIsolated: true))?.first ?? "/usr/bin/python3"
}

/// A program's mark, by which the tests find what it left.
struct Mark {
    let text = "mark-" + UUID().uuidString

    /// Processes of this machine that carry the mark in their environment or arguments.
    var processes: [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
        return names.filter { name in
            guard Int(name) != nil, Int(name) != Int(getpid()) else { return false }
            return ["environ", "cmdline"].contains { file in
                let data = FileManager.default.contents(atPath: "/proc/\(name)/\(file)") ?? Data()
                return String(decoding: data, as: UTF8.self).contains(text)
            }
        }
    }

    /// Files of this machine that carry the mark in their names, in folders that a program may try.
    var files: [String] {
        let folders =
            ["/", "/usr", "/usr/bin", "/etc", "/var/tmp", "/dev", "/dev/shm", "/tmp", NSHomeDirectory()]
            + [FileManager.default.currentDirectoryPath, FileManager.default.temporaryDirectory.path]
        return folders.flatMap { folder in
            ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).filter {
                $0.contains(text)
            }
        }
    }
}

extension Sandbox {
    /// A sandbox whose limits make tests short.
    static func short(_ isolation: Isolation? = Installed.isolation) throws -> Sandbox {
        var limits = SandboxLimits()
        (limits.seconds, limits.processorSeconds) = (20, 20)
        (limits.memoryBytes, limits.diskBytes) = (128 << 20, 4 << 20)
        (limits.processes, limits.outputBytes) = (32, 100_000)
        return Sandbox(isolation: try #require(isolation), limits: limits)
    }

    /// Runs a Python program, and checks that this machine is as before and that others run.
    func attack(
        _ program: String, _ arguments: [String] = [], mark: Mark = Mark(),
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> ProgramRun {
        let run = try run(
            [Installed.python, "attack.py", mark.text] + arguments,
            files: [("attack.py", "import os, sys, time, signal, socket, errno\n" + program)],
            environment: ["MARK": mark.text])
        try check(mark, sourceLocation: sourceLocation)
        return run
    }

    /// Checks that nothing of a program is left.
    func check(_ mark: Mark, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(mark.processes == [], sourceLocation: sourceLocation)
        #expect(mark.files == [], sourceLocation: sourceLocation)
        var patient = self
        patient.limits = SandboxLimits()
        let normal = try patient.run([Installed.python, "-c", "print(6 * 7)"])
        #expect(normal.ending == .exited(0) && normal.output == "42\n", sourceLocation: sourceLocation)
    }
}

/// A folder of this machine that goes with the test, and that every user may look into.
func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    let path = FileManager.default.temporaryDirectory.path + "/monet-sandbox-" + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    chmod(path, 0o755)
    defer { try? FileManager.default.removeItem(atPath: path) }
    return try body(path)
}
