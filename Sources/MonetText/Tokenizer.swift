import CSentencePiece
import Foundation
import MonetFoundation
import Synchronization

/// A SentencePiece tokenizer with the special tokens of a checkpoint.
///
///     let tokenizer = try Tokenizer(folder: "checkpoints/monet")
///     let ids = try tokenizer.encode("The answer", addBegin: true)
///     print(try tokenizer.decode(ids))
public final class Tokenizer: @unchecked Sendable {
    // The processor is immutable after loading; SentencePiece's methods on it are const.
    private let processor: OpaquePointer
    /// Where the model was read from.
    public let path: String
    /// Number of pieces of the SentencePiece model.
    public let pieceCount: Int
    /// Number of tokens with those that the checkpoint adds.
    public let vocabularySize: Int
    /// Number of ids that can be decoded: a model may have more than its tokenizer has tokens.
    private let idCount: Int
    /// Id of the token that begins a text, if there is one.
    public let beginID: Int32?
    /// Id of the token that ends a text.
    public let endID: Int32?
    /// Id of the unknown piece.
    public let unknownID: Int32?
    /// Whether prompts start with the begin token.
    public let addsBegin: Bool
    /// Tokens that are recognized inside prompts, by their text, with their ids.
    public let specialTokens: [String: Int32]
    /// The text of tokens with a part, under the names that chat templates use: `bos_token`, `pad_token`. A part
    /// without a token is absent, as in transformers, so that a template finds it undefined.
    public let specialTokenTexts: [String: String]
    /// The chat template's source.
    public let chatTemplate: String?
    /// The file that holds the template, or should.
    public let chatTemplatePath: String
    /// Tokens that the checkpoint adds to the pieces, or marks among them.
    private let added: [Int32: AddedToken]
    /// Whether a text after a special token gets SentencePiece's leading space.
    private let addsSpaceAfterSpecial: Bool
    /// Bytes of the longest piece, of which a text's tokens have at most this many.
    private let longest = Mutex<Int?>(nil)
    /// Whether words can be encoded separately; nil until a long text asks.
    private let separateWords = Mutex<Bool?>(nil)

    /// Kinds of pieces.
    public enum PieceKind: Int32, Sendable {
        case normal = 0
        case unknown
        case control
        case byte
        case unused
    }

    /// Reads `tokenizer.model` of a checkpoint folder, and what the files beside it say of special and added
    /// tokens and of the chat template.
    ///
    /// - Throws: `FileError`, `TextError`.
    public convenience init(folder: String) throws {
        try self.init(path: folder + "/tokenizer.model", TokenizerSettings(folder: folder))
    }

    /// Reads a SentencePiece model.
    ///
    /// - Throws: `FileError.unreadable`, `TextError.malformedTokenizer`.
    public convenience init(path: String) throws { try self.init(path: path, TokenizerSettings()) }

    private init(path: String, _ settings: TokenizerSettings) throws {
        let file = try MappedFile(path: path)
        guard !file.bytes.isEmpty else {
            throw TextError.malformedTokenizer(path: path, reason: "the file is empty")
        }
        var message: UnsafeMutablePointer<CChar>?
        let base = file.bytes.bindMemory(to: CChar.self).baseAddress
        let loaded = withExtendedLifetime(file) { monet_sp_load(base, file.bytes.count, &message) }
        guard let processor = loaded else {
            _ = takeMessage(message)
            throw TextError.malformedTokenizer(path: path, reason: "its content cannot be parsed")
        }
        func known(_ id: Int32) -> Int32? { id >= 0 ? id : nil }
        self.path = path
        self.processor = processor
        let pieceCount = Int(monet_sp_vocabulary_size(processor))
        self.pieceCount = pieceCount
        added = settings.added
        let most = settings.added.keys.max().map { Int($0) + 1 } ?? 0
        vocabularySize = max(pieceCount, most)
        idCount = max(vocabularySize, settings.modelVocabularySize)
        func text(of id: Int32) -> String? {
            if let token = settings.added[id] { return token.text }
            var count = 0
            return monet_sp_piece(processor, id, &count).map {
                String(decoding: UnsafeRawBufferPointer(start: $0, count: count), as: UTF8.self)
            }
        }
        func id(of text: String) -> Int32? {
            if let token = settings.added.values.first(where: { $0.text == text }) { return token.id }
            var text = text
            let found = text.withUTF8 { bytes in
                bytes.withMemoryRebound(to: CChar.self) {
                    monet_sp_id_of_piece(processor, $0.baseAddress, $0.count)
                }
            }
            var count = 0
            guard found >= 0, let bytes = monet_sp_piece(processor, found, &count),
                String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self) == text
            else { return nil }
            return found
        }
        // A checkpoint may name other tokens for the parts than the pieces that SentencePiece knows for them.
        var texts = settings.special.compactMapValues { $0 }
        func part(_ role: String, _ own: Int32) -> Int32? {
            if let named = settings.special[role] { return named.flatMap { id(of: $0) } }
            texts[role] = known(own).flatMap(text)
            return known(own)
        }
        beginID = part("bos_token", monet_sp_begin_id(processor))
        endID = part("eos_token", monet_sp_end_id(processor))
        unknownID = part("unk_token", monet_sp_unknown_id(processor))
        _ = part("pad_token", monet_sp_pad_id(processor))
        specialTokenTexts = texts
        addsBegin = settings.addsBegin
        addsSpaceAfterSpecial = settings.addsSpaceAfterSpecial
        (chatTemplate, chatTemplatePath) = (settings.template, settings.templatePath)
        var special = Dictionary(
            settings.added.values.map { ($0.text, $0.id) }, uniquingKeysWith: { min($0, $1) })
        for own in [
            monet_sp_begin_id(processor), monet_sp_end_id(processor), monet_sp_unknown_id(processor),
        ] {
            if let id = known(own), let text = text(of: id), special[text] == nil { special[text] = id }
        }
        specialTokens = special
    }

    deinit { monet_sp_destroy(processor) }

    /// Whether a token takes the white space before and after it.
    func strips(_ id: Int32) -> (left: Bool, right: Bool) {
        (added[id]?.stripsLeft ?? false, added[id]?.stripsRight ?? false)
    }

    /// Whether a byte is white space that tokens take.
    static func isStripped(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0a, 0x0d].contains(byte) }

    // MARK: Encoding

    /// The ids of a text, as SentencePiece encodes it.
    ///
    /// - `addBegin`: whether the begin token comes first.
    /// - `parsingSpecial`: whether the text of special tokens, such as `</s>`, is encoded as these tokens. Added
    ///   tokens that are not special always are.
    public func encode(_ text: String, addBegin: Bool = false, parsingSpecial: Bool = false) throws -> [Int32]
    {
        var ids: [Int32] = addBegin ? beginID.map { [$0] } ?? [] : []
        let tokens = matchable(special: parsingSpecial)
        guard !tokens.isEmpty else { return ids + (try encodePlain(text)) }
        var isFirst = true
        for segment in segments(text, at: tokens) {
            switch segment {
            case .special(let id):
                // A template that writes the begin token itself must not get a second one.
                if !(id == beginID && ids == [id] && addBegin) { ids.append(id) }
            case .text(let part):
                if isFirst || addsSpaceAfterSpecial {
                    ids += try encodePlain(part)
                } else {
                    ids += try encodeWithoutLeadingSpace(part)
                }
            }
            isFirst = false
        }
        return ids
    }

    private func encodePlain(_ text: String) throws -> [Int32] {
        try encodePlain(text, partBytes: Self.partBytes)
    }

    /// Long texts are encoded in parts: SentencePiece takes some 250 bytes of memory for each byte of a text.
    private static let partBytes = 1 << 20
    private static let memoryPerByte = 250

    /// The ids of a text without special tokens, the same for every size of parts.
    package func encodePlain(_ text: String, partBytes: Int) throws -> [Int32] {
        guard text.utf8.count > partBytes else { return try encodeWhole(text[...]) }
        guard encodesWordsSeparately() else {
            try require(text.utf8.count)
            return try encodeWhole(text[...])
        }
        var ids: [Int32] = []
        var rest = text[...]
        while rest.utf8.count > partBytes {
            let limit = rest.utf8.index(rest.startIndex, offsetBy: partBytes)
            // A part may be longer where no words end, and the text must then fit into memory as it is.
            let cut = Self.wordEnd(in: rest, before: limit) ?? Self.wordEnd(in: rest, from: limit)
            guard let cut else { break }
            let part = rest[..<cut]
            try require(part.utf8.count)
            ids += try encodeWhole(part)
            // The space is the one that SentencePiece puts before the next part.
            rest = rest[rest.utf8.index(after: cut)...]
        }
        try require(rest.utf8.count)
        return ids + (try encodeWhole(rest))
    }

    private func require(_ bytes: Int) throws {
        try MemoryLimits.require(
            MemoryLimits.product(bytes, Self.memoryPerByte), for: "encoding a text of \(bytes.byteText)")
        guard bytes < Int(Int32.max) else {
            throw TextError.tokenizerFailure(reason: "a word of \(bytes.byteText) is too long")
        }
    }

    /// Whether no piece reaches across the space between two words, and a text gets one in front.
    private func encodesWordsSeparately() -> Bool {
        separateWords.withLock { known in
            if let known { return known }
            let spansWords = (0..<Int32(pieceCount)).contains { id in
                guard let piece = try? piece(id) else { return true }
                return piece.drop { $0 == "\u{2581}" }.contains("\u{2581}")
            }
            let joins =
                (try? encodeWhole("a b")).map { $0 == (try? encodeWhole("a") + encodeWhole("b")) } ?? false
            known = !spansWords && joins
            return known ?? false
        }
    }

    /// The last single space between two letters or digits of ASCII before a place.
    private static func wordEnd(in text: Substring, before limit: String.Index) -> String.Index? {
        var place = limit
        while place > text.startIndex {
            place = text.utf8.index(before: place)
            if isWordEnd(place, text) { return place }
        }
        return nil
    }

    /// The first from a place on.
    private static func wordEnd(in text: Substring, from start: String.Index) -> String.Index? {
        var place = start
        while place < text.endIndex {
            if isWordEnd(place, text) { return place }
            place = text.utf8.index(after: place)
        }
        return nil
    }

    private static func isWordEnd(_ place: String.Index, _ text: Substring) -> Bool {
        let bytes = text.utf8
        guard bytes[place] == UInt8(ascii: " "), place > text.startIndex else { return false }
        let next = bytes.index(after: place)
        func isWord(_ byte: UInt8) -> Bool {
            (0x30...0x39).contains(byte) || (0x61...0x7a).contains(byte | 0x20)
        }
        return next < text.endIndex && isWord(bytes[bytes.index(before: place)]) && isWord(bytes[next])
    }

    private func encodeWhole(_ text: Substring) throws -> [Int32] {
        var text = String(text)
        return try text.withUTF8 { bytes in
            var out: UnsafeMutablePointer<Int32>?
            var message: UnsafeMutablePointer<CChar>?
            let count = bytes.withMemoryRebound(to: CChar.self) {
                monet_sp_encode(processor, $0.baseAddress, $0.count, &out, &message)
            }
            guard count >= 0, let out else { throw TextError.tokenizerFailure(reason: takeMessage(message)) }
            defer { monet_sp_free(out) }
            return Array(UnsafeBufferPointer(start: out, count: Int(count)))
        }
    }

    /// Encodes the text after a marker and drops the marker's ids, as Hugging Face's Llama tokenizer does.
    private func encodeWithoutLeadingSpace(_ text: String) throws -> [Int32] {
        let marker = "<unk>"
        return Array(try encodePlain(marker + text).dropFirst(try encodePlain(marker).count))
    }

    private enum Segment {
        case text(String)
        case special(Int32)
    }

    /// The tokens whose text is looked for, the longest first.
    private func matchable(special: Bool) -> [(text: [UInt8], token: AddedToken)] {
        specialTokens.compactMap { text, id -> (text: [UInt8], token: AddedToken)? in
            let token =
                added[id]
                ?? AddedToken(id: id, text: text, isSpecial: true, stripsLeft: false, stripsRight: false)
            return special || !token.isSpecial ? (Array(text.utf8), token) : nil
        }
        .sorted { $0.text.count > $1.text.count }
    }

    /// Splits at tokens, preferring the longest at each position.
    private func segments(_ text: String, at tokens: [(text: [UInt8], token: AddedToken)]) -> [Segment] {
        let starts = Set(tokens.map { $0.text[0] })
        let bytes = Array(text.utf8)
        func isSpace(_ place: Int) -> Bool { Self.isStripped(bytes[place]) }
        var result: [Segment] = []
        var pending = 0
        var position = 0
        func take(until end: Int) {
            if end > pending {
                result.append(.text(String(decoding: bytes[pending..<end], as: UTF8.self)))
            }
        }
        while position < bytes.count {
            if starts.contains(bytes[position]),
                let (text, token) = tokens.first(where: { bytes[position...].starts(with: $0.text) })
            {
                var end = position
                while token.stripsLeft, end > pending, isSpace(end - 1) { end -= 1 }
                take(until: end)
                result.append(.special(token.id))
                position += text.count
                while token.stripsRight, position < bytes.count, isSpace(position) { position += 1 }
                pending = position
            } else {
                position += 1
            }
        }
        take(until: bytes.count)
        return result
    }

    // MARK: Decoding

    /// The text of ids, as SentencePiece decodes it: control tokens and special added tokens are omitted, invalid
    /// bytes become U+FFFD, ids that the model has and the tokenizer does not name are nothing.
    ///
    /// - Throws: `TextError.unknownTokenID`.
    public func decode(_ ids: [Int32]) throws -> String {
        for id in ids { try check(id) }
        if ids.contains(where: { added[$0].map { !$0.isSpecial } ?? false }) {
            var decoder = StreamingDecoder(tokenizer: self)
            return try ids.map { try decoder.append($0) }.joined() + decoder.finish()
        }
        let ids = ids.filter { Int($0) < pieceCount && !(added[$0]?.isSpecial ?? false) }
        var out: UnsafeMutablePointer<CChar>?
        var message: UnsafeMutablePointer<CChar>?
        let count = monet_sp_decode(processor, ids, ids.count, &out, &message)
        guard count >= 0, let out else { throw TextError.tokenizerFailure(reason: takeMessage(message)) }
        defer { monet_sp_free(out) }
        return String(decoding: UnsafeRawBufferPointer(start: out, count: Int(count)), as: UTF8.self)
    }

    /// Bytes of the longest piece: a text has at least its own number of bytes divided by this many tokens.
    public var longestPiece: Int {
        longest.withLock { known in
            if let known { return known }
            let pieces = (0..<Int32(vocabularySize)).map { (try? piece($0).utf8.count) ?? 1 }
            known = max(1, pieces.max() ?? 1)
            return known ?? 1
        }
    }

    /// The text of ids with that of special tokens, which `encode` turns into the same ids again where a text has one
    /// encoding.
    ///
    /// - Throws: `TextError.unknownTokenID`.
    public func textWithSpecialTokens(_ ids: [Int32]) throws -> String {
        var text = ""
        var plain: [Int32] = []
        var follows = false
        func takePlain() throws {
            guard !plain.isEmpty else { return }
            var decoder = StreamingDecoder(tokenizer: self, continuing: follows && !addsSpaceAfterSpecial)
            text += try plain.map { try decoder.append($0) }.joined() + decoder.finish()
            plain = []
        }
        for id in ids {
            if try kind(id) == .control {
                try takePlain()
                text += try piece(id)
                follows = true
            } else {
                plain.append(id)
            }
        }
        try takePlain()
        return text
    }

    /// The piece of an id, with `▁` for a space, as the model stores it; the text of an added token; nothing for an
    /// id without a name.
    public func piece(_ id: Int32) throws -> String {
        try check(id)
        if let token = added[id] { return token.text }
        guard Int(id) < pieceCount else { return "" }
        var count = 0
        guard let bytes = monet_sp_piece(processor, id, &count) else { return "" }
        return String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    }

    /// The piece of an id with plain spaces, for display.
    public func displayText(_ id: Int32) throws -> String {
        try piece(id).replacingOccurrences(of: "\u{2581}", with: " ")
    }

    /// The kind of an id's piece.
    public func kind(_ id: Int32) throws -> PieceKind {
        try check(id)
        if let token = added[id] { return token.isSpecial ? .control : .normal }
        guard Int(id) < pieceCount else { return .unused }
        return PieceKind(rawValue: monet_sp_piece_kind(processor, id)) ?? .normal
    }

    private func check(_ id: Int32) throws {
        guard id >= 0, Int(id) < idCount else {
            throw TextError.unknownTokenID(id: Int(id), vocabularySize: idCount)
        }
    }

    /// The bytes that a token adds to a running text.
    func bytes(_ id: Int32) throws -> TokenBytes {
        switch try kind(id) {
        case .control, .unused: return .text("")
        case .unknown: return .text(" \u{2047} ")
        case .byte:
            let digits = try piece(id).dropFirst(3).dropLast()
            return .byte(UInt8(digits, radix: 16) ?? 0xff)
        case .normal: return .text(try displayText(id))
        }
    }

    enum TokenBytes {
        case text(String)
        case byte(UInt8)
    }
}

func takeMessage(_ message: UnsafeMutablePointer<CChar>?) -> String {
    guard let message else { return "unknown failure" }
    defer { monet_sp_free(message) }
    return String(cString: message)
}
