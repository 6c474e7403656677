import CMonetKernels
import Foundation
import MonetFoundation

// Tensors in host memory: how they are made, and the only place that turns a tensor into an address.
// Only this folder, and `Tensor`'s own reading and writing, use addresses.

extension Tensor {
    /// A view of bytes of a mapped file.
    package init(shape: [Int], dtype: DType, mapping: MappedFile, range: Range<Int>) {
        self.init(shape: shape, dtype: dtype, storage: HostStorage(mapping: mapping, range: range))
    }

    /// A tensor with uninitialized elements.
    public init(uninitialized shape: [Int], dtype: DType = .float32) {
        let rows = shape.dropLast().reduce(1, *)
        let rowBytes = dtype.rowByteCount(columns: shape.last ?? 1)
        self.init(shape: shape, dtype: dtype, storage: HostStorage(byteCount: rows * rowBytes))
    }

    /// A tensor of zeros.
    public init(zeros shape: [Int], dtype: DType = .float32) {
        self.init(uninitialized: shape, dtype: dtype)
        memset(address, 0, byteCount)
    }

    /// A float32 tensor whose elements are all `value`.
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

    /// A tensor filled block by block, on all threads: `values` gives the elements of a block by its number.
    public init(
        shape: [Int], dtype: DType, blocks size: Int,
        values: @Sendable (_ block: Int, _ count: Int) -> [Float]
    ) {
        self.init(uninitialized: shape, dtype: dtype)
        let (total, address) = (count, address)
        WorkerPool.shared.parallel(chunks: (total + size - 1) / size) { block in
            let length = Swift.min(size, total - block * size)
            let source = Tensor(values(block, length), shape: [length]).converted(to: dtype)
            (address + block * size * dtype.byteCount).copyMemory(
                from: source.address, byteCount: source.byteCount)
        }
    }

    /// Whether the elements lie in host memory.
    public var isOnHost: Bool { ObjectIdentifier(type(of: storage)) == ObjectIdentifier(HostStorage.self) }

    /// The storage of a tensor in host memory.
    var hostStorage: HostStorage {
        precondition(isOnHost, "host memory requested from a tensor on another device")
        return unsafeDowncast(storage, to: HostStorage.self)
    }

    package var address: UnsafeMutableRawPointer { hostStorage.address + byteOffset }

    /// The elements of a float32 tensor.
    package var pointer: UnsafeMutablePointer<Float> {
        precondition(dtype == .float32, "float32 elements requested from a \(dtype) tensor")
        return address.assumingMemoryBound(to: Float.self)
    }

    /// Writes `count` elements from element `start` on as float32.
    func read(
        into out: UnsafeMutablePointer<Float>, from start: Int, count: Int, by instructionSet: Kernels = .best
    ) {
        let kernels = instructionSet.functions
        if dtype.isQuantized {
            var done = 0
            while done < count {
                let (row, column) = (start + done).quotientAndRemainder(dividingBy: columnCount)
                let length = Swift.min(columnCount - column, count - done)
                readRow(row, columns: column..<(column + length), into: out + done, by: instructionSet)
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
    func readRow(
        _ row: Int, columns: Range<Int>, into out: UnsafeMutablePointer<Float>,
        by instructionSet: Kernels = .best
    ) {
        guard let rows = instructionSet.rows(dtype) else {
            return read(
                into: out, from: row * columnCount + columns.lowerBound, count: columns.count,
                by: instructionSet)
        }
        rows.widen(out, address + row * rowByteCount, columns.lowerBound, columns.count, columnCount)
    }

    /// The same elements in another type, in host memory; the tensor itself if it has that type.
    public func converted(to target: DType) -> Tensor { converted(to: target, by: .best) }

    /// The same with the kernels of one instruction set.
    func converted(to target: DType, by instructionSet: Kernels, pool: WorkerPool = .shared) -> Tensor {
        guard target != dtype else { return self }
        guard isOnHost else { return onHost.converted(to: target, by: instructionSet, pool: pool) }
        if target.isQuantized { return quantized(to: target, by: instructionSet, pool: pool) }
        let kernels = instructionSet.functions
        let result = Tensor(uninitialized: shape, dtype: target)
        let block = 1 << 16
        withScratch(Swift.min(block, count)) { base in
            for start in stride(from: 0, to: count, by: block) {
                let length = Swift.min(block, count - start)
                read(into: base, from: start, count: length, by: instructionSet)
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

    /// A writable copy in host memory.
    public func copy() -> Tensor {
        let result = Tensor(uninitialized: shape, dtype: dtype)
        storage.read(
            byteOffset..<(byteOffset + byteCount),
            into: UnsafeMutableRawBufferPointer(start: result.address, count: byteCount))
        return result
    }
}
