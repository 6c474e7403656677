import Foundation
import MonetText

/// What a run reads: a corpus, or conversations in the template of the checkpoint that it starts from.
struct TrainingText: Sendable {
    let source: any BatchSource
    /// What errors call it, and what gives it its tokens.
    let name: String
    let tokens: String
    let vocabularySize: Int
    let tokenizerPath: String
    private let isCorpus: Bool

    /// - Throws: `TextError`, `FileError`.
    init(_ configuration: RunConfiguration) throws {
        isCorpus = !configuration.readsConversations
        if isCorpus {
            let corpus = try Corpus(folder: configuration.corpus)
            name = "corpus \(corpus.folder)"
            tokens = name
            vocabularySize = corpus.vocabularySize
            tokenizerPath = corpus.folder + "/tokenizer.model"
            source = try BatchStream(
                corpus: corpus, length: configuration.sequenceLength, batchSize: configuration.batchSize,
                seed: configuration.seed, separating: configuration.expertsOf.map(\.label))
        } else {
            let folder = configuration.initialCheckpoint ?? ""
            let tokenizer = try Tokenizer(folder: folder)
            name = (configuration.conversations + configuration.preferences).map(\.path)
                .joined(separator: ", ")
            tokens = "tokenizer \(folder)"
            vocabularySize = tokenizer.vocabularySize
            tokenizerPath = tokenizer.path
            source =
                configuration.preferences.isEmpty
                ? try ConversationStream(configuration, tokenizer)
                : try PreferenceStream(configuration, tokenizer)
        }
    }

    /// Checks that a corpus speaks the tokens of the checkpoint to start from.
    ///
    /// - Throws: `TrainingError.invalidSetting`.
    func checkTokenizer(of configuration: RunConfiguration) throws {
        guard isCorpus, let start = configuration.initialCheckpoint else { return }
        let starting = start + "/tokenizer.model"
        guard FileManager.default.fileExists(atPath: tokenizerPath),
            FileManager.default.fileExists(atPath: starting),
            !FileManager.default.contentsEqual(atPath: tokenizerPath, andPath: starting)
        else { return }
        throw TrainingError.invalidSetting(
            source: "run", key: "corpus", found: configuration.corpus,
            expected: "a corpus encoded with the tokenizer of \(start)")
    }
}

extension RunConfiguration {
    fileprivate func encoder(_ tokenizer: Tokenizer) throws -> ConversationEncoder {
        try ConversationEncoder(tokenizer, template: chatTemplate, date: templateDate ?? Date())
    }
}

extension ConversationStream {
    /// The conversations of a run.
    public init(_ run: RunConfiguration, _ tokenizer: Tokenizer, batchSize: Int? = nil) throws {
        try self.init(
            run.conversations, encoder: run.encoder(tokenizer),
            length: run.sequenceLength,
            batchSize: batchSize ?? run.batchSize, validationShare: run.validationShare, seed: run.seed,
            skipsUnusable: run.skipsUnusable)
    }
}

extension PreferenceStream {
    /// The preference pairs of a run.
    public init(_ run: RunConfiguration, _ tokenizer: Tokenizer, batchSize: Int? = nil) throws {
        try self.init(
            run.preferences, encoder: run.encoder(tokenizer),
            length: run.sequenceLength,
            batchSize: batchSize ?? run.batchSize, validationShare: run.validationShare, seed: run.seed,
            skipsUnusable: run.skipsUnusable)
    }
}
