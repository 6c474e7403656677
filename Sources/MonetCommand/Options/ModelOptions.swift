import ArgumentParser
import Foundation
import Logging
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// The checkpoint that a command works on.
struct ModelOptions: ParsableArguments {
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp(
            "Checkpoint folder, or the name of a hub model in Hugging Face's cache.", valueName: "dir"))
    var model: String

    @Option(
        help: ArgumentHelp(
            "Branch, tag or commit of a hub model in the cache. (default: main)", valueName: "name"))
    var revision: String?

    /// The checkpoint's folder.
    func folder() throws -> String { try HubCache().resolve(model, revision: revision) }

    /// What pages and pictures call the model: its folder's name, with that of its run for a run's checkpoints.
    func title() throws -> String {
        let folder = try folder()
        // A hub model, whose folder is named after a commit.
        guard folder == model else { return model.lastPathName }
        let name = folder.lastPathName
        var run = folder.parentFolder
        switch name {
        case "best", "latest", "merged": break
        case _ where name.hasPrefix("step-") && run.lastPathName == "checkpoints": run = run.parentFolder
        default: return name
        }
        return [".", "..", "/"].contains(run.lastPathName) ? name : run.lastPathName + "/" + name
    }

    /// Maps the checkpoint, and opens its tokenizer if it has one.
    func load(_ logger: Logger, for purpose: LoadPurpose = .inference) throws -> (
        model: MonetLanguageModel, tokenizer: Tokenizer?
    ) {
        let folder = try folder()
        let start = ContinuousClock.now
        let model = try MonetLanguageModel.load(folder, for: purpose)
        let tokenizer = try tokenizer(folder)
        if let tokenizer, tokenizer.pieceCount > model.configuration.vocabularySize {
            throw ModelError.invalidConfiguration(
                file: folder + "/config.json", key: "vocab_size",
                found: "\(model.configuration.vocabularySize)",
                expected: "at least the tokenizer's \(tokenizer.pieceCount)")
        }
        logger.info(
            "model opened",
            metadata: [
                "folder": "\(folder)", "parameters": "\(model.configuration.parameterCount.grouped)",
                "seconds": "\((ContinuousClock.now - start).seconds.text(3))",
            ])
        return (model, tokenizer)
    }

    private func tokenizer(_ folder: String) throws -> Tokenizer? {
        // Adapters of peft have no tokenizer of their own.
        let names = [folder] + (AdapterFolder.isOne(folder) ? [try AdapterFolder.model(of: folder)] : [])
        return try names.first { FileManager.default.fileExists(atPath: $0 + "/tokenizer.model") }
            .map { try Tokenizer(folder: $0) }
    }
}

/// How the KV cache is stored.
struct CacheOptions: ParsableArguments {
    @Option(help: "Type of the KV cache: float32, bfloat16 or int8.")
    var kvDtype: CacheType = .float32
}

/// The type of a KV cache, as users name it.
enum CacheType: String, ExpressibleByArgument, CaseIterable {
    case float32, bfloat16, int8

    init?(argument: String) {
        switch argument.lowercased() {
        case "float32", "f32": self = .float32
        case "bfloat16", "bf16": self = .bfloat16
        case "int8", "q8_0": self = .int8
        default: return nil
        }
    }

    var dtype: DType {
        switch self {
        case .float32: .float32
        case .bfloat16: .bfloat16
        case .int8: .int8Rows
        }
    }
}

/// A text or token ids to work on.
struct InputOptions: ParsableArguments {
    @Argument(help: "The text; by default it is read from --file or standard input.")
    var text: String?

    @Option(
        name: [.customShort("f"), .customLong("file")],
        help: ArgumentHelp("A file with the text.", valueName: "path"))
    var file: String?

    @Option(help: ArgumentHelp("Token ids instead of text, as \"5 17 99\".", valueName: "ids"))
    var tokenIds: String?

    func validate() throws {
        if [text != nil, file != nil, tokenIds != nil].count(where: { $0 }) > 1 {
            throw ValidationError("Give one of a text, --file and --token-ids.")
        }
    }

    /// The text, unless token ids were given.
    func readText() throws -> String? {
        if tokenIds != nil { return nil }
        if let text { return text }
        // An empty text can be given as "": an empty file is more likely a mistake.
        let read = try file.map { try TextFile.read($0, readsStreams: true) } ?? StandardInput.readText()
        guard !read.isEmpty else {
            throw CommandError.malformedInput(
                source: file ?? "standard input", reason: "it is empty, expected a text")
        }
        return read
    }

    /// The ids, with the begin token before a text if the tokenizer adds one.
    func ids(_ tokenizer: Tokenizer?, folder: String, vocabularySize: Int) throws -> [Int32] {
        if let tokenIds { return try Self.parse(tokenIds, vocabularySize: vocabularySize) }
        guard let tokenizer else { throw CommandError.missingTokenizer(folder: folder, purpose: "a text") }
        return try tokenizer.encode(try readText() ?? "", addBegin: tokenizer.addsBegin)
    }

    /// Ids separated by spaces or commas, brackets allowed.
    static func parse(_ list: String, vocabularySize: Int) throws -> [Int32] {
        try list.split(whereSeparator: { " ,[]\n\t".contains($0) }).map { word in
            guard let id = Int32(word), id >= 0 else {
                throw CommandError.malformedInput(
                    source: "--token-ids", reason: "'\(word)' is not a token id")
            }
            guard Int(id) < vocabularySize else {
                throw TextError.unknownTokenID(id: Int(id), vocabularySize: vocabularySize)
            }
            return id
        }
    }
}

extension MonetLanguageModel {
    /// Checks that an index is of this model or of one that it was tuned from, and says how far it holds.
    ///
    /// - Throws: `InsightError`.
    func accept(_ index: ExpertIndex, _ logger: Logger) throws {
        try index.require(self)
        noteOrigin(of: index.path, index.modelFingerprint, logger)
    }

    /// Says how far a mask or an index holds that was made for the model that this one was tuned from.
    func noteOrigin(of path: String, _ fingerprint: String, _ logger: Logger) {
        guard let tunedFrom else { return }
        // Adapters change attention alone, which fingerprints leave out.
        let isLast =
            fingerprint == tunedFrom.fingerprints.first
            && tunedFrom.fingerprints.count { $0 == fingerprint } == 1
        guard tunedFrom.fingerprints.contains(fingerprint) else { return }
        let share = tunedFrom.selectedAsBefore.flatMap { share in
            isLast ? "\((100 * share).text(1))% of that model's experts are selected as before" : nil
        }
        logger.warning(
            "\(path) was made for \(fingerprint == self.fingerprint ? "this model or " : "")\(isLast ? "the model" : "a model") that this one was tuned from: \(share ?? "how many of its experts are still selected was not measured")"
        )
    }
}
