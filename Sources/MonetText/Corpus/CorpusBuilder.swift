import Foundation
import MonetFoundation

/// Builds a corpus folder from sources: encodes documents, drops exact duplicates, splits by document.
public struct CorpusBuilder: Sendable {
    /// The tokenizer that encodes documents.
    public var tokenizer: Tokenizer
    /// Share of documents held out, chosen by a hash of their text.
    public var validationShare: Double
    /// The seed that determines which documents are held out.
    public var seed: UInt64
    /// JSONL columns of further sets of labels, beside the sources' own. Each set has the name of its column.
    public var furtherLabelKeys: [String]
    /// The name of the set of the sources' own labels.
    public var labelName: String

    /// What was built.
    public struct Summary: Sendable, Equatable {
        public var documents = 0
        public var duplicates = 0
        public var tokens: [String: Int] = [:]
        public var bytes = 0
        /// What the sources hold and was not read.
        public var skips = SourceSkips()
        /// Documents by label of the first set, in both splits.
        public var labels: [String: Int] = [:]
    }

    /// Settings of a build.
    ///
    /// - `labelKeys`: the names of the sets of labels; the first is that of the sources' labels, the others are
    ///   JSONL columns.
    public init(
        tokenizer: Tokenizer, validationShare: Double = 0.05, seed: UInt64 = 0,
        labelKeys: [String] = ["label"]
    ) {
        self.tokenizer = tokenizer
        self.validationShare = validationShare
        self.seed = seed
        labelName = labelKeys.first ?? "label"
        furtherLabelKeys = Array(labelKeys.dropFirst())
    }

    /// Reads all sources and writes the folder, completely or not at all.
    ///
    /// - `progress`: called periodically with what is done so far.
    public func build(
        _ sources: [CorpusSource], into folder: String, replacing: Bool = false,
        progress: (Summary) -> Void = { _ in }
    ) throws -> Summary {
        let keys = [labelName] + furtherLabelKeys
        guard Set(keys).count == keys.count else {
            throw TextError.malformedCorpus(
                path: folder, reason: "the sets of labels \(keys.joined(separator: ", ")) have equal names")
        }
        var summary = Summary()
        try AtomicFile.writeFolder(folder, replacing: replacing ? CorpusFormat.folder : nil) { temporary in
            var writers: [CorpusSplit: SplitWriter] = [:]
            for split in CorpusSplit.allCases {
                writers[split] = SplitWriter(
                    split: split, folder: temporary, wide: tokenizer.vocabularySize > 1 << 16)
            }
            var sets = keys.map { LabelNumbers(name: $0) }
            var seen: Set<TextDigest> = []
            var found: Set<String> = []
            var batch: [Document] = []
            var batchBytes = 0

            func flush() throws {
                let encoded = encode(batch)
                for (document, ids) in zip(batch, encoded) {
                    let ids = try ids.get()
                    for key in keys where document.columns?[key] != nil { found.insert(key) }
                    let further = furtherLabelKeys.map { document.columns?[$0]?.label }
                    let labels = ([document.label] + further).enumerated().map { set, label in
                        label.map { sets[set].number(of: $0) } ?? CorpusFormat.noLabel
                    }
                    let split = split(of: document.text)
                    try writers[split]?.append(ids, labels: labels)
                    summary.documents += 1
                    summary.bytes += document.text.utf8.count
                    summary.tokens[split.rawValue, default: 0] += ids.count
                    summary.labels[document.label, default: 0] += 1
                }
                batch.removeAll(keepingCapacity: true)
                batchBytes = 0
                progress(summary)
            }

            for source in sources {
                summary.skips += try source.forEachDocument { document in
                    guard seen.insert(TextDigest(document.text)).inserted else {
                        summary.duplicates += 1
                        return
                    }
                    batch.append(document)
                    batchBytes += document.text.utf8.count
                    if batchBytes > 4 << 20 || batch.count >= 4096 { try flush() }
                }
            }
            try flush()
            guard summary.documents > 0 else {
                throw TextError.malformedCorpus(
                    path: sources.map(\.path).joined(separator: ", "), reason: "no text was found")
            }
            // Labels may all come from names of files; another key was meant to be in the data.
            for key in keys where key != "label" && !found.contains(key) {
                throw TextError.malformedCorpus(
                    path: sources.map(\.path).joined(separator: ", "),
                    reason: "no document has the label column \"\(key)\"")
            }
            var splits: [JSONValue.Member] = []
            for split in CorpusSplit.allCases {
                if let entry = try writers[split]?.finish() { splits.append(.init(split.rawValue, entry)) }
            }
            let model = try MappedFile(path: tokenizer.path)
            try AtomicFile.write(to: temporary + "/tokenizer.model") { try $0.write(model.bytes) }
            let description: JSONValue = [
                "version": .integer(CorpusFormat.version), "vocab_size": .integer(tokenizer.vocabularySize),
                "token_bytes": .integer(tokenizer.vocabularySize > 1 << 16 ? 4 : 2),
                "text_bytes": .integer(summary.bytes), "label_sets": .array(sets.map(\.json)),
                "splits": .object(splits),
            ]
            try AtomicFile.write(
                description.serialized(pretty: true) + "\n", to: temporary + "/" + CorpusFormat.description)
        }
        return summary
    }

    /// Encodes documents on all processors, each as a begin token, its text and an end token.
    private func encode(_ documents: [Document]) -> [Result<[Int32], any Error>] {
        nonisolated(unsafe) let results = UnsafeMutableBufferPointer<Result<[Int32], any Error>>.allocate(
            capacity: documents.count)
        defer {
            results.deinitialize()
            results.deallocate()
        }
        ParallelLoop.run(documents.count) { index in
            let result = Result {
                try tokenizer.encode(documents[index].text, addBegin: true)
                    + (tokenizer.endID.map { [$0] } ?? [])
            }
            results.initializeElement(at: index, to: result)
        }
        return Array(results)
    }

    /// The split of a document: the same in every build, whatever else the corpus contains.
    private func split(of text: String) -> CorpusSplit {
        var generator = SplitMix64(seed: StableHash.of(text) ^ seed)
        return generator.nextUnit() < validationShare ? .validation : .train
    }
}

/// The labels of a set in the order in which they are found.
private struct LabelNumbers {
    let name: String
    private var numbers: [String: UInt32] = [:]
    private var labels: [String] = []

    init(name: String) { self.name = name }

    mutating func number(of label: String) -> UInt32 {
        if let known = numbers[label] { return known }
        let number = UInt32(labels.count)
        numbers[label] = number
        labels.append(label)
        return number
    }

    var json: JSONValue { ["name": .string(name), "labels": .array(labels.map { .string($0) })] }
}

/// A 128-bit hash of a text, to find exact duplicates.
private struct TextDigest: Hashable {
    private let low: UInt64
    private let high: UInt64

    init(_ text: String) {
        low = StableHash.of(text)
        var other: UInt64 = 0x9ae1_6a3b_2f90_404f
        for byte in text.utf8 { other = (other &+ UInt64(byte)) &* 0x9e37_79b9_7f4a_7c15 ^ (other >> 29) }
        high = other
    }
}

/// Writes the shards of one split.
private final class SplitWriter {
    private let split: CorpusSplit
    private let folder: String
    private let wide: Bool
    private var tokens: FileWriter?
    private var records: FileWriter?
    private var shards: [JSONValue] = []
    private var shardTokens = 0
    private var shardDocuments = 0

    init(split: CorpusSplit, folder: String, wide: Bool) {
        self.split = split
        self.folder = folder
        self.wide = wide
    }

    func append(_ ids: [Int32], labels: [UInt32]) throws {
        if tokens == nil || shardTokens + ids.count > CorpusFormat.shardTokens {
            try closeShard()
            let base = folder + "/" + CorpusFormat.shardName(split, shards.count)
            tokens = try FileWriter(path: base + ".tokens")
            records = try FileWriter(path: base + ".documents")
        }
        var record: [UInt8] = []
        withUnsafeBytes(of: UInt64(shardTokens).littleEndian) { record += $0 }
        withUnsafeBytes(of: UInt32(ids.count).littleEndian) { record += $0 }
        for label in labels { withUnsafeBytes(of: label.littleEndian) { record += $0 } }
        try records?.write(record)
        if wide {
            try ids.map { UInt32(bitPattern: $0).littleEndian }.withUnsafeBytes { try tokens?.write($0) }
        } else {
            try ids.map { UInt16(truncatingIfNeeded: $0).littleEndian }.withUnsafeBytes {
                try tokens?.write($0)
            }
        }
        shardTokens += ids.count
        shardDocuments += 1
    }

    private func closeShard() throws {
        guard let tokens, let records else { return }
        try tokens.finish()
        try records.finish()
        shards.append([
            "name": .string(CorpusFormat.shardName(split, shards.count)), "tokens": .integer(shardTokens),
            "documents": .integer(shardDocuments),
        ])
        self.tokens = nil
        self.records = nil
        shardTokens = 0
        shardDocuments = 0
    }

    func finish() throws -> JSONValue? {
        try closeShard()
        return shards.isEmpty ? nil : .array(shards)
    }
}
