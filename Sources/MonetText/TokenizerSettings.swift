import Foundation
import MonetFoundation

/// A token that a checkpoint adds to its SentencePiece model, or marks in it.
public struct AddedToken: Sendable, Equatable {
    /// The token.
    public let id: Int32
    /// The text that stands for it.
    public let text: String
    /// Whether it marks structure rather than text, so that decoded text omits it.
    public let isSpecial: Bool
    /// Whether it takes the white space before or after it.
    let stripsLeft: Bool
    let stripsRight: Bool
}

/// What the files beside `tokenizer.model` say, as transformers reads them: `tokenizer_config.json`,
/// `special_tokens_map.json`, `added_tokens.json`, the added tokens of `tokenizer.json`, `chat_template.jinja`.
struct TokenizerSettings {
    /// The parts that a token may play, under their names in templates.
    private static let roles = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]

    /// Whether prompts start with the begin token.
    var addsBegin = true
    /// Whether a text after a special token gets SentencePiece's leading space.
    var addsSpaceAfterSpecial = true
    /// Added tokens by id.
    var added: [Int32: AddedToken] = [:]
    /// The text of each token with a part, such as `bos_token`; nil if the files state that there is none.
    var special: [String: String?] = [:]
    /// The chat template's source, and the file that holds it.
    var template: String?
    var templatePath = ""
    /// `vocab_size` of `config.json`.
    var modelVocabularySize = 0

    init() {}

    /// Reads the files of a checkpoint folder; any of them may be absent.
    ///
    /// - Throws: `FileError`, `TextError.malformedSource` naming the file and the key.
    init(folder: String) throws {
        func read(_ name: String) throws -> (path: String, json: JSONValue)? {
            let path = folder + "/" + name
            guard FileManager.default.fileExists(atPath: path) else { return nil }
            let json = try JSONValue(contentsOfFile: path)
            guard json.members != nil || json.arrayValue != nil else {
                throw Self.malformed(path, "expected an object, found \(json.kind)")
            }
            return (path, json)
        }
        // Later files overrule earlier ones.
        if let (path, json) = try read("tokenizer.json") {
            for token in json["added_tokens"]?.arrayValue ?? [] {
                try add(token, id: token["id"], "added_tokens", path)
            }
        }
        if let (path, json) = try read("added_tokens.json") {
            for member in json.members ?? [] {
                try add(.object([.init("content", .string(member.key))]), id: member.value, member.key, path)
            }
        }
        if let (path, json) = try read("special_tokens_map.json") { try readRoles(json, path) }
        if let (path, json) = try read("tokenizer_config.json") { try readConfig(json, path) }
        if let (_, json) = try read("config.json") {
            modelVocabularySize = max(0, json["vocab_size"]?.intValue ?? 0)
        }
        let path = folder + "/chat_template.jinja"
        if FileManager.default.fileExists(atPath: path) {
            (template, templatePath) = (try TextFile.read(path), path)
        } else {
            templatePath = folder + "/tokenizer_config.json"
        }
    }

    private static func malformed(_ path: String, _ reason: String) -> TextError {
        .malformedSource(path: path, line: nil, reason: reason)
    }

    private mutating func readConfig(_ json: JSONValue, _ path: String) throws {
        func flag(_ key: String, default fallback: Bool) throws -> Bool {
            guard let value = json[key], !value.isNull else { return fallback }
            guard let flag = value.boolValue else {
                throw Self.malformed(path, "\"\(key)\" is \(value.serialized()), expected true or false")
            }
            return flag
        }
        addsBegin = try flag("add_bos_token", default: true)
        addsSpaceAfterSpecial = try flag("legacy", default: true)
        for member in json["added_tokens_decoder"]?.members ?? [] {
            guard let id = Int(member.key) else {
                throw Self.malformed(
                    path, "\"added_tokens_decoder\" has \"\(member.key)\", expected a token id")
            }
            try add(member.value, id: .integer(id), "added_tokens_decoder", path)
        }
        try readRoles(json, path)
        template = try Self.template(json["chat_template"], path)
    }

    private static func template(_ value: JSONValue?, _ path: String) throws -> String? {
        guard let value, !value.isNull else { return nil }
        if let text = value.stringValue { return text }
        // Of several named templates, the one called "default" is for chats.
        for item in value.arrayValue ?? [] where item["name"]?.stringValue == "default" {
            return item["template"]?.stringValue
        }
        throw malformed(path, "chat_template is neither text nor a list with a \"default\"")
    }

    private mutating func add(_ token: JSONValue, id: JSONValue?, _ key: String, _ path: String) throws {
        guard let id = id?.intValue, id >= 0, id < 1 << 24, let number = Int32(exactly: id),
            let text = token["content"]?.stringValue
        else {
            throw Self.malformed(
                path, "\"\(key)\" has \(token.serialized().prefix(200)), expected a text and a token id")
        }
        guard !text.isEmpty else { return }
        func flag(_ key: String, _ fallback: Bool) -> Bool { token[key]?.boolValue ?? fallback }
        added[number] = AddedToken(
            id: number, text: text, isSpecial: flag("special", added[number]?.isSpecial ?? false),
            stripsLeft: flag("lstrip", false), stripsRight: flag("rstrip", false))
    }

    private mutating func readRoles(_ json: JSONValue, _ path: String) throws {
        for role in Self.roles {
            guard let value = json[role] else { continue }
            if value.isNull {
                special[role] = .some(nil)
            } else if let text = value.stringValue ?? value["content"]?.stringValue {
                special[role] = text
            } else {
                throw Self.malformed(path, "\"\(role)\" is \(value.serialized()), expected a text or null")
            }
        }
    }
}
