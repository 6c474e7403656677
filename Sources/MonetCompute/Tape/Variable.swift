/// A tensor in a computation, with its gradient once the tape has run backwards.
public final class Variable {
    /// The elements.
    public let value: Tensor
    /// Whether anything trainable feeds it.
    public let requiresGradient: Bool
    /// d(loss)/d(value), of the value's shape; nil until something flows back.
    public private(set) var gradient: Tensor?
    /// Whether the gradient stays after it has been used, as that of an observed value does.
    public var retainsGradient = false
    /// Whether other variables hold the same gradient tensor, which must then not be added into.
    private var gradientIsShared = false

    /// A constant or a trainable tensor.
    public init(_ value: Tensor, requiresGradient: Bool = false) {
        self.value = value
        self.requiresGradient = requiresGradient
    }

    /// A tensor on the device to add this variable's gradient into, zero at first.
    public func gradientForAdding(on backend: any Backend) throws -> Tensor {
        if let gradient, !gradientIsShared { return gradient }
        let buffer = try backend.zeros(value.shape, dtype: .float32)
        if let gradient { try backend.copy(gradient, into: buffer) }
        gradient = buffer
        gradientIsShared = false
        return buffer
    }

    /// Adds ∂L/∂value, which the caller has made for this variable alone.
    ///
    /// - Throws: `ComputeError.shapeMismatch`.
    public func add(_ tensor: Tensor, on backend: any Backend) throws {
        guard tensor.shape == value.shape, tensor.dtype == .float32 else {
            throw ComputeError.shapeMismatch(
                operation: "gradient", expected: "float32 \(value.shape)",
                found: "\(tensor.dtype) \(tensor.shape)")
        }
        try receive(shared: tensor, backend: backend)
    }

    /// Takes over `tensor` as the gradient if there is none yet, else adds it.
    func receive(shared tensor: Tensor, backend: any Backend) throws {
        if gradient == nil {
            gradient = tensor
            gradientIsShared = true
        } else {
            try backend.accumulate(tensor, into: gradientForAdding(on: backend))
        }
    }

    /// Removes the gradient, which its owner has taken.
    public func removeGradient() { gradient = nil }

    /// Drops the gradient once it has been used, to free its memory, unless it is to be kept.
    func dropGradient() { if !retainsGradient { gradient = nil } }
}
