import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

/// A model with its tokenizer, its engine and its named masks, each of which is a model of its own to clients.
public struct ServedModel: Sendable {
    /// The name of the model as it is.
    public let name: String
    /// The checkpoint folder.
    public let folder: String
    /// Other names for it: what the caller called it, and where it lies.
    let aliases: [String]
    /// The weights.
    public let model: MonetLanguageModel
    /// Its tokenizer.
    public let tokenizer: Tokenizer
    /// The engine, shared by all edited models.
    public let generation: GenerationService
    /// The masks by name, in order.
    public let masks: [(name: String, mask: UnitMask)]
    /// When the model was loaded, in seconds since 1970.
    let created = Int(Date().timeIntervalSince1970)
    /// Maximum tokens of prompt and answer together.
    let contextLength: Int

    /// Joins a model and what it is served with.
    ///
    /// - Throws: `ServerError.invalidMaskName`.
    public init(
        folder: String, name: String? = nil, model: MonetLanguageModel, tokenizer: Tokenizer,
        generation: GenerationService, contextLength: Int? = nil,
        masks: [(name: String, mask: UnitMask)] = []
    ) throws {
        self.folder = folder
        let last = URL(fileURLWithPath: folder).standardizedFileURL.lastPathComponent
        self.name = name ?? last
        aliases = [folder, URL(fileURLWithPath: folder).standardizedFileURL.path]
        (self.model, self.tokenizer, self.generation) = (model, tokenizer, generation)
        self.contextLength = contextLength ?? model.configuration.contextLength
        var seen: Set<String> = []
        for mask in masks {
            guard !mask.name.isEmpty, mask.name.utf8.count <= 200, mask.name.onOneLine == mask.name else {
                throw ServerError.invalidMaskName(
                    name: mask.name, reason: "is no name: expected 1 to 200 characters on one line")
            }
            guard seen.insert(mask.name).inserted else {
                throw ServerError.invalidMaskName(name: mask.name, reason: "is given twice")
            }
        }
        self.masks = masks
    }

    /// The names of all models, the one as it is first.
    public var names: [String] { [name] + masks.map { name + ":" + $0.name } }

    /// The mask of a model's name; nil for the model as it is.
    ///
    /// - Throws: `APIError` of status 404 for a name that is none of them.
    func mask(ofModel requested: String) throws -> UnitMask? {
        if requested == name || aliases.contains(requested) { return nil }
        for base in [name] + aliases where requested.hasPrefix(base + ":") {
            let suffix = requested.dropFirst(base.count + 1)
            if let found = masks.first(where: { $0.name == suffix }) { return found.mask }
        }
        throw APIError(
            .notFound,
            "The model '\(requested)' does not exist; there are \(names.map { "'\($0)'" }.joined(separator: ", "))",
            param: "model", code: "model_not_found")
    }

    /// A mask by its name.
    func mask(named name: String) -> UnitMask? { masks.first { $0.name == name }?.mask }
}
