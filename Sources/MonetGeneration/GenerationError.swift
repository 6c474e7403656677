/// What can go wrong in generation.
public enum GenerationError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A sampling or stopping setting that cannot be used.
    case invalidSetting(name: String, found: String, expected: String)
    /// A prompt without any token.
    case emptyPrompt
    /// Logits that are not finite: the weights or the activations overflowed.
    case logitsNotFinite(position: Int)
    /// A token id beyond the vocabulary.
    case invalidToken(id: Int, vocabularySize: Int)
    /// Text was requested from a model without a tokenizer.
    case missingTokenizer(purpose: String)
    /// A line of a file of prompts that cannot be used.
    case malformedPrompt(source: String, line: Int, reason: String)
    /// The service that was to run a text has stopped.
    case stopped

    public var description: String {
        switch self {
        case .invalidSetting(let name, let found, let expected): "\(name) is \(found), expected \(expected)"
        case .emptyPrompt: "the prompt has no tokens"
        case .logitsNotFinite(let position):
            "the logits of token \(position) are not finite; the weights are damaged or overflow this precision"
        case .invalidToken(let id, let size): "token \(id) is not in the model's vocabulary of \(size)"
        case .missingTokenizer(let purpose):
            "\(purpose) needs the tokenizer, and the checkpoint has no tokenizer.model"
        case .malformedPrompt(let source, let line, let reason): "\(source), line \(line): \(reason)"
        case .stopped: "the generation has been stopped"
        }
    }
}
