import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

/// Which documents are to be forgotten.
struct ForgetOptions: ParsableArguments {
    @OptionGroup var documents: DocumentOptions
    @Option(
        help: ArgumentHelp(
            "The labels of what is to be forgotten, separated by commas; all others are to be kept.",
            valueName: "list"))
    var forget: String

    /// The labels.
    var labels: [String] {
        forget.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
    }

    /// Token ids of the documents of both kinds.
    ///
    /// Of text and JSONL, which know no splits, every tenth document by its hash is held out.
    ///
    /// - `perLabel`: the most tokens of each label; documents are taken in a fixed random order.
    func read(
        _ tokenizer: Tokenizer, folder: String, split: CorpusSplit, perLabel: Int? = nil
    ) throws -> (forget: [[Int32]], retain: [[Int32]]) {
        let read = try documents.documents(tokenizer: tokenizer, modelFolder: folder, split: split)
        guard let set = read.labelSets.first else { throw InsightError.noLabels(origin: read.origin) }
        let chosen = try labels.map { label in
            guard let place = set.labels.firstIndex(of: label) else {
                throw CommandError.malformedInput(
                    source: read.origin,
                    reason: "there is no label '\(label)', only \(set.labels.joined(separator: ", "))")
            }
            return place
        }
        let hasSplits =
            documents.corpus.count == 1
            && FileManager.default.fileExists(atPath: documents.corpus[0] + "/corpus.json")
        var room = set.labels.map { _ in perLabel ?? .max }
        var (forget, retain): ([[Int32]], [[Int32]]) = ([], [])
        var generator = SplitMix64(seed: 0)
        let order =
            perLabel == nil ? Array(0..<read.count) : (0..<read.count).shuffled(using: &generator)
        for document in order {
            let label = read.labels(document)[0]
            if label < 0 || room[label] < 2 { continue }
            let all = read.tokens(document)
            if !hasSplits, Self.isHeldOut(all) != (split == .validation) { continue }
            let tokens = Array(all.prefix(room[label]))
            room[label] -= tokens.count
            if chosen.contains(label) { forget.append(tokens) } else { retain.append(tokens) }
        }
        guard !forget.isEmpty, !retain.isEmpty else {
            throw CommandError.malformedInput(
                source: read.origin,
                reason: "no \(split == .validation ? "held-out " : "")documents to "
                    + "\(forget.isEmpty ? "forget" : "keep"); expected some of both kinds"
                    + (hasSplits ? "" : ", of which every tenth is held out"))
        }
        return (forget, retain)
    }

    private static func isHeldOut(_ tokens: [Int32]) -> Bool {
        let hash = tokens.reduce(UInt64(0xcbf2_9ce4_8422_2325)) {
            ($0 ^ UInt64(truncatingIfNeeded: $1)) &* 0x100_0000_01b3
        }
        var generator = SplitMix64(seed: hash)
        return generator.next() % 10 == 0
    }
}

struct UnlearnExamineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "examine",
        abstract: "What a model still knows of documents to forget, and what it lost of others.",
        discussion: """
            EXAMPLES
              monet unlearn examine --model checkpoints/demo --corpus runs/demo/corpus --forget scripture \\
                  --specialists --limit 26000
              monet unlearn examine --model base --beside rmu=checkpoints/rmu --corpus forget=bio.jsonl \\
                  --corpus retain=wiki.jsonl --forget forget --html examined.html

            Beside loss and accuracy: what the model writes after the beginning of a document, both kinds of \
            documents in one text, and the share of experts that routers still select. Held-out documents are read \
            (of text and JSONL, every tenth by its hash); the specialists come from the others.
            """)

    @OptionGroup var subjectOptions: UnlearnSubjectOptions
    @OptionGroup var forgetting: ForgetOptions
    @Option(help: ArgumentHelp("Tokens of a document before a continuation.", valueName: "n"))
    var promptTokens = DocumentExamination.Plan().promptTokens
    @Option(help: ArgumentHelp("Tokens of a continuation.", valueName: "n"))
    var newTokens = DocumentExamination.Plan().newTokens
    @OptionGroup var output: UnlearnOutputOptions

    func validate() throws {
        for (name, value) in [("prompt-tokens", promptTokens), ("new-tokens", newTokens)]
        where !(1...1 << 16).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to 65536")
        }
    }

    func run() throws {
        try output.overwriting.check(output.html)
        Interruption.install()
        let folder = subjectOptions.modelOptions.model
        let subjects = try subjectOptions.load(output.common) { tokenizer in
            try forgetting.read(tokenizer, folder: folder, split: .train, perLabel: 100_000)
        }
        let own = subjects.all[0]
        var plan = DocumentExamination.Plan()
        (plan.promptTokens, plan.newTokens) = (promptTokens, newTokens)
        let read = try forgetting.read(own.tokenizer, folder: folder, split: .validation)
        try subjects.requireTokenizer(of: own)
        let documents = try DocumentExamination.Documents(
            forget: read.forget, retain: read.retain, length: own.contextLength)
        try output.examine(
            subjects, count: documents.count,
            title: "What \(own.name) knows of \(forgetting.labels.joined(separator: ", "))",
            definitions: DocumentExamination.definitions,
            corpus: forgetting.documents.corpus.joined(separator: ", ")
        ) { subject, progress in
            try DocumentExamination(documents, plan, of: subject, before: own, progress: progress).measures
        }
    }
}
