import CMonetKernels

/// Rows of activations in the format that products with one type of weights read: float32 itself, or
/// a format to which they are converted once for all rows of weights.
struct RowActivations {
    let address: UnsafeMutableRawPointer
    /// Bytes from one row to the next.
    let stride: Int
    private let owner: Tensor?

    /// Prepares the first `columns` values of every row; rows that need no conversion are not copied.
    init(_ x: Tensor, columns: Int, for format: monet_row_kernels, pool: WorkerPool) {
        self.init(
            x.pointer, rows: x.rowCount, columns: columns, stride: x.columnCount, for: format, pool: pool,
            owner: x)
    }

    /// The same of rows at `x`, `stride` values apart, which must outlive this.
    init(
        _ x: UnsafeMutablePointer<Float>, rows: Int, columns: Int, stride: Int, for format: monet_row_kernels,
        pool: WorkerPool, owner: Tensor? = nil
    ) {
        guard let byteCount = format.activation_bytes, let prepare = format.prepare else {
            address = UnsafeMutableRawPointer(x)
            self.stride = stride * 4
            self.owner = owner
            return
        }
        // Rows begin on cache lines, but not a power of two apart, where all would share a few cache sets.
        let lines = (byteCount(columns) + 63) / 64
        let rowBytes = (lines % 16 == 0 ? lines + 1 : lines) * 64
        let prepared = Tensor(uninitialized: [rows, rowBytes / 4])
        pool.forEachRange(of: rows, minimum: 8) { range, _ in
            for row in range { prepare(prepared.address + row * rowBytes, x + row * stride, columns) }
        }
        self.stride = rowBytes
        address = prepared.address
        self.owner = prepared
    }
}
