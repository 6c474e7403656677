import CMonetKernels
import Foundation

/// A dense row-major array over shared storage, owned or mapped.
///
///     let x = Tensor([1, 2, 3, 4, 5, 6], shape: [2, 3])
///     let half = x.converted(to: .bfloat16)
///     print(half.shape, half.floats())
///
/// A tensor is a handle: copies share their elements.
public struct Tensor: Sendable {
    /// Extents, outermost first. Empty for a scalar.
    public let shape: [Int]
    /// Type of the elements.
    public let dtype: DType
    /// The memory behind the elements.
    public let storage: TensorStorage
    /// Where the first element lies in the storage, in bytes.
    public let byteOffset: Int

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

    /// A view of existing storage.
    package init(shape: [Int], dtype: DType, storage: TensorStorage, byteOffset: Int = 0) {
        self.shape = shape
        self.dtype = dtype
        self.storage = storage
        self.byteOffset = byteOffset
    }

    /// A tensor whose elements hold whatever the memory held.
    public init(uninitialized shape: [Int], dtype: DType = .float32) {
        let rows = shape.dropLast().reduce(1, *)
        let rowBytes = dtype.rowByteCount(columns: shape.last ?? 1)
        self.init(shape: shape, dtype: dtype, storage: TensorStorage(byteCount: rows * rowBytes))
    }

    /// A tensor of zeros.
    public init(zeros shape: [Int], dtype: DType = .float32) {
        self.init(uninitialized: shape, dtype: dtype)
        memset(address, 0, byteCount)
    }

    /// A float32 tensor whose elements all are `value`.
    public init(filled shape: [Int], with value: Float) {
        self.init(uninitialized: shape)
        UnsafeMutableBufferPointer(start: pointer, count: count).update(repeating: value)
    }

    /// A float32 tensor of `values`.
    public init(_ values: [Float], shape: [Int]) {
        precondition(values.count == shape.reduce(1, *), "\(values.count) values for shape \(shape)")
        self.init(uninitialized: shape)
        values.withUnsafeBytes {
            UnsafeMutableRawBufferPointer(start: address, count: byteCount).copyMemory(from: $0)
        }
    }

    /// An int32 tensor of `values`.
    public init(_ values: [Int32], shape: [Int]) {
        precondition(values.count == shape.reduce(1, *), "\(values.count) values for shape \(shape)")
        self.init(uninitialized: shape, dtype: .int32)
        values.withUnsafeBytes {
            UnsafeMutableRawBufferPointer(start: address, count: byteCount).copyMemory(from: $0)
        }
    }

    /// A list of int64.
    public init(int64 values: [Int]) {
        self.init(uninitialized: [values.count], dtype: .int64)
        for (index, value) in values.enumerated() {
            address.storeBytes(of: Int64(value), toByteOffset: 8 * index, as: Int64.self)
        }
    }

    /// An int64 scalar.
    public init(scalar value: Int64) {
        self.init(uninitialized: [], dtype: .int64)
        address.storeBytes(of: value, as: Int64.self)
    }

    package var address: UnsafeMutableRawPointer { storage.address + byteOffset }

    /// The elements of a float32 tensor.
    package var pointer: UnsafeMutablePointer<Float> {
        precondition(dtype == .float32, "float32 elements asked of a \(dtype) tensor")
        return address.assumingMemoryBound(to: Float.self)
    }

    /// The bytes of the elements, valid inside `body`.
    public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result
    {
        try withExtendedLifetime(storage) {
            try body(UnsafeRawBufferPointer(start: address, count: byteCount))
        }
    }

    /// The elements as float32 values.
    public func floats() -> [Float] {
        let count = count
        return [Float](unsafeUninitializedCapacity: count) { buffer, initialized in
            if let base = buffer.baseAddress { read(into: base, from: 0, count: count) }
            initialized = count
        }
    }

    /// The elements as integers; floating-point elements are truncated.
    public func integers() -> [Int] {
        withExtendedLifetime(storage) {
            switch dtype {
            case .int32:
                (0..<count).map { Int(address.loadUnaligned(fromByteOffset: 4 * $0, as: Int32.self)) }
            case .int64:
                (0..<count).map { Int(address.loadUnaligned(fromByteOffset: 8 * $0, as: Int64.self)) }
            case .uint8: (0..<count).map { Int(address.load(fromByteOffset: $0, as: UInt8.self)) }
            case .float32, .bfloat16, .float16, .int8Rows, .int4Rows: floats().map { Int($0) }
            }
        }
    }

    /// Writes `count` elements from element `start` on as float32.
    package func read(into out: UnsafeMutablePointer<Float>, from start: Int, count: Int) {
        let kernels = Kernels.best.functions
        if dtype.isQuantized {
            var done = 0
            while done < count {
                let (row, column) = (start + done).quotientAndRemainder(dividingBy: columnCount)
                let length = Swift.min(columnCount - column, count - done)
                readRow(row, columns: column..<(column + length), into: out + done)
                done += length
            }
            return
        }
        let source = address + start * dtype.byteCount
        switch dtype {
        case .float32: memcpy(out, source, count * 4)
        case .bfloat16: kernels.bf16_to_f32(out, source.assumingMemoryBound(to: UInt16.self), count)
        case .float16: kernels.f16_to_f32(out, source.assumingMemoryBound(to: UInt16.self), count)
        case .int32:
            for i in 0..<count { out[i] = Float(source.loadUnaligned(fromByteOffset: 4 * i, as: Int32.self)) }
        case .int64:
            for i in 0..<count { out[i] = Float(source.loadUnaligned(fromByteOffset: 8 * i, as: Int64.self)) }
        case .uint8:
            for i in 0..<count { out[i] = Float(source.load(fromByteOffset: i, as: UInt8.self)) }
        case .int8Rows, .int4Rows: break
        }
    }

    /// Writes some columns of a row of real numbers as float32.
    package func readRow(_ row: Int, columns: Range<Int>, into out: UnsafeMutablePointer<Float>) {
        guard let rows = Kernels.best.rows(dtype) else {
            return read(into: out, from: row * columnCount + columns.lowerBound, count: columns.count)
        }
        rows.widen(out, address + row * rowByteCount, columns.lowerBound, columns.count, columnCount)
    }

    /// The same elements in another type; the tensor itself if it has that type.
    public func converted(to target: DType) -> Tensor {
        guard target != dtype else { return self }
        if target.isQuantized { return quantized(to: target) }
        let kernels = Kernels.best.functions
        let result = Tensor(uninitialized: shape, dtype: target)
        let block = 1 << 16
        withUnsafeTemporaryAllocation(of: Float.self, capacity: Swift.min(block, Swift.max(1, count))) {
            scratch in
            guard let base = scratch.baseAddress else { return }
            for start in stride(from: 0, to: count, by: block) {
                let length = Swift.min(block, count - start)
                read(into: base, from: start, count: length)
                let out = result.address + start * target.byteCount
                switch target {
                case .float32: memcpy(out, base, length * 4)
                case .bfloat16: kernels.f32_to_bf16(out.assumingMemoryBound(to: UInt16.self), base, length)
                case .float16: kernels.f32_to_f16(out.assumingMemoryBound(to: UInt16.self), base, length)
                case .int32:
                    for i in 0..<length {
                        out.storeBytes(of: Int32(base[i]), toByteOffset: 4 * i, as: Int32.self)
                    }
                case .int64:
                    for i in 0..<length {
                        out.storeBytes(of: Int64(base[i]), toByteOffset: 8 * i, as: Int64.self)
                    }
                case .uint8, .int8Rows, .int4Rows:
                    preconditionFailure("tensors are not converted to \(target)")
                }
            }
        }
        return result
    }

    /// Replaces the elements of an owned float32 tensor.
    package func overwrite(_ values: [Float]) {
        precondition(
            values.count == count && !storage.isMapped, "overwriting \(shape) with \(values.count) values")
        values.withUnsafeBytes {
            UnsafeMutableRawBufferPointer(start: address, count: byteCount).copyMemory(from: $0)
        }
    }

    /// Replaces the element of an owned int64 scalar.
    package func overwrite(_ value: Int64) {
        precondition(dtype == .int64 && count == 1 && !storage.isMapped, "overwriting a scalar")
        address.storeBytes(of: value, as: Int64.self)
    }

    /// A writable copy.
    public func copy() -> Tensor {
        let result = Tensor(uninitialized: shape, dtype: dtype)
        memcpy(result.address, address, byteCount)
        return result
    }

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
}
