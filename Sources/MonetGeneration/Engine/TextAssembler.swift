import MonetText

/// The text of one generation's tokens: complete characters, up to a stop string.
struct TextAssembler {
    /// All text so far, without stop strings.
    private(set) var text = ""
    private var decoder: StreamingDecoder?
    private var filter: StopFilter

    /// - Throws: `GenerationError.missingTokenizer` for stop strings without a tokenizer.
    init(tokenizer: Tokenizer?, stopStrings: [String]) throws {
        if !stopStrings.isEmpty, tokenizer == nil {
            throw GenerationError.missingTokenizer(purpose: "a stop string")
        }
        decoder = tokenizer.map { StreamingDecoder(tokenizer: $0, continuing: true) }
        filter = StopFilter(stopStrings)
    }

    /// Whether a stop string was found.
    var isStopped: Bool { filter.found != nil }

    /// The text that a token completes; empty while a character or a possible stop string is incomplete.
    mutating func append(_ id: Int32) throws -> String {
        let shown = filter.append(try decoder?.append(id) ?? "")
        text += shown
        return shown
    }

    /// The text that was held back, once no more follows; nil if there is none.
    mutating func finish() -> String? {
        let rest = filter.append(decoder?.finish() ?? "") + filter.finish()
        text += rest
        return rest.isEmpty ? nil : rest
    }
}
