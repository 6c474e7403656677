import Foundation
import MonetFoundation
import TestSupport
import Testing

/// Outputs that are whole or not there, and go where their path leads.
@Suite struct AtomicFileTests {
    private func names(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
    }

    @Test func linksAreFollowed() throws {
        try withTemporaryFolder { folder in
            try AtomicFile.write("old", to: folder + "/real")
            for (link, target) in [("a", "real"), ("b", folder + "/real"), ("c", "a"), ("new", "fresh")] {
                #expect(symlink(target, folder + "/" + link) == 0)
            }
            for name in ["a", "b", "c"] {
                try AtomicFile.write(name, to: folder + "/" + name)
                #expect(try TextFile.read(folder + "/real") == name)
            }
            try AtomicFile.write("text", to: folder + "/new")
            #expect(try TextFile.read(folder + "/fresh") == "text")
            #expect(try names(folder) == ["a", "b", "c", "fresh", "new", "real"])
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/new") == "fresh")
            #expect(symlink("loop", folder + "/loop") == 0)
            #expect(throws: FileError.self) { try AtomicFile.write("x", to: folder + "/loop") }
        }
    }

    @Test func devicesAndPipesAreWrittenThrough() throws {
        try AtomicFile.write("gone", to: "/dev/null")
        var status = stat()
        #expect(stat("/dev/null", &status) == 0 && status.st_mode & S_IFMT == S_IFCHR)
        #if os(Linux)
            let error = try #require(
                #expect(throws: FileError.self) { try AtomicFile.write("lost", to: "/dev/full") })
            #expect("\(error)".contains("/dev/full"))
        #endif
        try withTemporaryFolder { folder in
            let pipe = folder + "/pipe"
            #expect(mkfifo(pipe, 0o600) == 0)
            let reader = open(pipe, O_RDONLY | O_NONBLOCK)
            try AtomicFile.write("through", to: pipe)
            var bytes = [UInt8](repeating: 0, count: 100)
            let count = read(reader, &bytes, bytes.count)
            #expect(String(decoding: bytes.prefix(max(0, count)), as: UTF8.self) == "through")
            close(reader)
            // An open descriptor is written from where it stands, not replaced.
            let file = open(folder + "/file", O_RDWR | O_CREAT, 0o600)
            #expect(write(file, "before ", 7) == 7)
            try AtomicFile.write("after", to: "/dev/fd/\(file)")
            close(file)
            #expect(try TextFile.read(folder + "/file") == "before after")
            #expect(try names(folder) == ["file", "pipe"])
            #expect(throws: FileError.self) { try AtomicFile.write("x", to: "/dev/fd/999") }
        }
    }

    @Test func onlyTheOwnKindOfFolderIsReplaced() throws {
        let kind = FolderKind(name: "thing", mark: "mark") { $0 == "mark" || $0.hasSuffix(".part") }
        try withTemporaryFolder { folder in
            let path = folder + "/thing"
            func make(_ text: String, _ kind: FolderKind?) throws {
                try AtomicFile.writeFolder(path, replacing: kind) {
                    try AtomicFile.write(text, to: $0 + "/mark")
                }
            }
            try make("1", nil)
            #expect(throws: FileError.alreadyExists(path: path)) { try make("2", nil) }
            try make("3", kind)
            #expect(try TextFile.read(path + "/mark") == "3")
            try AtomicFile.write("x", to: path + "/thesis.tex")
            let error = try #require(#expect(throws: FileError.self) { try make("4", kind) })
            #expect("\(error)".contains("thesis.tex"))
            #expect(try TextFile.read(path + "/mark") == "3")
            unlink(path + "/thesis.tex")
            unlink(path + "/mark")
            try AtomicFile.write("x", to: path + "/a.part")
            #expect(throws: FileError.self) { try make("5", kind) }
            unlink(path + "/a.part")
            // Nothing is lost with an empty folder.
            try make("6", kind)
            // A failure leaves the old one.
            #expect(throws: FileError.self) {
                try AtomicFile.writeFolder(path, replacing: kind) { _ in
                    throw FileError.unreadable(path: "x", reason: "y")
                }
            }
            #expect(try TextFile.read(path + "/mark") == "6")
            #expect(try names(folder) == ["thing"])
            #expect(symlink("thing", folder + "/link") == 0)
            try AtomicFile.writeFolder(folder + "/link/", replacing: kind) {
                try AtomicFile.write("7", to: $0 + "/mark")
            }
            #expect(try TextFile.read(path + "/mark") == "7")
            #expect(try FileManager.default.destinationOfSymbolicLink(atPath: folder + "/link") == "thing")
        }
    }

    /// The numbers of processes that have ended.
    private func deadProcess() throws -> Int32 {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exit 0"]
        try process.run()
        process.waitUntilExit()
        return process.processIdentifier
    }

    @Test func leftoversOfTheDeadAreCollected() throws {
        let dead = try deadProcess()
        try withTemporaryFolder { folder in
            let file = folder + "/file"
            for name in ["file.tmp-\(dead)", "file.tmp-1", "other.tmp-\(dead)", "file.tmp-x"] {
                try FileManager.default.createDirectory(
                    atPath: folder + "/" + name, withIntermediateDirectories: false)
            }
            try AtomicFile.write("text", to: file)
            #expect(try names(folder) == ["file", "file.tmp-1", "file.tmp-x", "other.tmp-\(dead)"])
            // The old folder of an exchange that was cut short comes back.
            try FileManager.default.createDirectory(
                atPath: folder + "/run.old-\(dead)", withIntermediateDirectories: false)
            #expect(throws: FileError.alreadyExists(path: folder + "/run")) {
                try AtomicFile.writeFolder(folder + "/run") { _ in }
            }
            #expect(try names(folder).contains("run"))
        }
    }

    @Test func oneProcessHoldsALock() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/.lock"
            var lock: FileLock? = try FileLock.acquire(path, for: "output")
            let error = try #require(
                #expect(throws: FileError.self) { try FileLock.acquire(path, for: "output") })
            #expect("\(error)".contains("output") && "\(error)".contains("process \(getpid())"))
            withExtendedLifetime(lock) {}
            lock = nil
            _ = try FileLock.acquire(path, for: "output")
            #expect(try names(folder).isEmpty)
        }
    }

    @Test func filesAreContinuedAfterAPosition() throws {
        try withTemporaryFolder { folder in
            let path = folder + "/log"
            try AtomicFile.write("one two three", to: path)
            let writer = try FileWriter(path: path, keeping: 4)
            try writer.write("2")
            #expect(writer.size == 5)
            try writer.finish()
            #expect(try TextFile.read(path) == "one 2")
        }
    }
}
