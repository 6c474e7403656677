import CMonetKernels
import Foundation

/// The down-projection of one side: for each expert, rows of hidden units followed by the output bias,
/// `[E, rows, width]`, and each entry's coefficients for them, `[entries, rows]`.
struct DownProjection: Sendable {
    let weights: Tensor
    let coefficients: Tensor
    let rows: Int
    let width: Int
}

// Sums over the selected experts of a token: each entry's coefficients times its expert's packed rows.

extension CPUBackend {
    /// Packs `[width, E · units]` matrices and the bias `[E, width]` by expert.
    func downProjection(
        _ matrices: [Tensor], bias: Tensor, coefficients: Tensor, experts: Int
    ) -> DownProjection {
        let (rows, width) = (coefficients.columnCount, bias.columnCount)
        let units = (rows - 1) / max(1, matrices.count)
        let weights = Tensor(uninitialized: [experts, rows, width])
        for (place, matrix) in matrices.enumerated() {
            transpose(matrix, units: units, place: place * units, rows: rows, into: weights.pointer)
        }
        for expert in 0..<experts {
            bias.readRow(
                expert, columns: 0..<width, into: weights.pointer + (expert * rows + rows - 1) * width,
                by: instructionSet)
        }
        return DownProjection(weights: weights, coefficients: coefficients, rows: rows, width: width)
    }

    /// Transposes a `[width, E · units]` matrix into rows of `target`, from row `place` of every expert on.
    private func transpose(
        _ matrix: Tensor, units: Int, place: Int, rows: Int, into target: UnsafeMutablePointer<Float>
    ) {
        let (block, width, columns) = (64, matrix.shape[0], matrix.shape[1])
        pool.parallel(chunks: (width + block - 1) / block) { index in
            let (start, end) = (index * block, min(width, (index + 1) * block))
            let lineStride = Self.paddedStride(columns)
            let lines = Tensor(uninitialized: [end - start, lineStride])
            for line in start..<end {
                matrix.readRow(
                    line, columns: 0..<columns, into: lines.pointer + (line - start) * lineStride,
                    by: instructionSet)
            }
            for column in 0..<columns {
                let row = column / units * rows + place + column % units
                let out = target + row * width + start
                let source = lines.pointer + column
                for line in 0..<(end - start) { out[line] = source[line * lineStride] }
            }
        }
    }

    /// out = coefficients · weights, summed over each token's experts.
    func project(
        _ down: DownProjection, _ selection: ExpertSelection, into out: UnsafeMutablePointer<Float>,
        stride: Int
    ) {
        scatter(
            down.coefficients, down.rows, down.weights.pointer, selection, down.width, into: out,
            stride: stride,
            adds: false)
    }

    /// Adds `coefficients · weights` of every entry to its token's row, in blocks of tokens whose
    /// rows stay in the cache and belong to one thread.
    func scatter(
        _ coefficients: Tensor, _ units: Int, _ weights: UnsafePointer<Float>, _ selection: ExpertSelection,
        _ width: Int, into out: UnsafeMutablePointer<Float>, stride: Int, adds: Bool
    ) {
        let tokens = selection.tokens
        let fitting = max(64, (1 << 17) / max(1, width))
        let perThread = (tokens + pool.shareCount - 1) / pool.shareCount
        let block = max(1, min(fitting, perThread))
        pool.parallel(chunks: (tokens + block - 1) / block) { index in
            let range = (index * block)..<min(tokens, (index + 1) * block)
            let rowStride = Self.paddedStride(width)
            let sums = Tensor(zeros: [range.count, rowStride])
            let local = Tensor(uninitialized: [range.count], dtype: .int32)
            let localRows = local.address.assumingMemoryBound(to: Int32.self)
            for expert in 0..<selection.experts {
                let entries = selection.entries(of: expert, in: range)
                if entries.isEmpty { continue }
                for (place, entry) in entries.enumerated() {
                    localRows[place] = selection.rows[entry] - Int32(range.lowerBound)
                }
                kernels.scatter_add(
                    sums.pointer, rowStride, localRows, entries.count,
                    coefficients.pointer + entries.lowerBound * units, units,
                    weights + expert * units * width, width,
                    units, width)
            }
            for (place, token) in range.enumerated() {
                if adds {
                    kernels.axpy(out + token * stride, 1, sums.pointer + place * rowStride, width)
                } else {
                    memcpy(out + token * stride, sums.pointer + place * rowStride, width * 4)
                }
            }
        }
    }

    /// Adds to the gradients of the packed matrices and the bias; returns the coefficients' gradient.
    func downGradient(
        _ down: DownProjection, _ dOut: Tensor, _ selection: ExpertSelection, units matrices: [Tensor],
        bias: Tensor
    ) -> Tensor {
        let (rows, width) = (down.rows, down.width)
        let units = (rows - 1) / max(1, matrices.count)
        let dCoefficients = Tensor(uninitialized: [selection.entryCount, rows])
        let rowStride = Self.paddedStride(width)
        let dWeights = Tensor(zeros: [selection.experts, rows, rowStride])
        forEachExpert(selection) { expert, entries in
            let tokens = selection.rows + entries.lowerBound
            kernels.gathered_dot(
                dCoefficients.pointer + entries.lowerBound * rows, rows, dOut.pointer, dOut.columnCount,
                tokens,
                entries.count, down.weights.pointer + expert * rows * width, width, rows, width)
            kernels.gathered_outer(
                dWeights.pointer + expert * rows * rowStride, rowStride,
                down.coefficients.pointer + entries.lowerBound * rows, rows, rows, dOut.pointer,
                dOut.columnCount,
                tokens, entries.count, width)
            kernels.axpy(
                bias.pointer + expert * width, 1, dWeights.pointer + (expert * rows + rows - 1) * rowStride,
                width
            )
        }
        // Back to the checkpoint's layout, in tiles that stay in the cache.
        let (block, tile, columns) = (32, 64, selection.experts * units)
        pool.parallel(chunks: (width + block - 1) / block) { index in
            let outs = (index * block)..<min(width, (index + 1) * block)
            for (place, matrix) in matrices.enumerated() {
                for start in stride(from: 0, to: columns, by: tile) {
                    for out in outs {
                        let target = matrix.pointer + out * columns
                        for column in start..<min(columns, start + tile) {
                            let row = column / units * rows + place * units + column % units
                            target[column] += dWeights.pointer[row * rowStride + out]
                        }
                    }
                }
            }
        }
        return dCoefficients
    }
}
