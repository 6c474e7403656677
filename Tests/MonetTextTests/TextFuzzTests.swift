import Foundation
import MonetFoundation
import MonetText
import TestSupport
import Testing

/// Templates and corpora from strangers: each ends in a value or a typed error, soon and in little memory.
@Suite struct TextFuzzTests {
    private static let templateTokens = [
        "{{", "}}", "{%", "%}", "{%-", "-%}", "{#", "#}", "|", ".", "[", "]", "(", ")", "**", "*", "~", "//",
        "%", "-",
        "not ", "in ", " is ", " if ", " else ", "for x in ", "endfor", "if ", "elif ", "endif", "set ",
        "macro ",
        "endmacro", "break", "continue", "namespace(", "range(", "9223372036854775807",
        "-9223372036854775808", "1e999",
        "999999999", "loop.", "index", "tojson", "join", "replace(", "trim", "length", "map(", "select(",
        "sort",
        "batch(", "dictsort", "format(", "indent(", "center(", "'%1000000000s'", "messages", "message",
        "content",
        "strftime_now(", "raise_exception(", "x", "'a'", "\"", "none", "true", ":", ",", "=", "generation",
    ]

    @Test func templates() throws {
        let golden = try JSONValue(contentsOfFile: Fixture.path("text/templates-golden.json"))
        let cases = try #require(golden["cases"]?.arrayValue)
        let seeds = cases.compactMap { $0["template"]?.stringValue.map { Array($0.utf8) } }
        let messages: JSONValue = [
            ["role": "system", "content": "Be brief."], ["role": "user", "content": "Who?\n"],
            ["role": "assistant", "content": [["type": "text", "text": "You."]]],
        ]
        var random = SplitMix64(seed: 21)
        var rendered = 0
        for _ in 0..<(15_000 * Mutator.factor) {
            let source = String(
                decoding: Mutator.mutated(seeds, tokens: Self.templateTokens, &random), as: UTF8.self)
            let start = ContinuousClock.now
            do {
                _ = try ChatTemplate(source).render(messages: messages)
                rendered += 1
            } catch is TextError {}
            // The limit is on steps, not on time: some hundred times what the slowest takes on an idle machine.
            #expect(ContinuousClock.now - start < .seconds(20), "\(source)")
        }
        #expect(rendered > 1000 * Mutator.factor)
    }

    @Test func corpora() throws {
        try withTemporaryFolder { folder in
            var lines = ""
            for number in 0..<60 {
                lines += #"{"text": "The sea \#(number) and the ship", "label": "\#(number % 3)"}"# + "\n"
            }
            try AtomicFile.write(lines, to: folder + "/text.jsonl")
            let whole = folder + "/corpus"
            _ = try CorpusBuilder(
                tokenizer: Tokenizer(path: Fixture.path("text/trained.model")), validationShare: 0.2
            ).build([CorpusSource(path: folder + "/text.jsonl")], into: whole)
            let description = try JSONValue(contentsOfFile: whole + "/corpus.json")
            let names = try FileManager.default.contentsOfDirectory(atPath: whole).sorted()
            let binary = names.filter { $0.hasSuffix(".tokens") || $0.hasSuffix(".documents") }
            #expect(binary.count == 4)
            var random = SplitMix64(seed: 22)
            var opened = 0
            for round in 0..<(400 * Mutator.factor) {
                let copy = folder + "/copy"
                try? FileManager.default.removeItem(atPath: copy)
                try FileManager.default.createDirectory(atPath: copy, withIntermediateDirectories: true)
                for name in names {
                    try FileManager.default.copyItem(atPath: whole + "/" + name, toPath: copy + "/" + name)
                }
                switch round % 3 {
                case 0:
                    try AtomicFile.write(
                        Mutator.mutated(description, &random).serialized(), to: copy + "/corpus.json")
                case 1:
                    let text = Array(description.serialized().utf8)
                    let altered = Mutator.mutated([text], &random)
                    try Data(altered).write(to: URL(fileURLWithPath: copy + "/corpus.json"))
                default:
                    let path = copy + "/" + binary[Int(random.next() % UInt64(binary.count))]
                    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
                    for _ in 0...Int(random.next() % 4) {
                        bytes[Int(random.next() % UInt64(bytes.count))] = UInt8(random.next() % 256)
                    }
                    if random.next() % 4 == 0 { bytes.removeLast() }
                    try Data(bytes).write(to: URL(fileURLWithPath: path))
                }
                do {
                    let corpus = try Corpus(folder: copy)
                    opened += 1
                    for split in CorpusSplit.allCases {
                        for document in try corpus.documents(in: split) {
                            for (set, label) in document.labels.enumerated() where label >= 0 {
                                _ = corpus.labelSets[set].labels[label]
                            }
                            _ = corpus.tokens(in: split, document.tokens)
                        }
                    }
                    let stream = try BatchStream(corpus: corpus, length: 4, batchSize: 2, seed: 1)
                    _ = stream.batch(3)
                    _ = stream.validationBatches(limit: 2)
                } catch is TextError {} catch is FileError {}
            }
            #expect(opened > 50 * Mutator.factor)
        }
    }
}
