import CMonetKernels
import Foundation

// Exact sparse execution: an expert that no head selects has probability and gradient exactly zero,
// so only the tokens of each expert's list are computed. One expert's work is a product of a few
// hidden units with gathered rows; the coefficients that mix both sides are small and per token.

/// What a sparse forward pass keeps for its gradient.
struct SparseActivations: Sendable {
    let selection: RoutedSelection
    /// σ(U x + b) of the entries, `[entries, units]`; the right side only where it has its own.
    let leftHidden: Tensor
    let rightHidden: Tensor?
    let leftDown: DownProjection?
    let rightDown: DownProjection?
}

/// The down-projection of one side: per expert some rows of hidden units and last the output bias,
/// `[E, rows, width]`, and each entry's coefficients for them, `[entries, rows]`.
struct DownProjection: Sendable {
    let weights: Tensor
    let coefficients: Tensor
    let rows: Int
    let width: Int
}

extension CPUBackend {
    /// Above this share of selected pairs the dense products are faster.
    private static var largestDensity: Double { 0.45 }

    /// Up to this many tokens the dense products of the checkpoint's layout are as good.
    private static var fewTokens: Int { 8 }

    /// Both sides' selections of a group of layers.
    func selection(_ routing: ExpertRouting) -> RoutedSelection {
        routing.derived { RoutedSelection(routing, pool: pool) }
    }

    /// Both sides' selections, if sparse execution pays or is the only one there is.
    func sparseSelection(_ routing: ExpertRouting) -> RoutedSelection? {
        let isForced = expertExecution == .sparse || (routing.strengths?.count ?? 0) > 0
        if isForced { return selection(routing) }
        guard expertExecution != .dense, routing.left.shape[0] > Self.fewTokens else { return nil }
        let selection = selection(routing)
        let density = max(selection.left.density, selection.right.density)
        return density <= Self.largestDensity ? selection : nil
    }

    // MARK: Horizontal

    func sparseHorizontalExperts(
        _ x: Tensor, _ selection: RoutedSelection, weights: HorizontalWeights
    ) -> (output: Tensor, saved: SparseActivations) {
        let (left, right) = (selection.left, selection.right)
        let units = weights.u.shape[0] / left.experts
        let padded = paddedRows(x.pointer, rows: x.rowCount, columns: x.columnCount, stride: x.columnCount)
        let hidden = sparseActivations(padded, x.columnCount, left, weights.u, bias: weights.uBias)
        let down = downProjection(right, units: [weights.v], bias: weights.b, width: x.columnCount)
        mixEntries(
            hidden, stride: units, selection, .leftToRight, into: down.coefficients, at: 0, stride: down.rows)
        setSums(selection.rightSums, in: down.coefficients)
        let output = Tensor(uninitialized: x.shape)
        project(down, right, into: output.pointer, stride: x.columnCount)
        return (
            output,
            SparseActivations(
                selection: selection, leftHidden: hidden, rightHidden: nil, leftDown: nil, rightDown: down
            )
        )
    }

    func sparseHorizontalGradient(
        _ outputGradient: Tensor, x: Tensor, weights: HorizontalWeights, saved: SparseActivations,
        into gradient: ExpertGradient, weightGradient: HorizontalWeights
    ) {
        guard let down = saved.rightDown else { return }
        let (left, right) = (saved.selection.left, saved.selection.right)
        let units = saved.leftHidden.columnCount
        let dOut = paddedRows(
            outputGradient.pointer, rows: x.rowCount, columns: down.width, stride: x.columnCount)
        let dCoefficients = downGradient(
            down, dOut, right, units: [weightGradient.v], bias: weightGradient.b)
        let dRightSums = Tensor(uninitialized: [right.entryCount])
        copyColumn(dCoefficients, down.rows - 1, into: dRightSums)
        let dHidden = Tensor(zeros: saved.leftHidden.shape)
        mixGradient(
            dCoefficients, at: 0, source: saved.leftHidden, saved.selection, .leftToRight, into: dHidden,
            gradient: gradient, width: units)
        saved.selection.spread(dLeft: nil, dRight: dRightSums, into: gradient, pool: pool)
        sparseActivationsGradient(
            dHidden, saved.leftHidden, x: x, left, weights.u, into: gradient.x,
            weightGradient: weightGradient.u,
            biasGradient: weightGradient.uBias)
    }

    // MARK: Vertical

    func sparseVerticalExperts(
        _ x: Tensor, _ selection: RoutedSelection, weights: VerticalWeights
    ) -> (output: Tensor, saved: SparseActivations) {
        let (left, right) = (selection.left, selection.right)
        let width = x.columnCount
        let half = width / 2
        let units = weights.u1.shape[0] / left.experts
        let padded = paddedRows(x.pointer, rows: x.rowCount, columns: width, stride: width)
        let a = sparseActivations(padded, width, left, weights.u1, bias: weights.u1Bias)
        let e = sparseActivations(padded, width, right, weights.u2, bias: weights.u2Bias)
        let upper = downProjection(left, units: [weights.v11, weights.v12], bias: weights.b1, width: half)
        let lower = downProjection(right, units: [weights.v21, weights.v22], bias: weights.b2, width: half)
        setWeighted(a, by: selection.leftSums, in: upper.coefficients, at: 0)
        mixEntries(
            e, stride: units, selection, .rightToLeft, into: upper.coefficients, at: units, stride: upper.rows
        )
        setSums(selection.leftSums, in: upper.coefficients)
        mixEntries(
            a, stride: units, selection, .leftToRight, into: lower.coefficients, at: 0, stride: lower.rows)
        setWeighted(e, by: selection.rightSums, in: lower.coefficients, at: units)
        setSums(selection.rightSums, in: lower.coefficients)
        let output = Tensor(uninitialized: x.shape)
        project(upper, left, into: output.pointer, stride: width)
        project(lower, right, into: output.pointer + half, stride: width)
        return (
            output,
            SparseActivations(
                selection: selection, leftHidden: a, rightHidden: e, leftDown: upper, rightDown: lower)
        )
    }

    func sparseVerticalGradient(
        _ outputGradient: Tensor, x: Tensor, weights: VerticalWeights, saved: SparseActivations,
        into gradient: ExpertGradient, weightGradient: VerticalWeights
    ) {
        guard let upper = saved.leftDown, let lower = saved.rightDown, let e = saved.rightHidden else {
            return
        }
        let (selection, a) = (saved.selection, saved.leftHidden)
        let (left, right) = (selection.left, selection.right)
        let (half, units, width) = (upper.width, a.columnCount, x.columnCount)
        let dUpper = downGradient(
            upper, paddedRows(outputGradient.pointer, rows: x.rowCount, columns: half, stride: width), left,
            units: [weightGradient.v11, weightGradient.v12], bias: weightGradient.b1)
        let dLower = downGradient(
            lower, paddedRows(outputGradient.pointer + half, rows: x.rowCount, columns: half, stride: width),
            right,
            units: [weightGradient.v21, weightGradient.v22], bias: weightGradient.b2)
        let (dA, dE) = (Tensor(zeros: a.shape), Tensor(zeros: e.shape))
        let dLeftSums = weightedGradient(dUpper, at: 0, a, by: selection.leftSums, into: dA)
        let dRightSums = weightedGradient(dLower, at: units, e, by: selection.rightSums, into: dE)
        mixGradient(
            dUpper, at: units, source: e, selection, .rightToLeft, into: dE, gradient: gradient, width: units)
        mixGradient(
            dLower, at: 0, source: a, selection, .leftToRight, into: dA, gradient: gradient, width: units)
        selection.spread(dLeft: dLeftSums, dRight: dRightSums, into: gradient, pool: pool)
        sparseActivationsGradient(
            dA, a, x: x, left, weights.u1, into: gradient.x, weightGradient: weightGradient.u1,
            biasGradient: weightGradient.u1Bias)
        sparseActivationsGradient(
            dE, e, x: x, right, weights.u2, into: gradient.x, weightGradient: weightGradient.u2,
            biasGradient: weightGradient.u2Bias)
    }

    // MARK: Rows that do not fall into one cache set

    /// A copy of rows whose stride is no power of two, `[rows, columns + 16]`: gathered rows at
    /// strides of 2 or 4 KiB would share a few cache sets.
    func paddedRows(_ source: UnsafePointer<Float>, rows: Int, columns: Int, stride: Int) -> Tensor {
        let result = Tensor(uninitialized: [rows, Self.paddedStride(columns)])
        let resultStride = result.columnCount
        pool.forEachRange(of: rows, minimum: 64) { range, _ in
            for row in range {
                memcpy(result.pointer + row * resultStride, source + row * stride, columns * 4)
            }
        }
        return result
    }

    private static func paddedStride(_ columns: Int) -> Int { columns + 16 }

    // MARK: Up-projection

    /// σ(U x + b) of every entry, `[entries, units]`.
    private func sparseActivations(
        _ x: Tensor, _ columns: Int, _ selection: ExpertSelection, _ u: Tensor, bias: Tensor
    ) -> Tensor {
        let units = u.shape[0] / selection.experts
        let hidden = Tensor(uninitialized: [selection.entryCount, units])
        let biasValues = widened(bias)
        forEachExpert(selection) { expert, entries in
            let weight = expertRows(u, expert, units)
            let out = hidden.pointer + entries.lowerBound * units
            kernels.gathered_dot(
                out, units, x.pointer, x.columnCount, selection.rows + entries.lowerBound, entries.count,
                weight.pointer, columns, units, columns)
            for entry in 0..<entries.count {
                kernels.squared_relu(out + entry * units, biasValues.pointer + expert * units, units)
            }
        }
        return hidden
    }

    private func sparseActivationsGradient(
        _ dHidden: Tensor, _ hidden: Tensor, x: Tensor, _ selection: ExpertSelection, _ u: Tensor,
        into xGradient: Tensor, weightGradient: Tensor, biasGradient: Tensor
    ) {
        let (columns, units) = (x.columnCount, hidden.columnCount)
        let padded = paddedRows(x.pointer, rows: x.rowCount, columns: columns, stride: columns)
        forEachExpert(selection) { expert, entries in
            let d = dHidden.pointer + entries.lowerBound * units
            kernels.squared_relu_gradient(
                d, hidden.pointer + entries.lowerBound * units, entries.count * units)
            for entry in 0..<entries.count {
                kernels.axpy(biasGradient.pointer + expert * units, 1, d + entry * units, units)
            }
            kernels.gathered_outer(
                weightGradient.pointer + expert * units * columns, columns, d, units, units, padded.pointer,
                padded.columnCount, selection.rows + entries.lowerBound, entries.count, columns)
        }
        let wide = u.converted(to: .float32)
        scatter(
            dHidden, units, wide.pointer, selection, columns, into: xGradient.pointer, stride: columns,
            adds: true)
    }

    /// One expert's rows of `u` as float32.
    private func expertRows(_ u: Tensor, _ expert: Int, _ units: Int) -> Tensor {
        if u.dtype == .float32 { return u.slice((expert * units)..<((expert + 1) * units)) }
        let rows = Tensor(uninitialized: [units, u.columnCount])
        u.read(into: rows.pointer, from: expert * units * u.columnCount, count: rows.count)
        return rows
    }

    /// Experts with entries, in turn on all threads.
    private func forEachExpert(_ selection: ExpertSelection, _ body: (Int, Range<Int>) -> Void) {
        // Lists differ in length: many short chunks balance the threads.
        let chunk = max(1, min(8, selection.experts / (pool.threadCount * 4)))
        pool.parallel(chunks: (selection.experts + chunk - 1) / chunk) { index in
            for expert in (index * chunk)..<min(selection.experts, (index + 1) * chunk) {
                let entries = selection.offsets[expert]..<selection.offsets[expert + 1]
                if !entries.isEmpty { body(expert, entries) }
            }
        }
    }

    // MARK: Down-projection

    /// Packs `[width, E · units]` matrices and the bias `[E, width]` by expert, coefficients zero.
    private func downProjection(
        _ selection: ExpertSelection, units matrices: [Tensor], bias: Tensor, width: Int
    ) -> DownProjection {
        let experts = selection.experts
        let units = matrices[0].columnCount / experts
        let rows = matrices.count * units + 1
        let weights = Tensor(uninitialized: [experts, rows, width])
        for (place, matrix) in matrices.enumerated() {
            transpose(matrix, units: units, place: place * units, rows: rows, into: weights.pointer)
        }
        for expert in 0..<experts {
            bias.read(
                into: weights.pointer + (expert * rows + rows - 1) * width, from: expert * width, count: width
            )
        }
        return DownProjection(
            weights: weights, coefficients: Tensor(zeros: [selection.entryCount, rows]), rows: rows,
            width: width)
    }

    /// Turns a `[width, E · units]` matrix into rows of `target`, from row `place` of every expert on.
    private func transpose(
        _ matrix: Tensor, units: Int, place: Int, rows: Int, into target: UnsafeMutablePointer<Float>
    ) {
        let (block, width, columns) = (64, matrix.shape[0], matrix.shape[1])
        pool.parallel(chunks: (width + block - 1) / block) { index in
            let (start, end) = (index * block, min(width, (index + 1) * block))
            let lineStride = Self.paddedStride(columns)
            let lines = Tensor(uninitialized: [end - start, lineStride])
            for line in start..<end {
                matrix.read(
                    into: lines.pointer + (line - start) * lineStride, from: line * columns, count: columns)
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
    private func project(
        _ down: DownProjection, _ selection: ExpertSelection, into out: UnsafeMutablePointer<Float>,
        stride: Int
    ) {
        scatter(
            down.coefficients, down.rows, down.weights.pointer, selection, down.width, into: out,
            stride: stride,
            adds: false)
    }

    /// Sums `coefficients · weights` of every entry into its token's row, in blocks of tokens whose
    /// rows stay in the cache and belong to one thread.
    private func scatter(
        _ coefficients: Tensor, _ units: Int, _ weights: UnsafePointer<Float>, _ selection: ExpertSelection,
        _ width: Int, into out: UnsafeMutablePointer<Float>, stride: Int, adds: Bool
    ) {
        let tokens = selection.tokens
        let fitting = max(64, (1 << 17) / max(1, width))
        let perThread = (tokens + pool.threadCount - 1) / pool.threadCount
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
    private func downGradient(
        _ down: DownProjection, _ dOut: Tensor, _ selection: ExpertSelection, units matrices: [Tensor],
        bias: Tensor
    ) -> Tensor {
        let (rows, width) = (down.rows, down.width)
        let units = (rows - 1) / matrices.count
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

    // MARK: Coefficients

    /// Puts each entry's weight into the last column, the output bias's.
    func setSums(_ sums: Tensor, in coefficients: Tensor) {
        let rows = coefficients.columnCount
        for entry in 0..<sums.count { coefficients.pointer[entry * rows + rows - 1] = sums.pointer[entry] }
    }

    /// Puts each entry's hidden units times its weight into some columns.
    func setWeighted(_ hidden: Tensor, by sums: Tensor, in coefficients: Tensor, at column: Int) {
        let (units, rows) = (hidden.columnCount, coefficients.columnCount)
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                kernels.scale(
                    coefficients.pointer + entry * rows + column, sums.pointer[entry],
                    hidden.pointer + entry * units, units)
            }
        }
    }

    /// Gradient of `setWeighted` and `setSums`: adds to the hidden units' and returns the sums'.
    private func weightedGradient(
        _ dCoefficients: Tensor, at column: Int, _ hidden: Tensor, by sums: Tensor, into dHidden: Tensor
    ) -> Tensor {
        let (rows, units) = (dCoefficients.columnCount, hidden.columnCount)
        let dSums = Tensor(uninitialized: [sums.count])
        pool.forEachRange(of: sums.count, minimum: 512) { range, _ in
            for entry in range {
                let d = dCoefficients.pointer + entry * rows
                dSums.pointer[entry] =
                    d[rows - 1] + kernels.dot(d + column, hidden.pointer + entry * units, units)
                kernels.axpy(
                    dHidden.pointer + entry * units, sums.pointer[entry], d + column, units)
            }
        }
        return dSums
    }

    private func copyColumn(_ source: Tensor, _ column: Int, into target: Tensor) {
        for row in 0..<target.count {
            target.pointer[row] = source.pointer[row * source.columnCount + column]
        }
    }

    /// Equation 12 on entries: one side's hidden units into columns of the other's coefficients.
    func mixEntries(
        _ source: Tensor, stride: Int, _ selection: RoutedSelection, _ direction: MixDirection,
        into destination: Tensor, at column: Int, stride destinationStride: Int
    ) {
        let (from, to) = direction.ends(selection)
        pool.forEachRange(of: from.tokens, minimum: 16) { range, _ in
            let scratch = Tensor(uninitialized: [stride])
            for token in range {
                for head in 0..<from.heads {
                    let (sources, targets) = (
                        from.list(token: token, head: head), to.list(token: token, head: head)
                    )
                    if let strengths = selection.strengths(token: token, head: head) {
                        let steps = direction.steps(from: sources.count, to: targets.count)
                        kernels.mix_pairs(
                            destination.pointer + column, destinationStride, source.pointer, stride, sources,
                            targets, strengths, steps.from, steps.to, stride)
                    } else {
                        kernels.mix_entries(
                            destination.pointer + column, destinationStride, source.pointer, stride, sources,
                            targets, stride, scratch.pointer)
                    }
                }
            }
        }
    }

    private func mixGradient(
        _ dCoefficients: Tensor, at column: Int, source: Tensor, _ selection: RoutedSelection,
        _ direction: MixDirection, into dSource: Tensor, gradient: ExpertGradient, width: Int
    ) {
        let (from, to) = direction.ends(selection)
        let (fromGradient, toGradient) =
            direction == .leftToRight ? (gradient.left, gradient.right) : (gradient.right, gradient.left)
        let experts = from.experts
        pool.forEachRange(of: from.tokens, minimum: 16) { range, _ in
            let scratch = Tensor(uninitialized: [2 * width])
            for token in range {
                for head in 0..<from.heads {
                    let row = (token * from.heads + head) * experts
                    let (sources, targets) = (
                        from.list(token: token, head: head), to.list(token: token, head: head)
                    )
                    if let strengths = selection.strengths(token: token, head: head) {
                        let steps = direction.steps(from: sources.count, to: targets.count)
                        kernels.mix_pairs_gradient(
                            dSource.pointer, fromGradient.pointer + row, toGradient.pointer + row,
                            dCoefficients.pointer + column, dCoefficients.columnCount, source.pointer, width,
                            sources, targets, strengths, steps.from, steps.to, width)
                    } else {
                        kernels.mix_entries_gradient(
                            dSource.pointer, fromGradient.pointer + row, toGradient.pointer + row,
                            dCoefficients.pointer + column, dCoefficients.columnCount, source.pointer, width,
                            sources, targets, width, scratch.pointer)
                    }
                }
            }
        }
    }
}

/// Which side's activations are mixed into the other's experts.
enum MixDirection {
    case leftToRight
    case rightToLeft

    func ends(_ selection: RoutedSelection) -> (from: ExpertSelection, to: ExpertSelection) {
        self == .leftToRight ? (selection.left, selection.right) : (selection.right, selection.left)
    }

    /// Steps through the strengths of a head, `[left count, right count]`.
    func steps(from: Int, to: Int) -> (from: Int, to: Int) {
        self == .leftToRight ? (to, 1) : (1, from)
    }
}
