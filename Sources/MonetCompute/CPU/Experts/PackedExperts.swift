import CMonetKernels

extension CPUBackend {
    /// Packs the down-projections by expert, unless they already are, and returns the pages of mapped columns
    /// to the system, so that only one copy stays in memory.
    public func prepare(_ weights: ExpertWeights<Tensor>) throws -> PreparedWeights {
        _ = try ExpertExtents(weights, self)
        var packed = weights
        for (place, down) in weights.down.enumerated() {
            guard case .columns(let matrices) = down.matrices else { continue }
            let experts = down.bias.rowCount
            guard let first = matrices.first, experts > 0, first.shape.count == 2, !first.dtype.isQuantized,
                first.columnCount % experts == 0,
                matrices.allSatisfy({ $0.shape == first.shape && $0.dtype == first.dtype })
            else {
                throw ComputeError.shapeMismatch(
                    operation: "preparing experts",
                    expected: "matrices [width, \(experts) · m] of one type",
                    found: matrices.map { "\($0.dtype) \($0.shape)" }.joined(separator: ", "))
            }
            packed.down[place].matrices = .rows(.expertRows(of: matrices, experts: experts, pool: pool))
            for matrix in matrices { matrix.hostStorage.releasePages() }
        }
        return PreparedWeights(
            PackedExperts(weights: packed, extents: try ExpertExtents(packed, self)))
    }
}

/// Expert weights in rows, the layout that packed execution reads.
struct PackedExperts: Sendable {
    let weights: ExpertWeights<Tensor>
    let extents: ExpertExtents

    /// The rows of one projection.
    func down(_ place: Int) throws -> (rows: Tensor, bias: Tensor) {
        guard case .rows(let rows) = weights.down[place].matrices else {
            throw ComputeError.foreignPreparation(operation: "packed experts", device: "cpu")
        }
        return (rows, weights.down[place].bias)
    }
}

extension Tensor {
    /// Packs matrices `[width, E · units]`, whose columns belong to experts, into `[E · rows, width]`: an
    /// expert's rows of all matrices together, as inference reads them (`ExpertWeights.Down.Matrices.rows`).
    public static func expertRows(of matrices: [Tensor], experts: Int, pool: WorkerPool = .shared) -> Tensor {
        let (width, columns, dtype) = (matrices[0].shape[0], matrices[0].shape[1], matrices[0].dtype)
        let units = columns / experts
        let rows = matrices.count * units
        let result = Tensor(uninitialized: [experts * rows, width], dtype: dtype)
        // Adjacent columns per block, which fill several cache lines of a row.
        let block = 256
        pool.parallel(chunks: (columns + block - 1) / block) { chunk in
            let range = (chunk * block)..<min(columns, (chunk + 1) * block)
            for (place, matrix) in matrices.enumerated() {
                let targets = range.map { $0 / units * rows + place * units + $0 % units }
                if dtype.byteCount == 2 {
                    copyColumns(monet_columns_16, of: matrix, from: range.lowerBound, to: targets, of: result)
                } else {
                    copyColumns(monet_columns_32, of: matrix, from: range.lowerBound, to: targets, of: result)
                }
            }
        }
        return result
    }

    /// Copies columns of a matrix, from `first` on, to rows of `target`.
    private static func copyColumns<Element>(
        _ copy: (
            UnsafePointer<UnsafeMutablePointer<Element>>, UnsafePointer<Element>, Int, Int, Int
        ) -> Void,
        of matrix: Tensor, from first: Int, to rows: [Int], of target: Tensor
    ) {
        let from = matrix.address.assumingMemoryBound(to: Element.self)
        let to = target.address.assumingMemoryBound(to: Element.self)
        let lines = rows.map { to + $0 * target.columnCount }
        copy(lines, from + first, matrix.columnCount, matrix.shape[0], rows.count)
    }
}
