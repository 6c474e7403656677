import ArgumentParser
import Foundation
import MonetFoundation
import MonetText

struct CorpusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "corpus",
        abstract: "Build and describe corpora of labelled tokens.",
        subcommands: [CorpusBuildCommand.self, CorpusInfoCommand.self, CorpusQuestionsCommand.self])
}

/// How sources of text are read.
struct SourceOptions: ParsableArguments {
    @Option(help: "JSONL column with the text.")
    var textKey = "text"
    @Option(
        help: ArgumentHelp(
            "JSONL column with the label; may be repeated where each column becomes a label set.",
            valueName: "key"))
    var labelKey: [String] = ["label"]
    @Option(help: "In folders, read only files with these extensions, such as py,txt.")
    var extensions: String?
    @Flag(help: "Skip files and lines that are not UTF-8, instead of stopping.")
    var skipInvalid = false

    /// The parts of `path` or `label=path`.
    static func split(_ argument: String) -> (label: String?, path: String) {
        guard let place = argument.firstIndex(of: "="), !FileManager.default.fileExists(atPath: argument)
        else { return (nil, argument) }
        return (String(argument[..<place]), String(argument[argument.index(after: place)...]))
    }

    /// The sources of arguments `path` or `label=path`.
    func sources(_ arguments: [String]) throws -> [CorpusSource] {
        guard !arguments.isEmpty else { throw ValidationError("Give at least one source.") }
        return arguments.map { argument in
            let (label, path) = Self.split(argument)
            return CorpusSource(
                path: path, label: label, textKey: textKey, labelKey: labelKey.first ?? "label",
                extensions: extensions?.split(separator: ",").map { String($0.drop { $0 == "." }) } ?? [],
                skipsInvalid: skipInvalid)
        }
    }
}

struct CorpusBuildCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build",
        abstract: "Encode text into a corpus folder of memory-mapped token shards.",
        discussion: """
            EXAMPLES
              monet corpus build --tokenizer tokenizer.model --out corpora/demo Corpus/
              monet corpus build --tokenizer tokenizer.model --out corpora/code python=src/ lua=scripts/
              monet corpus build --tokenizer tokenizer.model --out corpora/web pages.jsonl \\
                  --label-key topic --label-key language

            A source is a text file (one document), a JSONL file (one document per line) or a folder of \
            them. label=path labels its documents; otherwise their label is the JSONL label column, or the \
            file's or folder's name. Exact duplicates are dropped. A hash of a document's text decides \
            whether it is held out.
            """)

    @Argument(help: "Sources, as path or label=path.")
    var sources: [String]
    @OptionGroup var tokenizer: TokenizerOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @OptionGroup var reading: SourceOptions
    @Option(help: "Share of documents held out for validation.")
    var validationShare = 0.05
    @Option(help: "Seed that decides which documents are held out.")
    var seed: UInt64 = 0
    @Flag(help: "Replace an existing folder.")
    var overwrite = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if Set(reading.labelKey).count != reading.labelKey.count {
            throw ValidationError("--label-key \(reading.labelKey.joined(separator: ", ")): each column once")
        }
        if !(0..<1).contains(validationShare) {
            throw ValidationError("--validation-share is \(validationShare), expected from 0 to below 1")
        }
    }

    func run() throws {
        let builder = CorpusBuilder(
            tokenizer: try tokenizer.open(), validationShare: validationShare, seed: seed,
            labelKeys: reading.labelKey)
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        let summary = try builder.build(try reading.sources(sources), into: out, replacing: overwrite) {
            partial in
            let seconds = (ContinuousClock.now - start).seconds
            line.show(
                "\(partial.documents.grouped) documents  \(partial.bytes.byteText)  "
                    + "\(Int(Double(partial.bytes) / seconds).byteText)/s")
        }
        line.clear()
        if common.quiet { return }
        let tokens = CorpusSplit.allCases.map {
            "\((summary.tokens[$0.rawValue] ?? 0).grouped) \($0.rawValue)"
        }
        StandardError.write(
            "wrote \(out): \(summary.documents.grouped) documents, \(tokens.joined(separator: " + ")) tokens, "
                + "\(summary.labels.count) labels; \(summary.duplicates.grouped) repeats dropped\n"
                + Self.text(of: summary.skips))
    }
}

extension CorpusBuildCommand {
    /// What was skipped, as a line; nothing if all was read.
    private static func text(of skips: SourceSkips) -> String {
        let parts = [
            (skips.files, "files that are not UTF-8"), (skips.lines, "lines that are not JSON"),
            (skips.links, "links that lead nowhere or in a circle"),
        ]
        .filter { $0.0 > 0 }.map { "\($0.0.grouped) \($0.1)" }
        return parts.isEmpty ? "" : "skipped " + parts.joined(separator: ", ") + "\n"
    }
}

struct CorpusInfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info",
        abstract: "Describe a corpus folder: tokens and documents by label.",
        discussion: """
            EXAMPLES
              monet corpus info corpora/demo
            """)

    @Argument(help: "The corpus folder.")
    var corpus: String
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let opened = try Corpus(folder: corpus)
        let documents = try CorpusSplit.allCases.map { ($0, try opened.documents(in: $0)) }
        let sets = opened.labelSets.enumerated().map { place, set in
            LabelCounts(set, place: place, documents)
        }
        if json {
            var members: [JSONValue.Member] = [
                .init("vocab_size", .integer(opened.vocabularySize)),
                .init("text_bytes", .integer(opened.textBytes)), .init("labels", sets[0].json),
            ]
            if sets.count > 1 {
                members.append(
                    .init("label_sets", .object(sets.map { .init($0.labelSet.name, $0.json) })))
            }
            return try StandardOutput.write(.object(members))
        }
        let total =
            ["total"]
            + documents.flatMap { split, documents in
                [documents.count.grouped, opened.tokenCount(split).grouped]
            }
        try StandardOutput.write(
            sets.map { alignedTable([$0.heading] + $0.rows + [total]) }.joined(separator: "\n"))
    }
}

/// Documents and tokens of a set's labels, by split.
private struct LabelCounts {
    let labelSet: Corpus.LabelSet
    private var counts: [(split: CorpusSplit, labels: [(documents: Int, tokens: Int)])] = []

    init(_ set: Corpus.LabelSet, place: Int, _ documents: [(CorpusSplit, [Corpus.DocumentRange])]) {
        labelSet = set
        for (split, documents) in documents {
            var labels = Array(repeating: (documents: 0, tokens: 0), count: set.labels.count)
            for document in documents where document.labels[place] >= 0 {
                labels[document.labels[place]].documents += 1
                labels[document.labels[place]].tokens += document.tokens.count
            }
            counts.append((split, labels))
        }
    }

    var heading: [String] {
        [labelSet.name] + counts.flatMap { ["\($0.split.rawValue) documents", "tokens"] }
    }

    var rows: [[String]] {
        labelSet.labels.indices.map { label in
            [labelSet.labels[label]]
                + counts.flatMap { [$0.labels[label].documents.grouped, $0.labels[label].tokens.grouped] }
        }
    }

    var json: JSONValue {
        .object(
            labelSet.labels.indices.map { label in
                .init(
                    labelSet.labels[label],
                    .object(
                        counts.map { count in
                            .init(
                                count.split.rawValue,
                                [
                                    "documents": .integer(count.labels[label].documents),
                                    "tokens": .integer(count.labels[label].tokens),
                                ])
                        }))
            })
    }
}
