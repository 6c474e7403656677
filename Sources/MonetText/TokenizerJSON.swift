import Foundation
import MonetFoundation

/// The `tokenizer.json` of Hugging Face's `tokenizers` that encodes as a SentencePiece model does.
///
/// Newer versions of transformers no longer run SentencePiece, and their own conversion treats spaces at the
/// beginning of a text otherwise.
enum TokenizerJSON {
    /// The file's content; nil if the model's algorithm or normalization is another one than byte-pair encoding of
    /// the text as it is.
    static func make(_ tokenizer: Tokenizer) throws -> JSONValue? {
        let file = try MappedFile(path: tokenizer.path)
        guard
            let model = withExtendedLifetime(file, { SentencePieceModel(file.bytes) }),
            model.isBytePair, model.fallsBackToBytes, model.keepsText,
            let unknown = try tokenizer.unknownID.map(tokenizer.piece),
            let begin = try tokenizer.beginID.map(tokenizer.piece), let beginID = tokenizer.beginID
        else { return nil }
        let pieces = try (0..<Int32(tokenizer.pieceCount)).map { try tokenizer.piece($0) }
        // By bytes: texts that differ in Unicode's composition only are different pieces.
        let ids = Dictionary(
            zip(pieces.map { Array($0.utf8) }, pieces.indices), uniquingKeysWith: { first, _ in first })
        guard ids.count == pieces.count, model.scores.count == pieces.count else { return nil }
        let special = try (0..<Int32(pieces.count)).filter {
            [.control, .unknown].contains(try tokenizer.kind($0))
        }
        return [
            "version": "1.0", "truncation": .null, "padding": .null,
            "added_tokens": .array(
                special.map {
                    [
                        "id": .integer(Int($0)), "content": .string(pieces[Int($0)]), "single_word": false,
                        "lstrip": false, "rstrip": false, "normalized": false, "special": true,
                    ]
                }),
            "normalizer": [
                "type": "Sequence",
                "normalizers": [
                    ["type": "Prepend", "prepend": "\u{2581}"],
                    ["type": "Replace", "pattern": ["String": " "], "content": "\u{2581}"],
                ],
            ],
            "pre_tokenizer": .null,
            "post_processor": [
                "type": "TemplateProcessing",
                "single": [
                    ["SpecialToken": ["id": .string(begin), "type_id": 0]],
                    ["Sequence": ["id": "A", "type_id": 0]],
                ],
                "pair": [
                    ["SpecialToken": ["id": .string(begin), "type_id": 0]],
                    ["Sequence": ["id": "A", "type_id": 0]],
                    ["SpecialToken": ["id": .string(begin), "type_id": 1]],
                    ["Sequence": ["id": "B", "type_id": 1]],
                ],
                "special_tokens": .object([
                    .init(
                        begin,
                        [
                            "id": .string(begin), "ids": [.integer(Int(beginID))],
                            "tokens": [.string(begin)],
                        ])
                ]),
            ],
            "decoder": [
                "type": "Sequence",
                "decoders": [
                    ["type": "Replace", "pattern": ["String": "\u{2581}"], "content": " "],
                    ["type": "ByteFallback"], ["type": "Fuse"],
                    ["type": "Strip", "content": " ", "start": 1, "stop": 0],
                ],
            ],
            "model": [
                "type": "BPE", "dropout": .null, "unk_token": .string(unknown),
                "continuing_subword_prefix": .null, "end_of_word_suffix": .null, "fuse_unk": true,
                "byte_fallback": true, "ignore_merges": false,
                "vocab": .object(pieces.enumerated().map { .init($1, .integer($0)) }),
                "merges": .array(merges(pieces, ids, model.scores).map { .string($0 + " " + $1) }),
            ],
        ]
    }

    /// Every way to join two pieces to a third, in the order in which SentencePiece prefers the results.
    private static func merges(
        _ pieces: [String], _ ids: [[UInt8]: Int], _ scores: [Float]
    ) -> [(String, String)] {
        // Mostly the order of ids, but runs of spaces stand at the front of Llama's and come last.
        let order = pieces.indices.sorted { (scores[$1], $0) < (scores[$0], $1) }
        return order.flatMap { id -> [(String, String)] in
            let bytes = Array(pieces[id].utf8)
            let ways = (1..<max(1, bytes.count)).compactMap { cut -> (left: Int, right: Int)? in
                guard let left = ids[Array(bytes[..<cut])], let right = ids[Array(bytes[cut...])] else {
                    return nil
                }
                return (left, right)
            }
            return ways.sorted { ($0.left, $0.right) < ($1.left, $1.right) }
                .map { (pieces[$0.left], pieces[$0.right]) }
        }
    }
}
