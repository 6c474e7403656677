import ArgumentParser
import Foundation
import MonetInsight
import MonetModel
import MonetText

/// Labelled documents to read: a corpus folder, or text and JSONL.
struct DocumentOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A corpus folder written by monet corpus build; or text files, JSONL files and folders, as path or label=path. May be repeated.",
            valueName: "path"))
    var corpus: [String] = []
    @Option(help: "JSONL column with the text.")
    var textKey = "text"
    @Option(
        help: ArgumentHelp(
            "JSONL column with labels; may be repeated, each column is a label set.", valueName: "key"))
    var labelKey: [String] = ["label"]
    @Option(
        help: ArgumentHelp(
            "Read only these labels of a corpus folder, separated by commas.", valueName: "list"))
    var labels: String?
    @Option(
        help: "Read at most this many tokens, equally many per label, from documents in a fixed random order."
    )
    var limit: Int?

    func validate() throws {
        if let limit, limit < 1 { throw ValidationError("--limit is \(limit), expected 1 or more") }
    }

    /// Reads the documents.
    ///
    /// - Parameters:
    ///   - split: the split of a corpus folder to read.
    ///   - numberKey: a JSONL column with numbers.
    ///   - ownLimit: the maximum number of tokens, instead of `--limit`.
    func documents(
        tokenizer: Tokenizer?, modelFolder: String, split: CorpusSplit, numberKey: String? = nil,
        limit ownLimit: Int? = nil
    ) throws -> LabelledDocuments {
        guard !corpus.isEmpty else {
            throw ValidationError("Missing expected argument '--corpus <path> ...'")
        }
        let limit = ownLimit ?? limit
        let isFolder =
            corpus.count == 1
            && FileManager.default.fileExists(atPath: corpus[0] + "/corpus.json")
        if isFolder {
            if let numberKey {
                throw CommandError.malformedInput(
                    source: corpus[0],
                    reason: "a corpus folder holds no numbers; give JSONL with \"\(numberKey)\"")
            }
            let names = labels?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
            return try LabelledDocuments(
                corpus: Corpus(folder: corpus[0]), split: split, limit: limit, labels: names)
        }
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelFolder, purpose: "text")
        }
        guard labels == nil else {
            throw ValidationError(
                "--labels chooses from a corpus folder; \(corpus.joined(separator: ", ")) is text")
        }
        let sources = corpus.map { argument in
            let (label, path) = SourceOptions.split(argument)
            return CorpusSource(
                path: path, label: label, textKey: textKey, labelKey: labelKey.first ?? "label")
        }
        return try LabelledDocuments(
            sources: sources, tokenizer: tokenizer, labelKeys: labelKey, numberKey: numberKey, limit: limit)
    }
}

extension CorpusSplit: ExpressibleByArgument {}
