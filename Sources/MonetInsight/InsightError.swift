/// What can go wrong in inspecting experts.
public enum InsightError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A name of an expert that is not `group/index`, or is outside the model.
    case invalidExpert(name: String, expected: String)
    /// A label that the corpus or index does not have.
    case unknownLabel(label: String, known: [String], origin: String)
    /// A label set that the index does not have.
    case unknownLabelSet(name: String, known: [String], origin: String)
    /// Documents without a label where labels are needed.
    case noLabels(origin: String)
    /// A document without the requested number.
    case missingNumber(path: String, key: String, document: Int)
    /// A list of numbers that does not fit a document's tokens.
    case malformedNumbers(path: String, key: String, document: Int, expected: Int, found: Int)
    /// Tokens beyond the model's vocabulary.
    case foreignTokens(origin: String, token: Int, vocabularySize: Int)
    /// A file that is not an index, or a damaged one.
    case malformedIndex(path: String, reason: String)
    /// An index in a schema that this version does not read.
    case unsupportedSchema(path: String, found: Int, expected: Int)
    /// An index of another model; both by fingerprint.
    case foreignIndex(path: String, expected: String, found: String)
    /// An unfinished index, or a folder of activations, that was started with other settings.
    case foreignState(path: String, key: String, expected: String, found: String)
    /// The index cannot be written.
    case unwritableIndex(path: String, reason: String)
    /// A metric that cannot be read.
    case invalidMetric(metric: String, reason: String)
    /// A setting outside its range.
    case invalidSetting(name: String, found: String, expected: String)

    public var description: String {
        switch self {
        case .invalidExpert(let name, let expected): "expert '\(name)' is not valid, expected \(expected)"
        case .unknownLabel(let label, let known, let origin):
            "\(origin): there is no label '\(label)', expected one of \(known.joined(separator: ", "))"
        case .unknownLabelSet(let name, let known, let origin):
            "\(origin): there is no label set '\(name)', expected one of \(known.joined(separator: ", "))"
        case .noLabels(let origin): "\(origin): the documents have no labels, and this needs two or more"
        case .missingNumber(let path, let key, let document):
            "\(path): document \(document) has no number under \"\(key)\""
        case .malformedNumbers(let path, let key, let document, let expected, let found):
            "\(path): document \(document) has \(found) numbers under \"\(key)\", expected one for each of its \(expected) tokens"
        case .foreignTokens(let origin, let token, let size):
            "\(origin): token \(token) is not in the model's vocabulary of \(size)"
        case .malformedIndex(let path, let reason): "\(path): not a usable expert index: \(reason)"
        case .unsupportedSchema(let path, let found, let expected):
            "\(path): an index of schema version \(found), expected \(expected); rebuild it with monet index build"
        case .foreignIndex(let path, let expected, let found):
            "\(path): an index of another model, fingerprint \(found); this one's is \(expected)"
        case .foreignState(let path, let key, let expected, let found):
            "\(path): what is there was started with another \(key) (\(found), now \(expected))"
        case .unwritableIndex(let path, let reason): "\(path): cannot be written: \(reason)"
        case .invalidMetric(let metric, let reason): "the metric '\(metric)': \(reason)"
        case .invalidSetting(let name, let found, let expected):
            "\(name) is \(found), expected \(expected)"
        }
    }
}
