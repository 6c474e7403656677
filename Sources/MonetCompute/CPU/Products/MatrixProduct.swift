import CMonetKernels
import COneDNN
import Foundation

#if canImport(Accelerate)
    import Accelerate
#endif

/// How operands of dense products are rounded.
public enum ComputePrecision: String, Sendable, Codable, CaseIterable {
    /// Products of float32 values; narrower weights are widened.
    case float32
    /// Both operands rounded to bfloat16, with sums in float32, natively where the processor can. Elsewhere
    /// scaled 16-bit integer products, which lose less precision, where they are faster.
    case bfloat16
}

/// A matrix in memory, possibly to be read transposed.
struct MatrixOperand {
    var address: UnsafeMutableRawPointer
    var dtype: DType
    /// Elements from one stored row to the next; for quantized rows, their length.
    var stride: Int
    /// Whether the stored rows are the operand's columns.
    var isTransposed: Bool
    /// The kernels that read rows of other types than float32.
    private let format: monet_row_kernels?

    /// A float32 tensor, or one of another real type whose kernels are `format`.
    init(_ tensor: Tensor, transposed: Bool = false, format: monet_row_kernels? = nil) {
        precondition(tensor.dtype == .float32 || format != nil, "a product of \(tensor.dtype) values")
        address = tensor.address
        dtype = tensor.dtype
        stride = tensor.columnCount
        isTransposed = transposed
        self.format = format
    }

    /// Rows of float32 values.
    init(_ address: UnsafeMutableRawPointer, stride: Int, transposed: Bool = false) {
        self.address = address
        dtype = .float32
        self.stride = stride
        isTransposed = transposed
        format = nil
    }

    /// Some columns of a stored row as float32.
    func widen(_ row: Int, _ columns: Range<Int>, into out: UnsafeMutablePointer<Float>) {
        let source = address + row * rowByteCount
        if let format {
            format.widen(out, source, columns.lowerBound, columns.count, stride)
        } else {
            memcpy(out, source + 4 * columns.lowerBound, 4 * columns.count)
        }
    }

    var rowByteCount: Int { dtype.rowByteCount(columns: stride) }

    /// The operand from row `row` and column `column` on.
    func advanced(row: Int = 0, column: Int = 0) -> MatrixOperand {
        var result = self
        let (storedRow, element) = isTransposed ? (column, row) : (row, column)
        result.address += storedRow * rowByteCount
        // Quantized rows are only ever split between rows.
        if element > 0 { result.address += element * dtype.byteCount }
        return result
    }
}

/// Dense matrix products over a worker pool: oneDNN on Linux, Accelerate on Apple systems.
struct MatrixProduct: Sendable {
    let pool: WorkerPool
    let instructionSet: Kernels
    private var kernels: monet_kernels { instructionSet.functions }
    let precision: ComputePrecision
    let policy: DispatchPolicy

    /// Whether the processor multiplies bfloat16 operands natively.
    static let hasNativeBFloat16: Bool = {
        #if os(Linux)
            monet_onednn_has_native_bf16()
        #else
            false
        #endif
    }()

    /// `c[m,n] (+)= a[m,k] · b[k,n]`, row-major, `c` in float32 with rows `cStride` apart.
    func multiply(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
        into c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        if m == 0 || n == 0 { return }
        if k == 0 {
            if !accumulate { for row in 0..<m { memset(c + row * cStride, 0, n * 4) } }
            return
        }
        if precision == .bfloat16, prefersIntegers(m: m, n: n) {
            multiplyIntegers(m: m, n: n, k: k, a, b, into: c, cStride: cStride, accumulate: accumulate)
        } else if precision == .bfloat16 {
            let left = roundedToBFloat16(a, rows: m, columns: k)
            let right = roundedToBFloat16(b, rows: k, columns: n)
            withExtendedLifetime((left.tensor, right.tensor)) {
                split(
                    m: m, n: n, k: k, left.operand, right.operand, c: c, cStride: cStride,
                    accumulate: accumulate)
            }
        } else {
            split(m: m, n: n, k: k, a, b, c: c, cStride: cStride, accumulate: accumulate)
        }
    }

    /// Shares the product among the pool's threads by rows or by columns, whichever is longer.
    private func split(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
        c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        let byRows = m >= n
        let extent = byRows ? m : n
        let work = m * n * k
        // Widened blocks of a narrow operand should stay in the second-level cache.
        let isNarrow = (byRows ? a : b).dtype != .float32 && !Self.runsNatively(a, b)
        var chunks = work < policy.productPerThread ? 1 : pool.shareCount
        if isNarrow { chunks = max(chunks, extent * k / (1 << 17)) }
        let unit = 16
        chunks = max(1, min(chunks, (extent + unit - 1) / unit))
        pool.parallel(chunks: chunks) { chunk in
            let units = (extent + unit - 1) / unit
            let start = min(extent, units * chunk / chunks * unit)
            let end = min(extent, units * (chunk + 1) / chunks * unit)
            if start >= end { return }
            if byRows {
                single(
                    m: end - start, n: n, k: k, a.advanced(row: start), b, c: c + start * cStride,
                    cStride: cStride, accumulate: accumulate)
            } else {
                single(
                    m: m, n: end - start, k: k, a, b.advanced(column: start), c: c + start,
                    cStride: cStride, accumulate: accumulate)
            }
        }
    }

    private static func runsNatively(_ a: MatrixOperand, _ b: MatrixOperand) -> Bool {
        a.dtype == .bfloat16 && b.dtype == .bfloat16 && hasNativeBFloat16
    }

    /// One product on the calling thread.
    private func single(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
        c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        #if os(Linux)
            if Self.runsNatively(a, b) {
                let status = monet_onednn_matmul(
                    true, a.isTransposed, b.isTransposed, Int64(m), Int64(n), Int64(k), a.address,
                    Int64(a.stride),
                    b.address, Int64(b.stride), accumulate, c, Int64(cStride))
                if status == 0 { return }
            }
        #endif
        let left = widened(a, rows: m, columns: k)
        let right = widened(b, rows: k, columns: n)
        withExtendedLifetime((left.tensor, right.tensor)) {
            singlePrecision(
                m: m, n: n, k: k, left.operand, right.operand, c: c, cStride: cStride, accumulate: accumulate)
        }
    }

    func singlePrecision(
        m: Int, n: Int, k: Int, _ a: MatrixOperand, _ b: MatrixOperand,
        c: UnsafeMutablePointer<Float>, cStride: Int, accumulate: Bool
    ) {
        let left = a.address.assumingMemoryBound(to: Float.self)
        let right = b.address.assumingMemoryBound(to: Float.self)
        #if canImport(Accelerate)
            cblas_sgemm(
                CblasRowMajor, a.isTransposed ? CblasTrans : CblasNoTrans,
                b.isTransposed ? CblasTrans : CblasNoTrans,
                Int32(m), Int32(n), Int32(k), 1, left, Int32(a.stride), right, Int32(b.stride),
                accumulate ? 1 : 0, c, Int32(cStride))
        #else
            let status = monet_onednn_sgemm(
                a.isTransposed, b.isTransposed, Int64(m), Int64(n), Int64(k), left, Int64(a.stride),
                right, Int64(b.stride), accumulate, c, Int64(cStride))
            // It fails only if memory runs out, in which case Swift's own allocations end the process too.
            precondition(status == 0, "oneDNN could not multiply \(m)×\(k) by \(k)×\(n): status \(status)")
        #endif
    }

    /// A float32 copy of a narrow operand; the operand itself if it is float32.
    private func widened(_ x: MatrixOperand, rows: Int, columns: Int) -> (
        operand: MatrixOperand, tensor: Tensor?
    ) {
        if x.dtype == .float32 { return (x, nil) }
        let (storedRows, storedColumns) = x.isTransposed ? (columns, rows) : (rows, columns)
        let copy = Tensor(uninitialized: [storedRows, storedColumns])
        for row in 0..<storedRows {
            x.widen(row, 0..<storedColumns, into: copy.pointer + row * storedColumns)
        }
        return (MatrixOperand(copy, transposed: x.isTransposed), copy)
    }

    /// The operand with values rounded to bfloat16: stored as bfloat16 where products run natively, else
    /// as float32, which gives the same products.
    private func roundedToBFloat16(
        _ x: MatrixOperand, rows: Int, columns: Int
    ) -> (operand: MatrixOperand, tensor: Tensor?) {
        if x.dtype == .bfloat16 { return (x, nil) }
        let (storedRows, storedColumns) = x.isTransposed ? (columns, rows) : (rows, columns)
        let target: DType = Self.hasNativeBFloat16 ? .bfloat16 : .float32
        let copy = Tensor(uninitialized: [storedRows, storedColumns], dtype: target)
        let (wide, wideTensor) = widened(x, rows: rows, columns: columns)
        defer { withExtendedLifetime(wideTensor) {} }
        let source = wide.address.assumingMemoryBound(to: Float.self)
        pool.forEachRange(of: storedRows, minimum: max(1, (1 << 14) / max(1, storedColumns))) { range, _ in
            for row in range {
                if target == .bfloat16 {
                    let out = copy.address.assumingMemoryBound(to: UInt16.self) + row * storedColumns
                    kernels.f32_to_bf16(out, source + row * wide.stride, storedColumns)
                } else {
                    kernels.round_to_bf16(
                        copy.pointer + row * storedColumns, source + row * wide.stride, storedColumns)
                }
            }
        }
        return (
            MatrixOperand(copy, transposed: x.isTransposed, format: instructionSet.rows(target)), copy
        )
    }
}
