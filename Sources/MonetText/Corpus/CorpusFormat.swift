import Foundation
import MonetFoundation

/// The parts of a corpus folder.
///
/// `corpus.json` describes it; `tokenizer.model` encoded it; each split has shards of two files:
/// `train-00000.tokens` (ids, little-endian, 16 or 32 bits) and `train-00000.documents` (one record per document:
/// first token u64, token count u32, and a label u32 for each set of labels, `noLabel` if it has none).
enum CorpusFormat {
    /// Version 1 has one set of labels, without a name.
    static let version = 2
    static let description = "corpus.json"
    static let noLabel = UInt32.max

    /// Bytes of a document's record.
    static func recordSize(labelSets: Int) -> Int { 12 + 4 * labelSets }

    /// What a folder holds that a new corpus may replace.
    static let folder = FolderKind(name: "corpus folder", mark: description) { name in
        [description, "tokenizer.model"].contains(name) || name.hasSuffix(".tokens")
            || name.hasSuffix(".documents")
    }
    /// Maximum number of tokens in a shard.
    static let shardTokens = 1 << 28

    static func shardName(_ split: CorpusSplit, _ index: Int) -> String {
        String(format: "%@-%05d", split.rawValue, index)
    }
}

/// A part of a corpus.
public enum CorpusSplit: String, Sendable, CaseIterable {
    case train
    case validation
}
