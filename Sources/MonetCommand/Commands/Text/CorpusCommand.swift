import ArgumentParser
import Foundation
import MonetFoundation
import MonetText

struct CorpusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "corpus",
        abstract: "Build and describe corpora of labelled tokens.",
        subcommands: [CorpusBuildCommand.self, CorpusInfoCommand.self])
}

/// How sources of text are read.
struct SourceOptions: ParsableArguments {
    @Option(help: "JSONL column with the text.")
    var textKey = "text"
    @Option(help: "JSONL column with the label.")
    var labelKey = "label"
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
                path: path, label: label, textKey: textKey, labelKey: labelKey,
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
              monet corpus build --tokenizer tokenizer.model --out corpora/web pages.jsonl --label-key topic

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
        if !(0..<1).contains(validationShare) {
            throw ValidationError("--validation-share is \(validationShare), expected from 0 to below 1")
        }
    }

    func run() throws {
        let builder = CorpusBuilder(
            tokenizer: try tokenizer.open(), validationShare: validationShare, seed: seed)
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
        var counts: [CorpusSplit: [(documents: Int, tokens: Int)]] = [:]
        for split in CorpusSplit.allCases {
            var rows = Array(repeating: (documents: 0, tokens: 0), count: opened.labels.count)
            for document in try opened.documents(in: split) {
                rows[document.label].documents += 1
                rows[document.label].tokens += document.tokens.count
            }
            counts[split] = rows
        }
        func row(_ split: CorpusSplit, _ label: Int) -> (documents: Int, tokens: Int) {
            counts[split]?[label] ?? (0, 0)
        }
        if json {
            try StandardOutput.write([
                "vocab_size": .integer(opened.vocabularySize), "text_bytes": .integer(opened.textBytes),
                "labels": .object(
                    opened.labels.indices.map { label in
                        .init(
                            opened.labels[label],
                            .object(
                                CorpusSplit.allCases.map { split in
                                    .init(
                                        split.rawValue,
                                        [
                                            "documents": .integer(row(split, label).documents),
                                            "tokens": .integer(row(split, label).tokens),
                                        ])
                                }))
                    }),
            ])
            return
        }
        let header = ["label"] + CorpusSplit.allCases.flatMap { ["\($0.rawValue) documents", "tokens"] }
        let rows = opened.labels.indices.map { label in
            [opened.labels[label]]
                + CorpusSplit.allCases.flatMap {
                    [row($0, label).documents.grouped, row($0, label).tokens.grouped]
                }
        }
        let total =
            ["total"]
            + CorpusSplit.allCases.flatMap { split in
                [
                    (counts[split] ?? []).reduce(0) { $0 + $1.documents }.grouped,
                    opened.tokenCount(split).grouped,
                ]
            }
        try StandardOutput.write(alignedTable([header] + rows + [total]))
    }
}
