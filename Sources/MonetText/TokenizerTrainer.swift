import CSentencePiece
import Foundation
import MonetFoundation

/// Trains SentencePiece tokenizers: byte-pair encoding with byte fallback, with Llama's settings.
public enum TokenizerTrainer {
    /// Trains a model of `vocabularySize` pieces and returns its bytes.
    ///
    /// - Throws: `TextError.tokenizerTraining`.
    public static func train(
        sentences: [String], vocabularySize: Int, threads: Int, characterCoverage: Double = 0.9995
    ) throws -> [UInt8] {
        guard sentences.contains(where: { !$0.isEmpty }) else {
            throw TextError.tokenizerTraining(reason: "the text is empty")
        }
        guard vocabularySize >= 300, vocabularySize <= 1 << 20 else {
            throw TextError.tokenizerTraining(
                reason:
                    "a vocabulary of \(vocabularySize); with 256 bytes and the special tokens it needs 300 or more"
            )
        }
        let settings = [
            "model_type=bpe", "vocab_size=\(vocabularySize)", "byte_fallback=true",
            "character_coverage=\(characterCoverage)", "split_digits=true",
            "normalization_rule_name=identity",
            "allow_whitespace_only_pieces=true", "remove_extra_whitespaces=false",
            "max_sentence_length=100000",
            "unk_id=0", "bos_id=1", "eos_id=2", "pad_id=-1", "num_threads=\(threads)", "minloglevel=2",
        ]
        let options = settings.map { strdup($0) }
        defer { for option in options { free(option) } }
        var copies: [UnsafeMutablePointer<CChar>?] = []
        var counts: [Int] = []
        defer { for copy in copies { free(copy) } }
        for sentence in sentences where !sentence.isEmpty {
            // SentencePiece treats a NUL as the end of a line.
            let clean =
                sentence.contains("\0") ? sentence.replacingOccurrences(of: "\0", with: " ") : sentence
            copies.append(strdup(clean))
            counts.append(clean.utf8.count)
        }
        var out: UnsafeMutablePointer<CChar>?
        var message: UnsafeMutablePointer<CChar>?
        let pointers = copies.map { $0.map { UnsafePointer($0) } }
        let count = monet_sp_train(
            options.map { $0.map { UnsafePointer($0) } }, options.count, pointers, counts, pointers.count,
            &out, &message)
        guard count > 0, let out else { throw TextError.tokenizerTraining(reason: takeMessage(message)) }
        defer { monet_sp_free(out) }
        return UnsafeRawBufferPointer(start: out, count: Int(count)).map { $0 }
    }
}
