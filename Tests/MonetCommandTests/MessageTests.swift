import Foundation
import MonetFoundation
import TestSupport
import Testing

/// What the commonest slips of a command line are told.
@Suite struct MessageTests {
    private static let model = Fixture.path("tiny-vd")

    @Test(arguments: [
        (
            ["generate", "--model", model, "--max-tokens", "5"],
            "unknown option '--max-tokens'; did you mean '--max-new-tokens'?"
        ),
        // Another rule fails too.
        (["generate", "--max-tokens", "5", "--top-p", "7"], "unknown option '--max-tokens'"),
        (
            ["generate", "--model", model, "--tempature=1"],
            "unknown option '--tempature'; did you mean '--temperature'?"
        ),
        (["info", "--jsn", model], "did you mean '--json'?"),
        (["info", "--frobnicate", model], "unknown option '--frobnicate'"),
        (["genrate", "--model", model], "unknown command 'genrate'; did you mean 'generate'?"),
        (["mask", "lable"], "unknown command 'lable'; did you mean 'label'?"),
        (["xyzzy"], "unknown command 'xyzzy'"),
        (
            ["generate", "--model", model, "--temperature", "-1"],
            "temperature is -1.0, expected a number from 0"
        ),
        (["generate", "--model", model, "-n", "-1"], "--max-new-tokens is -1, expected 0 or more"),
        (
            ["generate", "--model", model, "--mask", Fixture.path("tiny-vd/config.json") + ":abc"],
            "'abc' is not a strength"
        ),
    ])
    func slips(arguments: [String], message: String) throws {
        try withTemporaryFolder { folder in
            let result = try Command.run(arguments, in: folder)
            #expect(result.status == 64, "\(arguments)")
            #expect(result.errors.hasPrefix("error: ") && result.errors.contains(message), "\(result.errors)")
            #expect(result.output.isEmpty)
        }
    }

    @Test func sentencePieceSpeaksPlainly() throws {
        try withTemporaryFolder { folder in
            try AtomicFile.write("a little text\n", to: folder + "/a.txt")
            let train = ["tokenizer", "train", "--vocab-size", "4096", "--out", "t.model", "a.txt"]
            let result = try Command.run(train, in: folder)
            #expect(result.status == 1 && result.errors.contains("at most"), "\(result.errors)")
            #expect(result.errors.contains("pieces, fewer than the 4096 asked for"))
            try AtomicFile.write("not a model", to: folder + "/bad.model")
            let bad = try Command.run(
                ["tokenizer", "encode", "--tokenizer", "bad.model"], in: folder, input: "x")
            #expect(bad.status == 1 && bad.errors.contains("bad.model: not a SentencePiece model"))
            #expect(!bad.errors.contains(".cc"))
        }
    }
}
