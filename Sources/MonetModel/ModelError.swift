import MonetCompute

/// What can go wrong with configurations and checkpoints.
public enum ModelError: Error, Sendable, Equatable, CustomStringConvertible {
    /// A key of a configuration has a value that cannot be used.
    case invalidConfiguration(file: String, key: String, found: String, expected: String)
    /// A preset that does not exist.
    case unknownPreset(name: String, available: [String])
    /// A safetensors file that breaks the format.
    case malformedSafetensors(file: String, tensor: String?, reason: String)
    /// A tensor that the model needs but the checkpoint lacks.
    case missingTensor(file: String, tensor: String)
    /// A tensor that the model does not know.
    case unexpectedTensor(file: String, tensor: String)
    /// A tensor with another shape than the configuration requires.
    case wrongShape(file: String, tensor: String, expected: [Int], found: [Int])
    /// A tensor with a type that is not allowed.
    case wrongDType(file: String, tensor: String, expected: String, found: String)
    /// A checkpoint folder without a file that it needs.
    case missingFile(folder: String, name: String)
    /// Weights or computed values that are NaN or infinite.
    case notFinite(what: String, place: String?)
    /// More tokens than the model's context holds.
    case contextExceeded(tokens: Int, context: Int)
    /// A call with invalid or inconsistent inputs.
    case invalidInput(reason: String)
    /// A mask or index that was made for another model; both by fingerprint.
    case foreignMask(file: String, expected: String, found: String)
    /// Adapters of another model than the base that they name; both by fingerprint.
    case foreignBase(adapters: String, base: String, expected: String, found: String)

    public var description: String {
        switch self {
        case .invalidConfiguration(let file, let key, let found, let expected):
            "\(file): key \"\(key)\" is \(found), expected \(expected)"
        case .unknownPreset(let name, let available):
            "unknown preset '\(name)'; the presets are \(available.joined(separator: ", "))"
        case .malformedSafetensors(let file, let tensor, let reason):
            "\(file): \(tensor.map { "tensor \"\($0)\": " } ?? "")\(reason)"
        case .missingTensor(let file, let tensor): "\(file): tensor \"\(tensor)\" is missing"
        case .unexpectedTensor(let file, let tensor):
            "\(file): tensor \"\(tensor)\" does not belong to the model that config.json describes"
        case .wrongShape(let file, let tensor, let expected, let found):
            "\(file): tensor \"\(tensor)\" has shape \(found), expected \(expected)"
        case .wrongDType(let file, let tensor, let expected, let found):
            "\(file): tensor \"\(tensor)\" has type \(found), expected \(expected)"
        case .missingFile(let folder, let name): "\(folder): the file \(name) is missing"
        case .notFinite(let what, let place):
            "\(what): \(place.map { $0 + " " } ?? "a value ")is NaN or infinite"
        case .contextExceeded(let tokens, let context):
            "\(tokens) tokens do not fit into the model's context of \(context)"
        case .invalidInput(let reason): reason
        case .foreignMask(let file, let expected, let found):
            "\(file): made for another model, fingerprint \(found); this one's is \(expected)"
        case .foreignBase(let adapters, let base, let expected, let found):
            "\(adapters): adapters of a model with fingerprint \(expected), but that of \(base) is \(found) now"
        }
    }
}
