/// What can go wrong in tensor computations.
public enum ComputeError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Shapes that do not fit an operation.
    case shapeMismatch(operation: String, expected: String, found: String)
    /// An element type that an operation does not take.
    case unsupportedDType(operation: String, dtype: DType)
    /// An index outside a table, such as a token id beyond the vocabulary.
    case indexOutOfRange(operation: String, index: Int, limit: Int)
    /// A tensor on another device than the one that was asked to compute with it.
    case foreignStorage(operation: String, device: String)
    /// Weights that another device prepared, or activations of another forward pass.
    case foreignPreparation(operation: String, device: String)
    /// Elements that cannot be written, such as those of a mapped file.
    case readOnly(operation: String)
    /// An operation that a device does not offer.
    case unsupported(operation: String, device: String)
    /// An instruction set that the machine or the build lacks.
    case unknownInstructionSet(name: String, available: [String])

    public var description: String {
        switch self {
        case .shapeMismatch(let operation, let expected, let found):
            "\(operation): expected \(expected), found \(found)"
        case .unsupportedDType(let operation, let dtype):
            "\(operation): element type \(dtype.rawValue) is not supported"
        case .indexOutOfRange(let operation, let index, let limit):
            "\(operation): index \(index) is outside 0..<\(limit)"
        case .foreignStorage(let operation, let device):
            "\(operation): a tensor does not lie on the device \(device)"
        case .foreignPreparation(let operation, let device):
            "\(operation): the weights or activations were not prepared by the device \(device)"
        case .readOnly(let operation): "\(operation): the elements cannot be written"
        case .unsupported(let operation, let device):
            "\(operation): the device \(device) does not offer it"
        case .unknownInstructionSet(let name, let available):
            "MONET_ISA: instruction set '\(name)' is not available here; choose one of "
                + available.joined(separator: ", ")
        }
    }
}
