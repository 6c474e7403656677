/// A dense row-major array over a device's storage.
///
///     let x = Tensor([1.0, 2, 3, 4, 5, 6], shape: [2, 3])
///     let half = x.converted(to: .bfloat16)
///     print(half.shape, half.floats())
///
/// A tensor is a handle: copies share their elements. Views (`slice`, `reshaped`) exist on every device;
/// elements are read with `floats()` or `withFloats` and written with `write`.
public struct Tensor: Sendable {
    /// Extents, outermost first. Empty for a scalar.
    public let shape: [Int]
    /// Type of the elements.
    public let dtype: DType
    /// The memory behind the elements.
    public let storage: any TensorStorage
    /// Where the first element lies in the storage, in bytes.
    public let byteOffset: Int

    /// A view of existing storage; how a device makes its tensors.
    public init(shape: [Int], dtype: DType, storage: any TensorStorage, byteOffset: Int = 0) {
        self.shape = shape
        self.dtype = dtype
        self.storage = storage
        self.byteOffset = byteOffset
    }

    /// Number of elements.
    public var count: Int { shape.reduce(1, *) }
    /// Bytes that the elements take.
    public var byteCount: Int { rowCount * rowByteCount }
    /// Bytes from one row to the next.
    package var rowByteCount: Int { dtype.rowByteCount(columns: columnCount) }
    /// The product of all extents but the last.
    public var rowCount: Int { shape.isEmpty ? 1 : shape.dropLast().reduce(1, *) }
    /// The last extent.
    public var columnCount: Int { shape.last ?? 1 }

    /// The same elements under another shape of equal count.
    public func reshaped(_ newShape: [Int]) -> Tensor {
        precondition(newShape.reduce(1, *) == count, "\(shape) cannot be viewed as \(newShape)")
        return Tensor(shape: newShape, dtype: dtype, storage: storage, byteOffset: byteOffset)
    }

    /// Rows `range` of the outermost extent, without copying.
    public func slice(_ range: Range<Int>) -> Tensor {
        precondition(
            !shape.isEmpty && range.lowerBound >= 0 && range.upperBound <= shape[0], "slice outside \(shape)")
        precondition(shape.count > 1 || !dtype.isQuantized, "a part of a quantized row")
        let stride =
            shape.count == 1 ? dtype.byteCount : shape.dropFirst().dropLast().reduce(1, *) * rowByteCount
        return Tensor(
            shape: [range.count] + shape.dropFirst(), dtype: dtype, storage: storage,
            byteOffset: byteOffset + range.lowerBound * stride)
    }

    // MARK: Reading and writing

    /// The tensor in host memory; itself if it is there.
    public var onHost: Tensor {
        if isOnHost { return self }
        let result = Tensor(uninitialized: shape, dtype: dtype)
        storage.read(
            byteOffset..<(byteOffset + byteCount),
            into: UnsafeMutableRawBufferPointer(start: result.address, count: byteCount))
        return result
    }

    /// The bytes of the elements, valid inside `body`.
    public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result
    {
        let host = onHost
        return try withExtendedLifetime(host) {
            try body(UnsafeRawBufferPointer(start: host.address, count: host.byteCount))
        }
    }

    /// The elements as float32 values, valid inside `body`: in place if they are such in host memory.
    public func withFloats<Result>(_ body: (UnsafeBufferPointer<Float>) throws -> Result) rethrows -> Result {
        let host = onHost.converted(to: .float32)
        return try withExtendedLifetime(host) {
            try body(UnsafeBufferPointer(start: host.pointer, count: host.count))
        }
    }

    /// The elements as float32 values.
    public func floats() -> [Float] {
        let host = onHost
        let count = count
        return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            if let base = buffer.baseAddress { host.read(into: base, from: 0, count: count) }
            initialized = count
        }
    }

    /// The elements as integers; floating-point elements are truncated.
    public func integers() -> [Int] {
        func loaded<Element: FixedWidthInteger>(_ type: Element.Type) -> [Int] {
            withUnsafeBytes { bytes in
                (0..<count).map {
                    Int(bytes.loadUnaligned(fromByteOffset: MemoryLayout<Element>.size * $0, as: type))
                }
            }
        }
        return switch dtype {
        case .int32: loaded(Int32.self)
        case .int64: loaded(Int64.self)
        case .uint8: loaded(UInt8.self)
        case .float32, .bfloat16, .float16, .int8Rows, .int4Rows: floats().map { Int($0) }
        }
    }

    /// Replaces the elements of a writable float32 tensor.
    ///
    /// - Throws: `ComputeError.shapeMismatch`, `.unsupportedDType`, `.readOnly`.
    public func write(_ values: [Float]) throws {
        guard dtype == .float32 else {
            throw ComputeError.unsupportedDType(operation: "writing float32 values", dtype: dtype)
        }
        try values.withUnsafeBytes { try writeBytes($0, count: values.count) }
    }

    /// Replaces the elements of a writable int64 tensor.
    ///
    /// - Throws: as the method for float32.
    public func write(_ values: [Int64]) throws {
        guard dtype == .int64 else {
            throw ComputeError.unsupportedDType(operation: "writing int64 values", dtype: dtype)
        }
        try values.withUnsafeBytes { try writeBytes($0, count: values.count) }
    }

    private func writeBytes(_ bytes: UnsafeRawBufferPointer, count: Int) throws {
        guard count == self.count else {
            throw ComputeError.shapeMismatch(
                operation: "writing", expected: "\(self.count) values for \(shape)", found: "\(count)")
        }
        guard storage.isWritable else { throw ComputeError.readOnly(operation: "writing") }
        storage.write(bytes, at: byteOffset)
    }
}
