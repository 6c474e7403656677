/// What can go wrong with tokenizers, chat templates and corpora.
public enum TextError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A file that is not a SentencePiece model.
    case malformedTokenizer(path: String, reason: String)
    /// A token id beyond the vocabulary.
    case unknownTokenID(id: Int, vocabularySize: Int)
    /// SentencePiece refused to encode or decode.
    case tokenizerFailure(reason: String)
    /// SentencePiece could not train a tokenizer.
    case tokenizerTraining(reason: String)
    /// A construct of a chat template that this package does not support.
    case unsupportedTemplate(construct: String, line: Int)
    /// A chat template that is not well-formed, or fails on these messages.
    case templateFailure(reason: String, line: Int)
    /// A checkpoint without a chat template.
    case missingTemplate(path: String)
    /// A source of a corpus that cannot be used.
    case malformedSource(path: String, line: Int?, reason: String)
    /// A corpus that cannot be used.
    case malformedCorpus(path: String, reason: String)

    public var description: String {
        switch self {
        case .malformedTokenizer(let path, let reason): "\(path): not a SentencePiece model: \(reason)"
        case .unknownTokenID(let id, let size): "token id \(id) is outside the vocabulary 0..<\(size)"
        case .tokenizerFailure(let reason): "SentencePiece: \(reason)"
        case .tokenizerTraining(let reason): "the tokenizer cannot be trained: \(reason)"
        case .unsupportedTemplate(let construct, let line):
            "chat template, line \(line): \(construct) is not supported"
        case .templateFailure(let reason, let line): "chat template, line \(line): \(reason)"
        case .missingTemplate(let path): "\(path): no chat_template; this is not a chat model's tokenizer"
        case .malformedSource(let path, let line, let reason):
            line.map { "\(path), line \($0): \(reason)" } ?? "\(path): \(reason)"
        case .malformedCorpus(let path, let reason): "\(path): \(reason)"
        }
    }
}
