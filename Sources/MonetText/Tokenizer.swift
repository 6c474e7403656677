import CSentencePiece
import Foundation
import MonetFoundation

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
    /// Number of pieces.
    public let vocabularySize: Int
    /// Id of the piece that begins a text, if the model has one.
    public let beginID: Int32?
    /// Id of the piece that ends a text.
    public let endID: Int32?
    /// Id of the unknown piece.
    public let unknownID: Int32?
    /// Whether prompts start with the begin token.
    public let addsBegin: Bool
    /// Tokens that are recognized inside prompts, by their text, with their ids.
    public let specialTokens: [String: Int32]
    /// The chat template's source.
    public let chatTemplate: String?
    /// Whether a text after a special token gets SentencePiece's leading space.
    private let addsSpaceAfterSpecial: Bool

    /// Kinds of pieces.
    public enum PieceKind: Int32, Sendable {
        case normal = 0
        case unknown
        case control
        case byte
        case unused
    }

    /// Reads `tokenizer.model` and `tokenizer_config.json` of a checkpoint folder.
    public convenience init(folder: String) throws {
        let configPath = folder + "/tokenizer_config.json"
        let config =
            FileManager.default.fileExists(atPath: configPath)
            ? try JSONValue(contentsOfFile: configPath) : .null
        try self.init(path: folder + "/tokenizer.model", config: config, configPath: configPath)
    }

    /// Reads a SentencePiece model.
    ///
    /// - Throws: `FileError.unreadable`, `TextError.malformedTokenizer`.
    public init(path: String, config: JSONValue = .null, configPath: String = "") throws {
        let file = try MappedFile(path: path)
        guard !file.bytes.isEmpty else {
            throw TextError.malformedTokenizer(path: path, reason: "the file is empty")
        }
        var message: UnsafeMutablePointer<CChar>?
        let base = file.bytes.bindMemory(to: CChar.self).baseAddress
        let loaded = withExtendedLifetime(file) { monet_sp_load(base, file.bytes.count, &message) }
        guard let processor = loaded else {
            throw TextError.malformedTokenizer(path: path, reason: takeMessage(message))
        }
        func known(_ id: Int32) -> Int32? { id >= 0 ? id : nil }
        self.path = path
        self.processor = processor
        vocabularySize = Int(monet_sp_vocabulary_size(processor))
        beginID = known(monet_sp_begin_id(processor))
        endID = known(monet_sp_end_id(processor))
        unknownID = known(monet_sp_unknown_id(processor))
        addsBegin = config["add_bos_token"]?.boolValue ?? true
        addsSpaceAfterSpecial = config["legacy"]?.boolValue ?? true
        chatTemplate = try Self.template(config, path: configPath)
        var special: [String: Int32] = [:]
        for member in config["added_tokens_decoder"]?.members ?? [] {
            if let id = Int32(member.key), id >= 0, let content = member.value["content"]?.stringValue,
                !content.isEmpty
            {
                special[content] = id
            }
        }
        for id in [beginID, endID, unknownID].compactMap({ $0 }) {
            var count = 0
            if let bytes = monet_sp_piece(processor, id, &count) {
                let text = String(decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
                if special[text] == nil { special[text] = id }
            }
        }
        specialTokens = special
    }

    deinit { monet_sp_destroy(processor) }

    private static func template(_ config: JSONValue, path: String) throws -> String? {
        guard let value = config["chat_template"], !value.isNull else { return nil }
        if let text = value.stringValue { return text }
        // Of several named templates, the one called "default" is for chats.
        for item in value.arrayValue ?? [] where item["name"]?.stringValue == "default" {
            return item["template"]?.stringValue
        }
        throw TextError.malformedSource(
            path: path, line: nil, reason: "chat_template is neither text nor a list with a \"default\"")
    }

    // MARK: Encoding

    /// The ids of a text, as SentencePiece encodes it.
    ///
    /// - `addBegin`: whether the begin token comes first.
    /// - `parsingSpecial`: whether the text of special tokens, such as `</s>`, is encoded as these tokens.
    public func encode(_ text: String, addBegin: Bool = false, parsingSpecial: Bool = false) throws -> [Int32]
    {
        var ids: [Int32] = addBegin ? beginID.map { [$0] } ?? [] : []
        guard parsingSpecial else { return ids + (try encodePlain(text)) }
        var isFirst = true
        for segment in segments(text) {
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
        var text = text
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

    /// Splits at special tokens, preferring the longest at each position.
    private func segments(_ text: String) -> [Segment] {
        let tokens = specialTokens.filter { !$0.key.isEmpty }.map { (Array($0.key.utf8), $0.value) }.sorted {
            $0.0.count > $1.0.count
        }
        let starts = Set(tokens.map { $0.0[0] })
        let bytes = Array(text.utf8)
        var result: [Segment] = []
        var pending = 0
        var position = 0
        while position < bytes.count {
            if starts.contains(bytes[position]),
                let (token, id) = tokens.first(where: { bytes[position...].starts(with: $0.0) })
            {
                if position > pending {
                    result.append(.text(String(decoding: bytes[pending..<position], as: UTF8.self)))
                }
                result.append(.special(id))
                position += token.count
                pending = position
            } else {
                position += 1
            }
        }
        if pending < bytes.count { result.append(.text(String(decoding: bytes[pending...], as: UTF8.self))) }
        return result
    }

    // MARK: Decoding

    /// The text of ids, as SentencePiece decodes it: control tokens are omitted, invalid bytes become U+FFFD.
    ///
    /// - Throws: `TextError.unknownTokenID`.
    public func decode(_ ids: [Int32]) throws -> String {
        for id in ids { try check(id) }
        var out: UnsafeMutablePointer<CChar>?
        var message: UnsafeMutablePointer<CChar>?
        let count = monet_sp_decode(processor, ids, ids.count, &out, &message)
        guard count >= 0, let out else { throw TextError.tokenizerFailure(reason: takeMessage(message)) }
        defer { monet_sp_free(out) }
        return String(decoding: UnsafeRawBufferPointer(start: out, count: Int(count)), as: UTF8.self)
    }

    /// The piece of an id, with `▁` for a space, as the model stores it.
    public func piece(_ id: Int32) throws -> String {
        try check(id)
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
        return PieceKind(rawValue: monet_sp_piece_kind(processor, id)) ?? .normal
    }

    private func check(_ id: Int32) throws {
        guard id >= 0, Int(id) < vocabularySize else {
            throw TextError.unknownTokenID(id: Int(id), vocabularySize: vocabularySize)
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
