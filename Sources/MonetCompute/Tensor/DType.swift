/// Element types of tensors, named as in safetensors files, and the two formats of quantized rows.
public enum DType: String, Sendable, Codable, CaseIterable {
    case float32 = "F32"
    case bfloat16 = "BF16"
    case float16 = "F16"
    case int32 = "I32"
    case int64 = "I64"
    case uint8 = "U8"
    /// Rows of signed bytes with a scale each; see `Docs/Monet.docc/Quantization.md`.
    case int8Rows = "INT8_ROWS"
    /// Rows of 4-bit numbers with a scale and a minimum for every 32.
    case int4Rows = "INT4_ROWS"

    /// Whether files store tensors of this type as such; quantized rows are stored as bytes.
    public var isStorable: Bool { !isQuantized }

    /// Whether an element is only meaningful within its row.
    public var isQuantized: Bool { self == .int8Rows || self == .int4Rows }

    /// Bytes that one element takes.
    public var byteCount: Int {
        switch self {
        case .bfloat16, .float16: 2
        case .float32, .int32: 4
        case .int64: 8
        case .uint8: 1
        case .int8Rows, .int4Rows: preconditionFailure("elements of quantized rows have no size of their own")
        }
    }

    /// Bytes that a row of `columns` elements takes.
    public func rowByteCount(columns: Int) -> Int {
        switch self {
        case .int8Rows: 4 + (columns + 3) / 4 * 4
        case .int4Rows: 8 + (columns + 127) / 128 * (2 * 4 + 64)
        default: columns * byteCount
        }
    }

    /// Whether elements are floating-point numbers.
    public var isFloatingPoint: Bool {
        switch self {
        case .float32, .bfloat16, .float16: true
        case .int32, .int64, .uint8, .int8Rows, .int4Rows: false
        }
    }

    /// Whether elements stand for real numbers, quantized ones included.
    public var isReal: Bool { isFloatingPoint || isQuantized }

    /// The name users write on the command line and PyTorch writes in `torch_dtype`.
    public var torchName: String {
        switch self {
        case .float32: "float32"
        case .bfloat16: "bfloat16"
        case .float16: "float16"
        case .int32: "int32"
        case .int64: "int64"
        case .uint8: "uint8"
        case .int8Rows: "int8"
        case .int4Rows: "int4"
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
