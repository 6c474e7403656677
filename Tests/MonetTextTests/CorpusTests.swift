import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

@Suite struct CorpusTests {
    private var tokenizer: Tokenizer {
        get throws { try Tokenizer(path: Fixture.path("text/trained.model")) }
    }

    /// A folder of mixed sources: two labels by folder, one JSONL file with its own labels, one repeat.
    private func writeSources(_ folder: String) throws {
        for (path, text) in [
            ("sea/whale.txt", "The whale is large."),
            ("sea/shark.txt", "The shark has teeth.\nMany of them."),
            ("sky/kite.txt", "The kite flies high."), ("sky/again.txt", "The whale is large."),
            (".hidden/x.txt", "no"),
            (
                "mixed.jsonl",
                "{\"text\": \"One\", \"label\": \"numbers\"}\n\n{\"text\": \"Two\", \"label\": 7}\r\n{\"text\": \"The kite flies high.\"}\n"
            ),
        ] {
            let full = folder + "/" + path
            try FileManager.default.createDirectory(
                atPath: (full as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
            try AtomicFile.write(text, to: full)
        }
    }

    @Test func buildsLabelsSplitsAndDropsRepeats() throws {
        try withTemporaryFolder { folder in
            try writeSources(folder + "/in")
            let tokenizer = try tokenizer
            let builder = CorpusBuilder(tokenizer: tokenizer, validationShare: 0.4, seed: 1)
            let summary = try builder.build([CorpusSource(path: folder + "/in")], into: folder + "/out")
            #expect(summary.documents == 5)
            #expect(summary.duplicates == 2)
            #expect(summary.labels == ["sea": 2, "mixed": 1, "numbers": 1, "7": 1])
            let corpus = try Corpus(folder: folder + "/out")
            #expect(corpus.vocabularySize == 4096)
            var texts: [String: String] = [:]
            for split in CorpusSplit.allCases {
                for document in try corpus.documents(in: split) {
                    let ids = corpus.tokens(in: split, document.tokens)
                    #expect(ids.first == 1 && ids.last == 2)
                    texts[try tokenizer.decode(ids)] = corpus.labelSets[0].labels[document.labels[0]]
                }
                #expect(
                    try corpus.documents(in: split).reduce(0) { $0 + $1.tokens.count }
                        == corpus.tokenCount(split))
            }
            #expect(
                texts == [
                    "The whale is large.": "sea", "The shark has teeth.\nMany of them.": "sea",
                    "The kite flies high.": "mixed",
                    "One": "numbers", "Two": "7",
                ])
            // The same sources give the same files.
            _ = try builder.build([CorpusSource(path: folder + "/in")], into: folder + "/twice")
            for name in try FileManager.default.contentsOfDirectory(atPath: folder + "/out") {
                #expect(
                    FileManager.default.contentsEqual(
                        atPath: folder + "/out/" + name, andPath: folder + "/twice/" + name))
            }
        }
    }

    @Test func severalSetsOfLabels() throws {
        try withTemporaryFolder { folder in
            let lines = [
                #"{"text": "The sea", "topic": "water", "language": "en"}"#,
                #"{"text": "Das Meer", "topic": "water", "language": "de", "label": "x"}"#,
                #"{"text": "Der Stein", "topic": null, "language": "de"}"#,
                #"{"text": "It is law", "topic": 7}"#,
            ]
            try AtomicFile.write(lines.joined(separator: "\n") + "\n", to: folder + "/l.jsonl")
            _ = try CorpusBuilder(
                tokenizer: tokenizer, validationShare: 0, labelKeys: ["topic", "language"]
            ).build([CorpusSource(path: folder + "/l.jsonl", labelKey: "topic")], into: folder + "/c")
            let corpus = try Corpus(folder: folder + "/c")
            #expect(corpus.labelSets.map(\.name) == ["topic", "language"])
            #expect(corpus.labelSets.map(\.labels) == [["water", "l", "7"], ["en", "de"]])
            #expect(try corpus.documents(in: .train).map(\.labels) == [[0, 0], [0, 1], [1, 1], [2, -1]])
            for keys in [["tpoic"], ["topic", "langauge"], ["topic", "topic"]] {
                #expect(throws: TextError.self) {
                    try CorpusBuilder(tokenizer: tokenizer, labelKeys: keys).build(
                        [CorpusSource(path: folder + "/l.jsonl", labelKey: keys[0])], into: folder + "/d")
                }
                #expect(!FileManager.default.fileExists(atPath: folder + "/d"))
            }
        }
    }

    /// Version 1: one set, under "labels", in records of the same size.
    @Test func corporaOfVersion1() throws {
        try withTemporaryFolder { folder in
            try writeSources(folder + "/in")
            _ = try CorpusBuilder(tokenizer: tokenizer).build(
                [CorpusSource(path: folder + "/in")], into: folder + "/out")
            let path = folder + "/out/corpus.json"
            let new = try Corpus(folder: folder + "/out")
            let members = try #require(try JSONValue(contentsOfFile: path).members)
            try AtomicFile.write(
                JSONValue.object(
                    members.map { member in
                        switch member.key {
                        case "version": .init("version", 1)
                        case "label_sets": .init("labels", member.value.arrayValue?[0]["labels"] ?? .null)
                        default: member
                        }
                    }
                ).serialized(), to: path)
            let old = try Corpus(folder: folder + "/out")
            #expect(old.labelSets == new.labelSets && old.labelSets[0].labels.count == 4)
            #expect(try old.documents(in: .train) == new.documents(in: .train))
        }
    }

    /// Files under endings in capitals, lists in JSON, and folders behind links.
    @Test func sourcesOfEveryKind() throws {
        try withTemporaryFolder { folder in
            let root = folder + "/in"
            try AtomicFile.createFolder(root)
            try AtomicFile.createFolder(folder + "/elsewhere/deep")
            let line = "{\"text\": \"a line\", \"label\": \"x\"}\n"
            try AtomicFile.write("\u{feff}" + line, to: root + "/Part.JSONL")
            try AtomicFile.write(
                #"[{"text": "one", "label": "y"}, {"text": "two", "label": "z"}]"#, to: root + "/list.json")
            try AtomicFile.write(#"{"key": [1, 2]}"#, to: root + "/settings.json")
            try AtomicFile.write("behind a link", to: folder + "/elsewhere/deep/b.txt")
            for (name, target) in [("linked", folder + "/elsewhere"), ("gone", "nowhere"), ("circle", ".")] {
                #expect(symlink(target, root + "/" + name) == 0)
            }
            var found: [String: String] = [:]
            var skips = try CorpusSource(path: root).forEachDocument { found[$0.text] = $0.label }
            #expect(
                found == [
                    "a line": "x", "one": "y", "two": "z", #"{"key": [1, 2]}"#: "settings",
                    "behind a link": "linked",
                ])
            #expect(skips.links == 2 && skips.files == 0)
            // A list of objects without texts is not prose.
            try AtomicFile.write(#"[{"txt": "one"}]"#, to: root + "/list.json")
            let error = try #require(
                #expect(throws: TextError.self) { try CorpusSource(path: root).forEachDocument { _ in } })
            #expect("\(error)".contains("list.json, element 0"))
            unlink(root + "/list.json")
            try Data([0xff, 0xfe]).write(to: URL(fileURLWithPath: root + "/binary.txt"))
            try AtomicFile.write(line + "{torn\n", to: root + "/torn.jsonl")
            skips = try CorpusSource(path: root, skipsInvalid: true).forEachDocument { _ in }
            #expect(skips.files == 1 && skips.lines == 1)
            var count = 0
            try CorpusSource(path: root, extensions: ["TXT"], skipsInvalid: true).forEachDocument { _ in
                count += 1
            }
            #expect(count == 1)
        }
    }

    @Test func badSourcesNameFileAndLineAndLeaveNothing() throws {
        try withTemporaryFolder { (folder: String) throws -> Void in
            func message(_ name: String, _ bytes: [UInt8], skipping: Bool = false) throws -> String {
                let path = folder + "/" + name
                try Data(bytes).write(to: URL(fileURLWithPath: path))
                let out = folder + "/out"
                do {
                    _ = try CorpusBuilder(tokenizer: tokenizer).build(
                        [CorpusSource(path: path, skipsInvalid: skipping)], into: out)
                    try FileManager.default.removeItem(atPath: out)
                    return "built"
                } catch {
                    #expect(!FileManager.default.fileExists(atPath: out))
                    return "\(error)"
                }
            }
            #expect(try message("latin1.txt", Array("caf".utf8) + [0xe9]).contains("latin1.txt"))
            #expect(try message("empty.txt", []).contains("empty.txt"))
            #expect(
                try message("rows.jsonl", Array("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n".utf8)).contains(
                    "line 2"))
            #expect(
                try message("torn.jsonl", Array("{\"text\": \"a\"}\n{\"text\": \"b\n".utf8)).contains(
                    "line 2"))
            #expect(
                try message("torn2.jsonl", Array("{\"text\": \"a\"}\n{\"text\": \"b\n".utf8), skipping: true)
                    == "built")
            #expect(throws: FileError.self) {
                _ = try CorpusBuilder(tokenizer: tokenizer).build(
                    [CorpusSource(path: folder + "/absent")], into: folder + "/out")
            }
        }
    }

    @Test func damagedCorporaAreErrors() throws {
        try withTemporaryFolder { folder in
            try writeSources(folder + "/in")
            let out = folder + "/out"
            _ = try CorpusBuilder(tokenizer: tokenizer).build([CorpusSource(path: folder + "/in")], into: out)
            let description = try TextFile.read(out + "/corpus.json")
            for (old, new) in [
                ("\"vocab_size\"", "\"size\""), ("\"version\": 2", "\"version\": 9"),
                ("\"train\"", "\"test\""),
            ] {
                #expect(description.contains(old))
                try AtomicFile.write(
                    description.replacingOccurrences(of: old, with: new), to: out + "/corpus.json")
                #expect(throws: TextError.self) { try Corpus(folder: out) }
            }
            try AtomicFile.write(description, to: out + "/corpus.json")
            let shard = try #require(
                try FileManager.default.contentsOfDirectory(atPath: out).first { $0.hasSuffix(".tokens") })
            try Data([1, 2]).write(to: URL(fileURLWithPath: out + "/" + shard))
            #expect(throws: TextError.self) { try Corpus(folder: out) }
        }
    }

    @Test func everyWindowComesOncePerEpoch() throws {
        try withTemporaryFolder { folder in
            let text = (0..<900).map { "word\($0)" }.joined(separator: " ")
            try AtomicFile.write(text, to: folder + "/long.txt")
            _ = try CorpusBuilder(tokenizer: tokenizer, validationShare: 0).build(
                [CorpusSource(path: folder + "/long.txt")], into: folder + "/out")
            let corpus = try Corpus(folder: folder + "/out")
            let length = 16
            let windows = (corpus.tokenCount(.train) - 1) / length - 1
            let stream = try BatchStream(corpus: corpus, length: length, batchSize: 1, seed: 3)
            let epoch = (0..<windows).map { stream.batch($0) }
            #expect(Set(epoch.map { $0.inputs[0] }).count == windows)
            for batch in epoch {
                #expect(Array(batch.inputs[0].dropFirst()) == Array(batch.targets.dropLast()))
            }
            // Another epoch and another seed are other orders; the same question has the same answer.
            #expect((windows..<(2 * windows)).map { stream.batch($0) } != epoch)
            #expect(
                try BatchStream(corpus: corpus, length: length, batchSize: 1, seed: 4).batch(0) != epoch[0])
            #expect(stream.batch(7) == epoch[7])
            // A batch of three is three of the single ones.
            let triple = try BatchStream(corpus: corpus, length: length, batchSize: 3, seed: 3).batch(2)
            #expect(triple.inputs == (6..<9).map { epoch[$0].inputs[0] })
            #expect(throws: TextError.self) {
                try BatchStream(corpus: corpus, length: 100_000, batchSize: 1, seed: 0)
            }
        }
    }
}
