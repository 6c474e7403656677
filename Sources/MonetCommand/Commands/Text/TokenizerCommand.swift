import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetText

struct TokenizerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tokenizer",
        abstract: "Train and use SentencePiece tokenizers.",
        subcommands: [TokenizerTrainCommand.self, TokenizerEncodeCommand.self, TokenizerDecodeCommand.self])
}

/// The tokenizer that a command uses.
struct TokenizerOptions: ParsableArguments {
    @Option(help: ArgumentHelp("A SentencePiece model, or a checkpoint folder with one.", valueName: "path"))
    var tokenizer: String

    static func open(_ path: String) throws -> Tokenizer {
        var isFolder: ObjCBool = false
        let exists = FileManager.default.fileExists(atPath: path, isDirectory: &isFolder)
        return exists && isFolder.boolValue ? try Tokenizer(folder: path) : try Tokenizer(path: path)
    }

    func open() throws -> Tokenizer { try Self.open(tokenizer) }
}

struct TokenizerTrainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train",
        abstract: "Train a tokenizer: byte-pair encoding with byte fallback, like Llama's.",
        discussion: """
            EXAMPLES
              monet tokenizer train --vocab-size 4096 --out tokenizer.model Corpus/
              monet tokenizer train --vocab-size 8192 --out code.model python=src/ java=jdk/ --extensions py,java
            """)

    @Argument(help: "Text files, JSONL files and folders, as for corpus build.")
    var sources: [String]
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The file to write.", valueName: "path"))
    var out: String
    @Option(help: "Vocabulary size.")
    var vocabSize = 8192
    @Option(help: "Maximum megabytes of text to train on, sampled evenly from all of it.")
    var megabytes = 32.0
    @OptionGroup var reading: SourceOptions
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(0.001...10_000).contains(megabytes) {
            throw ValidationError("--megabytes is \(megabytes), expected above 0")
        }
        if let threads, threads < 1 { throw ValidationError("--threads is \(threads), expected 1 or more") }
    }

    func run() throws {
        try overwriting.check(out)
        let all = try reading.sources(sources)
        var sample = LineSample(bytes: Int(megabytes * 1e6))
        for source in all {
            try source.forEachDocument { document in
                for line in document.text.lines where !line.isEmpty { sample.add(line) }
            }
        }
        let lines = sample.lines
        if !common.quiet {
            StandardError.write("training \(vocabSize.grouped) pieces on \(lines.count.grouped) lines\n")
        }
        let model = try TokenizerTrainer.train(
            sentences: lines, vocabularySize: vocabSize, threads: threads ?? ProcessorLimits.usableProcessors)
        try AtomicFile.write(to: out) { try $0.write(model) }
        if !common.quiet { StandardError.write("wrote \(out)\n") }
    }
}

struct TokenizerEncodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "encode",
        abstract: "Encode a text, or lines of standard input, as token ids.",
        discussion: """
            EXAMPLES
              monet tokenizer encode --tokenizer checkpoints/demo "The sea"
              echo "The sea" | monet tokenizer encode --tokenizer checkpoints/demo
              monet tokenizer encode --tokenizer tokenizer.model --json < lines.txt
            """)

    @Argument(help: "The text; by default lines are read from standard input.")
    var text: String?
    @OptionGroup var options: TokenizerOptions
    @Flag(help: "Print a JSON list for each line.")
    var json = false
    @Flag(help: "Put the begin token first.")
    var addBos = false
    @Flag(help: "Print pieces instead of ids.")
    var pieces = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let tokenizer = try options.open()
        func write(_ line: String) throws {
            let ids = try tokenizer.encode(line, addBegin: addBos)
            let values: [JSONValue] = try ids.map {
                pieces ? .string(try tokenizer.piece($0)) : .integer(Int($0))
            }
            try StandardOutput.write(
                json
                    ? JSONValue.array(values).serialized() + "\n"
                    : values.map { $0.stringValue ?? $0.serialized() }.joined(separator: " ") + "\n")
        }
        if let text { try write(text) } else { try StandardInput.forEachLine(write) }
    }
}

struct TokenizerDecodeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "decode",
        abstract: "Decode lines of token ids, as JSON lists or plain numbers, to text.",
        discussion: """
            EXAMPLES
              echo "[450, 7205]" | monet tokenizer decode --tokenizer checkpoints/demo
              echo "450 7205" | monet tokenizer decode --tokenizer checkpoints/demo
            """)

    @OptionGroup var options: TokenizerOptions
    @Flag(help: "Read JSON lists only.")
    var json = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let tokenizer = try options.open()
        var number = 0
        try StandardInput.forEachLine { line in
            number += 1
            let source = "standard input, line \(number)"
            let isList = json || line.contains("[")
            let ids: [Int32]
            if isList {
                let json = try JSONValue(parsing: line, source: source)
                let values = json.arrayValue?.compactMap { value -> Int32? in
                    guard case .integer(let id) = value else { return nil }
                    return Int32(exactly: id)
                }
                guard let values, values.count == json.arrayValue?.count else {
                    throw CommandError.malformedInput(source: source, reason: "expected a list of token ids")
                }
                ids = values
            } else {
                ids = try line.split(whereSeparator: { " ,\t\r".contains($0) }).map { word in
                    guard let id = Int32(word) else {
                        throw CommandError.malformedInput(
                            source: source, reason: "'\(word)' is not a token id")
                    }
                    return id
                }
            }
            try StandardOutput.write(foreign: try tokenizer.decode(ids) + "\n")
        }
    }
}

/// Every n-th line of all, so that a sample covers the whole text; n doubles when the sample gets too large. The
/// text is read once, so it may come from a pipe.
private struct LineSample {
    private(set) var lines: [String] = []
    private let bytes: Int
    private var kept = 0
    private var every = 1
    private var number = 0

    init(bytes: Int) { self.bytes = bytes }

    mutating func add(_ line: Substring) {
        defer { number += 1 }
        guard number % every == 0 else { return }
        lines.append(String(line))
        kept += line.utf8.count
        while kept > bytes, lines.count > 1 {
            lines = stride(from: 0, to: lines.count, by: 2).map { lines[$0] }
            kept = lines.reduce(0) { $0 + $1.utf8.count }
            every *= 2
        }
    }
}
