import Foundation
import MonetFoundation

/// The parts of a corpus folder.
///
/// `corpus.json` describes it; `tokenizer.model` encoded it; each split has shards of two files:
/// `train-00000.tokens` (ids, little-endian, 16 or 32 bits) and `train-00000.documents` (one
/// record of 16 bytes per document: first token u64, token count u32, label u32).
enum CorpusFormat {
    static let version = 1
    static let description = "corpus.json"
    static let recordSize = 16
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
