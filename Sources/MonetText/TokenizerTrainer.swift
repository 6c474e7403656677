import CSentencePiece
import Foundation
import MonetFoundation

/// Trains SentencePiece tokenizers: byte-pair encoding with byte fallback, with Llama's settings.
public enum TokenizerTrainer {
    /// A line in parts that SentencePiece takes: it leaves out longer lines, and fails on longer words.
    static func parts(_ line: String) -> [Substring] {
        guard line.utf8.count > longest else { return [line[...]] }
        var parts: [Substring] = []
        var rest = line[...]
        while rest.utf8.count > longest {
            let limit = rest.utf8.index(rest.startIndex, offsetBy: longest)
            // The last space of the part, or else the last whole character.
            let end = rest[..<limit.roundedDown(in: rest)].lastIndex(of: " ") ?? limit.roundedDown(in: rest)
            let cut = end > rest.startIndex ? end : rest.index(after: rest.startIndex)
            parts.append(rest[..<cut])
            rest = rest[cut...]
        }
        return parts + [rest]
    }

    /// Bytes of the longest line and word.
    private static let longest = 16_000

    /// SentencePiece's message in this package's words.
    private static func reason(_ message: String) -> String {
        func numbers(_ pattern: Regex<(Substring, Substring, Substring)>) -> (String, String)? {
            message.firstMatch(of: pattern).map { (String($0.output.1), String($0.output.2)) }
        }
        if let (asked, most) = numbers(#/size too high \((\d+)\)\. Please set it to a value <= (\d+)/#) {
            return "the text yields at most \(most) pieces, fewer than the \(asked) asked for"
        }
        if let (asked, needed) = numbers(#/smaller than required_chars\. (\d+) vs (\d+)/#) {
            return
                "the text has \(needed) different characters and bytes, more than the \(asked) pieces asked for"
        }
        if message.contains("sentences_.empty()") { return "there is no text" }
        // "Internal: src/file.cc(123) [condition] text"
        let text = message.split(separator: "] ").last.map(String.init) ?? message
        return text.isEmpty ? "it does not say why" : text
    }

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
        for sentence in sentences.flatMap(Self.parts) where !sentence.isEmpty {
            // SentencePiece treats a NUL as the end of a line.
            let clean =
                sentence.contains("\0")
                ? sentence.replacingOccurrences(of: "\0", with: " ") : String(sentence)
            copies.append(strdup(clean))
            counts.append(clean.utf8.count)
        }
        var out: UnsafeMutablePointer<CChar>?
        var message: UnsafeMutablePointer<CChar>?
        let pointers = copies.map { $0.map { UnsafePointer($0) } }
        let count = monet_sp_train(
            options.map { $0.map { UnsafePointer($0) } }, options.count, pointers, counts, pointers.count,
            &out, &message)
        guard count > 0, let out else {
            throw TextError.tokenizerTraining(reason: Self.reason(takeMessage(message)))
        }
        defer { monet_sp_free(out) }
        return UnsafeRawBufferPointer(start: out, count: Int(count)).map { $0 }
    }
}

extension String.Index {
    /// The nearest character's beginning at or before a byte's place.
    fileprivate func roundedDown(in text: Substring) -> String.Index {
        var index = self
        // Bytes 10xxxxxx continue a character.
        while index > text.startIndex, text.utf8[index] & 0xc0 == 0x80 {
            index = text.utf8.index(before: index)
        }
        return index
    }
}
