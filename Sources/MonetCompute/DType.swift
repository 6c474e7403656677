/// Element types of tensors, named as in safetensors files.
public enum DType: String, Sendable, Codable, CaseIterable {
    case float32 = "F32"
    case bfloat16 = "BF16"
    case float16 = "F16"
    case int32 = "I32"
    case int64 = "I64"

    /// Bytes that one element takes.
    public var byteCount: Int {
        switch self {
        case .bfloat16, .float16: 2
        case .float32, .int32: 4
        case .int64: 8
        }
    }

    /// Whether elements are floating-point numbers.
    public var isFloatingPoint: Bool {
        switch self {
        case .float32, .bfloat16, .float16: true
        case .int32, .int64: false
        }
    }

    /// The name users write on the command line and PyTorch writes in `torch_dtype`.
    public var torchName: String {
        switch self {
        case .float32: "float32"
        case .bfloat16: "bfloat16"
        case .float16: "float16"
        case .int32: "int32"
        case .int64: "int64"
        }
    }

    /// The type of a user's name for it: `float32`, `f32`, `bf16`, `bfloat16`, `half` and the like.
    public init?(userName: String) {
        switch userName.lowercased() {
        case "float32", "f32", "fp32", "float": self = .float32
        case "bfloat16", "bf16": self = .bfloat16
        case "float16", "f16", "fp16", "half": self = .float16
        default: return nil
        }
    }
}
