import Foundation
import MonetFoundation

/// The tokenizer's files in a checkpoint folder.
public enum TokenizerFiles {
    /// Names of the files that belong to the tokenizer.
    public static let names = [
        "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.json",
        "added_tokens.json", "chat_template.jinja",
    ]

    /// Copies those that a folder has, and writes those that transformers still needs to encode as SentencePiece does.
    public static func install(from source: String, into folder: String, contextLength: Int) throws {
        let manager = FileManager.default
        var isFolder: ObjCBool = false
        guard manager.fileExists(atPath: source, isDirectory: &isFolder) else {
            throw FileError.unreadable(path: source, reason: "there is no such file")
        }
        let sources =
            isFolder.boolValue
            ? names.map { ($0, source + "/" + $0) } : [("tokenizer.model", source)]
        for (name, path) in sources where manager.fileExists(atPath: path) {
            let file = try MappedFile(path: path)
            try AtomicFile.write(to: folder + "/" + name) { try $0.write(file.bytes) }
        }
        let special: JSONValue = ["bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"]
        if !manager.fileExists(atPath: folder + "/special_tokens_map.json") {
            try AtomicFile.write(
                special.serialized(pretty: true) + "\n", to: folder + "/special_tokens_map.json")
        }
        guard !manager.fileExists(atPath: folder + "/tokenizer_config.json") else { return }
        var tokenizerClass = "LlamaTokenizer"
        if !manager.fileExists(atPath: folder + "/tokenizer.json"),
            let json = try TokenizerJSON.make(Tokenizer(path: folder + "/tokenizer.model"))
        {
            try AtomicFile.write(json.serialized() + "\n", to: folder + "/tokenizer.json")
            tokenizerClass = "PreTrainedTokenizerFast"
        }
        let config: JSONValue = [
            "add_bos_token": true, "add_eos_token": false, "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "legacy": true, "clean_up_tokenization_spaces": false,
            "model_max_length": .integer(contextLength), "tokenizer_class": .string(tokenizerClass),
        ]
        try AtomicFile.write(config.serialized(pretty: true) + "\n", to: folder + "/tokenizer_config.json")
    }
}
