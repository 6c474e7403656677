import MonetModel
import MonetText

/// Where an answer in a chat ends by the chat template, besides the model's own end tokens: a model that was tuned with a
/// template of another family writes that family's mark.
public struct AnswerEnd: Sendable {
    private let mark: String
    /// The mark as tokens of the model.
    private let ids: [Int32]

    /// Nil for a template that writes nothing after an answer.
    public init?(_ template: ChatTemplate, _ tokenizer: Tokenizer) {
        guard let mark = template.endOfTurn(specialTokens: tokenizer.specialTokenTexts),
            let ids = try? tokenizer.encode(mark, parsingSpecial: true)
        else { return nil }
        (self.mark, self.ids) = (mark, ids)
    }

    /// Adds the mark to what ends a generation, unless nothing is to end it.
    public func add(
        to settings: inout GenerationSettings, _ stopStrings: inout [String], for model: MonetConfiguration
    ) {
        let ends = settings.endTokenIDs ?? model.stopTokenIDs
        if settings.endTokenIDs == [] { return }
        guard ids.count == 1 else { return stopStrings.append(mark) }
        if !ends.contains(Int(ids[0])) { settings.endTokenIDs = ends + [Int(ids[0])] }
    }
}
