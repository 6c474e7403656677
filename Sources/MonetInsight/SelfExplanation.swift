import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetModel
import MonetText

/// Lets a model describe what an expert stands for (section 5 of the paper): in a prompt that asks for the
/// meaning of a word, the word's embedding is the mean embedding of the tokens that fire the expert.
public struct SelfExplanation {
    /// The paper's question.
    public static let defaultPrompt =
        "Q: What is the meaning of the word {expert}? A: Sure! The meaning of the word {expert} is \""
    /// The loss on the question itself, in nats per token, above which answers are not credible.
    public static let credibleLoss = 4.0

    /// The question, with `{expert}` for the expert.
    public let prompt: String
    /// Mean loss of the model on the question with an ordinary word in it. If a model cannot even predict the
    /// question, its answers are noise.
    public let promptLoss: Double
    private let model: MonetLanguageModel
    private let tokenizer: Tokenizer
    private let backend: any Backend
    private let ids: [Int32]
    private let places: [Int]

    /// Whether the model predicts the question well enough for its answers to be credible.
    public var isCredible: Bool { promptLoss <= Self.credibleLoss }

    /// - Throws: `InsightError.invalidSetting` for a prompt without `{expert}`, or a tokenizer without an
    ///   unknown token as the expert's placeholder.
    public init(
        model: MonetLanguageModel, tokenizer: Tokenizer, backend: any Backend = CPUBackend(),
        prompt: String = defaultPrompt
    ) throws {
        guard prompt.contains("{expert}") else {
            throw InsightError.invalidSetting(
                name: "the prompt", found: prompt, expected: "a text with {expert}")
        }
        guard let holder = tokenizer.unknownID else {
            throw InsightError.invalidSetting(
                name: "the tokenizer", found: "one without an unknown token",
                expected: "one that can hold the expert's place")
        }
        let name = try tokenizer.piece(holder)
        let ids = try tokenizer.encode(
            prompt.replacingOccurrences(of: "{expert}", with: name), addBegin: tokenizer.addsBegin,
            parsingSpecial: true)
        places = ids.indices.filter { ids[$0] == holder }
        guard !places.isEmpty else {
            throw InsightError.invalidSetting(
                name: "the tokenizer", found: "no special token \(name)",
                expected: "one that keeps the expert's place in the prompt")
        }
        self.ids = ids
        self.model = model
        self.tokenizer = tokenizer
        self.backend = backend
        self.prompt = prompt
        let plain = try tokenizer.encode(
            prompt.replacingOccurrences(of: "{expert}", with: "water"), addBegin: tokenizer.addsBegin)
        promptLoss = try Perplexity(
            of: plain, model: model, window: model.configuration.contextLength,
            stride: max(1, model.configuration.contextLength / 2), backend: backend
        ).loss
    }

    /// Answers for an expert of an index, from its top tokens; none for one that never fired.
    public func explanations(
        of expert: UnitID, in index: ExpertIndex, samples: Int, seed: UInt64 = 0, maxNewTokens: Int = 32
    ) throws -> [ExpertDossier.Explanation] {
        try answers(
            for: index.topTokenIDs(of: expert), samples: samples, seed: seed, maxNewTokens: maxNewTokens
        ).map { .init(text: $0, prompt: prompt, isCredible: isCredible) }
    }

    /// Answers for the expert that fires on `tokens`: the most likely one, then samples.
    public func answers(for tokens: [Int32], samples: Int, seed: UInt64 = 0, maxNewTokens: Int = 32) throws
        -> [String]
    {
        guard !tokens.isEmpty else { return [] }
        let width = model.configuration.hiddenSize
        let rows = try backend.embed(tokens, table: model.parameters("model.embed_tokens.weight").tensor)
            .floats()
        let mean = (0..<width).map { column in
            (0..<tokens.count).reduce(0) { $0 + rows[$1 * width + column] } / Float(tokens.count)
        }
        let generator = TextGenerator(model: model, tokenizer: tokenizer, backend: backend)
        let embedding = Variable(try backend.tensor(Tensor(mean, shape: [1, width])))
        let prompt = ids.enumerated().map { place, id -> ForwardSegment in
            places.contains(place) ? .embeddings(embedding) : .tokens([id])
        }
        return try (0..<max(0, samples)).map { sample in
            var settings = GenerationSettings()
            settings.maxNewTokens = maxNewTokens
            settings.sampling.temperature = sample == 0 ? 0 : 0.7
            settings.sampling.seed = seed &+ UInt64(sample)
            return try generator.generate(segments: prompt, settings: settings, stopStrings: ["\"", "\n"])
                .text.trimmingCharacters(in: .whitespaces)
        }
    }
}

extension ExpertIndex {
    /// Stores a model's own descriptions of an expert in place of its earlier ones; those of other explainers stay.
    public func replaceOwnExplanations(of expert: UnitID, by explanations: [ExpertDossier.Explanation]) throws
    {
        try replaceExplanations(of: expert, by: explanations) { $0.prompt.contains("{expert}") }
    }
}
