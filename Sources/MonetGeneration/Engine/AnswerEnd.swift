import MonetModel
import MonetText

/// Where an answer in a chat ends by the chat template, besides the model's own end tokens: a model that was tuned with a
/// template of another family writes that family's mark.
public struct AnswerEnd: Sendable {
    private let mark: String
    /// The mark as a special token of the model, which no text shows.
    private let id: Int?

    /// Nil for a template that writes nothing after an answer.
    public init?(_ template: ChatTemplate, _ tokenizer: Tokenizer) {
        guard let mark = template.endOfTurn(specialTokens: tokenizer.specialTokenTexts),
            let ids = try? tokenizer.encode(mark, parsingSpecial: true)
        else { return nil }
        self.mark = mark
        let isSpecial = ids.count == 1 && (try? tokenizer.kind(ids[0])) == .control
        id = isSpecial ? Int(ids[0]) : nil
    }

    /// Adds the mark to what ends a generation, unless nothing is to end it.
    public func add(
        to settings: inout GenerationSettings, _ stopStrings: inout [String], for model: MonetConfiguration
    ) {
        let ends = settings.endTokenIDs ?? model.stopTokenIDs
        if settings.endTokenIDs == [] { return }
        guard let id else { return stopStrings.append(mark) }
        if !ends.contains(id) { settings.endTokenIDs = ends + [id] }
    }
}
