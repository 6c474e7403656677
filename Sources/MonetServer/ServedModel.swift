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
    /// The masks by name, in order; those of the explorer's folder are not among them.
    public let masks: [(name: String, mask: UnitMask)]
    /// What the explorer shows.
    public let explorer: ExplorerSources
    /// The device that measurements run on.
    let backend: any Backend
    /// When the model was loaded, in seconds since 1970.
    let created = Int(Date().timeIntervalSince1970)
    /// Maximum tokens of prompt and answer together.
    let contextLength: Int

    /// Joins a model and what it is served with.
    ///
    /// - Throws: `ServerError.invalidMaskName`.
    public init(
        folder: String, name: String? = nil, model: MonetLanguageModel, tokenizer: Tokenizer,
        generation: GenerationService, backend: any Backend = CPUBackend(), contextLength: Int? = nil,
        masks: [(name: String, mask: UnitMask)] = [], explorer: ExplorerSources = ExplorerSources()
    ) throws {
        (self.explorer, self.backend) = (explorer, backend)
        if let index = explorer.index { try index.require(model) }
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
    public var names: [String] { [name] + maskNames.map { name + ":" + $0 } }

    /// The names of all masks: those given, then those of the folder.
    public var maskNames: [String] {
        let own = masks.map(\.name)
        return own + (folderOfMasks?.names() ?? []).filter { !own.contains($0) }
    }

    /// The folder in which masks are saved.
    var folderOfMasks: MaskFolder? { explorer.maskFolder.map { MaskFolder(path: $0) } }

    /// The mask of a model's name; nil for the model as it is.
    ///
    /// - Throws: `APIError` of status 404 for a name that is none of them.
    func mask(ofModel requested: String) throws -> UnitMask? {
        if requested == name || aliases.contains(requested) { return nil }
        for base in [name] + aliases where requested.hasPrefix(base + ":") {
            let suffix = requested.dropFirst(base.count + 1)
            if let found = try mask(named: String(suffix)) { return found }
        }
        throw APIError(
            .notFound,
            "The model '\(requested)' does not exist; there are \(names.map { "'\($0)'" }.joined(separator: ", "))",
            param: "model", code: "model_not_found")
    }

    /// A mask by its name; nil if there is none.
    func mask(named name: String) throws -> UnitMask? {
        if let own = masks.first(where: { $0.name == name }) { return own.mask }
        guard let folder = folderOfMasks, folder.names().contains(name) else { return nil }
        return try folder.mask(name, for: model).mask
    }

    // MARK: Measuring

    /// Scores of units on each token of a text, and the tokens.
    ///
    /// - Throws: `APIError` naming `param` for a text that does not fit.
    func unitScores(_ text: String, _ param: String, _ selection: TextRequest.UnitSelection) async throws -> (
        tokens: [Int32], rows: [[UnitScore]]
    ) {
        let tokens = try CompletionEndpoint.prompt(text, self, param).tokens
        guard tokens.count <= contextLength else {
            throw APIError.invalid(
                param, "\(param) has \(tokens.count) tokens, the model's context holds \(contextLength)",
                code: "context_length_exceeded")
        }
        var settings = GenerationSettings()
        settings.maxNewTokens = 0
        var request = TextRequest(GenerationRequest(tokens, settings: settings))
        request.units = selection
        var rows: [[UnitScore]] = []
        for try await event in generation.events(request) {
            if case .ran(_, let units, _) = event { rows += units }
        }
        guard rows.count == tokens.count else { throw CancellationError() }
        return (tokens, rows)
    }

    /// Mean scores, over a text's tokens, of the units that it fires.
    func meanScores(_ text: String, _ param: String) async throws -> [UnitID: Double] {
        let (tokens, rows) = try await unitScores(text, param, .highest(.max))
        var sums: [UnitID: Double] = [:]
        for score in rows.joined() {
            sums[UnitID(group: score.group, index: score.index), default: 0] += Double(score.score)
        }
        return sums.mapValues { $0 / Double(tokens.count) }
    }
}
