import Foundation
import MonetFoundation
import TestSupport
import Testing

/// Nothing is replaced unasked, and folders only by their own kind.
@Suite struct OverwriteTests {
    private let model = Fixture.path("tiny-vd")

    @Test func filesAskForTheFlag() throws {
        try withTemporaryFolder { folder in
            for arguments in [
                ["mask", "list", "--model", model, "1/3", "-o", "out"],
                ["trace", "--model", model, "--token-ids", "1 5 9", "--html", "out"],
                ["forward", "--model", model, "--tokens", "ids.json", "--out", "out"],
            ] {
                try AtomicFile.write("[[1, 5]]", to: folder + "/ids.json")
                try AtomicFile.write("precious", to: folder + "/out")
                let refused = try Command.run(arguments, in: folder)
                #expect(refused.status == 1, "\(arguments)")
                #expect(refused.errors == "error: out: exists already; --overwrite replaces it\n")
                #expect(try TextFile.read(folder + "/out") == "precious")
                let replaced = try Command.run(arguments + ["--overwrite"], in: folder)
                #expect(replaced.status == 0, "\(replaced.errors)")
                #expect(FileManager.default.contents(atPath: folder + "/out") != Data("precious".utf8))
            }
        }
    }

    @Test(arguments: [["init", "--preset", "nano-vd"], ["convert", "--model", Fixture.path("tiny-vd")]])
    func foldersAreReplacedByTheirOwnKindOnly(arguments: [String]) throws {
        try withTemporaryFolder { folder in
            func run(_ out: String, _ more: [String] = []) throws -> Command.Result {
                try Command.run(arguments + ["--out", out] + more, in: folder)
            }
            // A name of one character is a name like others.
            #expect(try run("m").status == 0)
            #expect(try run("m").errors.contains("--overwrite"))
            #expect(try run("m", ["--overwrite"]).status == 0)
            try AtomicFile.createFolder(folder + "/thesis")
            try AtomicFile.write("text", to: folder + "/thesis/chapter.tex")
            let refused = try run("thesis", ["--overwrite"])
            #expect(refused.status == 1 && refused.errors.contains("no checkpoint folder"))
            try AtomicFile.write("text", to: folder + "/m/chapter.tex")
            #expect(try run("m", ["--overwrite"]).errors.contains("chapter.tex"))
            for name in ["thesis", "m"] {
                #expect(try TextFile.read(folder + "/\(name)/chapter.tex") == "text")
            }
        }
    }
}
