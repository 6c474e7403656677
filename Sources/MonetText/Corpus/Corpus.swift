import Foundation
import MonetFoundation

/// A corpus folder: mapped token shards with labelled documents.
///
///     let corpus = try Corpus(folder: "corpora/demo")
///     let tokens = corpus.tokens(in: .train, 0..<1024)
public struct Corpus: Sendable {
    /// The folder.
    public let folder: String
    /// Vocabulary size of the tokenizer that encoded it.
    public let vocabularySize: Int
    /// The sets of labels, one or more, such as topics and languages.
    public let labelSets: [LabelSet]
    /// Bytes of text before encoding.
    public let textBytes: Int
    private let shards: [CorpusSplit: [Shard]]

    private struct Shard: Sendable {
        let tokens: MappedFile
        let documents: MappedFile
        /// Number of tokens in the split's earlier shards.
        let start: Int
        let count: Int
        let tokenBytes: Int

        func token(_ index: Int) -> Int32 {
            tokenBytes == 2
                ? Int32(
                    UInt16(
                        littleEndian: tokens.bytes.loadUnaligned(fromByteOffset: 2 * index, as: UInt16.self)))
                : Int32(
                    bitPattern: UInt32(
                        littleEndian: tokens.bytes.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self)))
        }
    }

    /// A set of labels, of which a document has at most one.
    public struct LabelSet: Sendable, Equatable {
        /// The name, by default `label`.
        public let name: String
        /// Labels by index.
        public let labels: [String]
    }

    /// One document's range of tokens in its split.
    public struct DocumentRange: Sendable, Equatable {
        /// Tokens, counted from the split's start.
        public let tokens: Range<Int>
        /// Index of its label in each set, negative if it has none.
        public let labels: [Int]
    }

    /// Opens and checks a folder.
    ///
    /// - Throws: `FileError`, `TextError.malformedCorpus`.
    public init(folder: String) throws {
        let path = folder + "/" + CorpusFormat.description
        func fail(_ reason: String) -> TextError { .malformedCorpus(path: path, reason: reason) }
        let json = try JSONValue(contentsOfFile: path)
        let version = json["version"]?.intValue ?? 0
        guard (1...CorpusFormat.version).contains(version) else {
            throw fail(
                "version \(json["version"]?.serialized() ?? "absent"), expected 1 to \(CorpusFormat.version)")
        }
        guard let vocabularySize = json["vocab_size"]?.intValue, vocabularySize > 0,
            let tokenBytes = json["token_bytes"]?.intValue,
            tokenBytes == 2 || tokenBytes == 4,
            let sets = Self.labelSets(json, version: version),
            let splits = json["splits"]?.members
        else { throw fail("vocab_size, token_bytes, labels or splits are missing") }
        for names in [sets.map(\.name)] + sets.map(\.labels) where Set(names).count != names.count {
            throw fail("a label or a set of labels occurs twice")
        }
        let recordSize = CorpusFormat.recordSize(labelSets: sets.count)
        guard tokenBytes == 4 || vocabularySize <= 1 << 16 else {
            throw fail("vocab_size \(vocabularySize), of which 2 bytes for each token hold 65536")
        }
        let tokenizer = folder + "/tokenizer.model"
        if FileManager.default.fileExists(atPath: tokenizer) {
            // Checkpoints add a few tokens of their own to the pieces.
            let pieces = try Tokenizer(path: tokenizer).pieceCount
            guard (pieces...(pieces + 1 << 16)).contains(vocabularySize) else {
                throw fail("vocab_size \(vocabularySize), and its tokenizer has \(pieces) pieces")
            }
        }
        self.folder = folder
        self.vocabularySize = vocabularySize
        labelSets = sets
        textBytes = json["text_bytes"]?.intValue ?? 0
        var shards: [CorpusSplit: [Shard]] = [:]
        for member in splits {
            guard let split = CorpusSplit(rawValue: member.key), let entries = member.value.arrayValue else {
                throw fail("unknown split \"\(member.key)\"")
            }
            var start = 0
            for entry in entries {
                guard let name = entry["name"]?.stringValue, !name.contains("/"),
                    let count = entry["tokens"]?.intValue,
                    let documentCount = entry["documents"]?.intValue, count >= 0, count < 1 << 40,
                    documentCount >= 0, documentCount < 1 << 40
                else { throw fail("an entry of \"\(member.key)\" is not a shard") }
                let tokens = try MappedFile(path: folder + "/" + name + ".tokens")
                let documents = try MappedFile(path: folder + "/" + name + ".documents")
                guard tokens.bytes.count == count * tokenBytes,
                    documents.bytes.count == documentCount * recordSize
                else {
                    throw TextError.malformedCorpus(
                        path: tokens.path, reason: "its size differs from what corpus.json says")
                }
                let shard = Shard(
                    tokens: tokens, documents: documents, start: start, count: count, tokenBytes: tokenBytes)
                shards[split, default: []].append(shard)
                start += count
            }
        }
        self.shards = shards
    }

    private static func labelSets(_ json: JSONValue, version: Int) -> [LabelSet]? {
        func labels(_ json: JSONValue) -> [String]? {
            guard let values = json["labels"]?.arrayValue else { return nil }
            let labels = values.compactMap(\.stringValue)
            return labels.count == values.count ? labels : nil
        }
        if version == 1 { return labels(json).map { [LabelSet(name: "label", labels: $0)] } }
        guard let entries = json["label_sets"]?.arrayValue, !entries.isEmpty else { return nil }
        let sets = entries.compactMap { entry in
            entry["name"]?.stringValue.flatMap { name in
                labels(entry).map { LabelSet(name: name, labels: $0) }
            }
        }
        return sets.count == entries.count ? sets : nil
    }

    /// A checksum of the numbers of tokens and of a thousand tokens of each split: texts in another order have others.
    var fingerprint: String {
        var sum = Checksum()
        for split in [CorpusSplit.train, .validation] {
            let count = tokenCount(split)
            let places = Swift.min(1024, count)
            let sample =
                [Int32(truncatingIfNeeded: count)]
                + (0..<places).flatMap { place in
                    tokens(in: split, (place * count / places)..<(place * count / places + 1))
                }
            sample.withUnsafeBytes { sum.update($0) }
        }
        return sum.text
    }

    /// The number of tokens in a split.
    public func tokenCount(_ split: CorpusSplit) -> Int { shards[split]?.reduce(0) { $0 + $1.count } ?? 0 }

    /// Token ids `range` of a split, which must lie inside it.
    public func tokens(in split: CorpusSplit, _ range: Range<Int>) -> [Int32] {
        var result: [Int32] = []
        result.reserveCapacity(range.count)
        for shard in shards[split] ?? [] {
            let low = max(range.lowerBound, shard.start)
            let high = min(range.upperBound, shard.start + shard.count)
            if low < high { for index in low..<high { result.append(shard.token(index - shard.start)) } }
        }
        return result
    }

    /// The documents of a split, in the order of their tokens.
    ///
    /// - Throws: `TextError.malformedCorpus` for records outside the shard or unknown labels.
    public func documents(in split: CorpusSplit) throws -> [DocumentRange] {
        let recordSize = CorpusFormat.recordSize(labelSets: labelSets.count)
        var result: [DocumentRange] = []
        for shard in shards[split] ?? [] {
            for offset in stride(from: 0, to: shard.documents.bytes.count, by: recordSize) {
                let bytes = shard.documents.bytes
                func word(_ place: Int) -> UInt32 {
                    UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: offset + place, as: UInt32.self))
                }
                let start = UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
                let count = word(8)
                let labels = labelSets.indices.map { set -> Int? in
                    let label = word(12 + 4 * set)
                    if label == CorpusFormat.noLabel { return -1 }
                    return Int(label) < labelSets[set].labels.count ? Int(label) : nil
                }
                let known = labels.compactMap(\.self)
                guard start <= UInt64(shard.count), Int(start) + Int(count) <= shard.count,
                    known.count == labels.count
                else {
                    throw TextError.malformedCorpus(
                        path: shard.documents.path, reason: "record \(offset / recordSize) is out of range")
                }
                let first = shard.start + Int(start)
                result.append(DocumentRange(tokens: first..<(first + Int(count)), labels: known))
            }
        }
        return result
    }
}
