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

    static func paddedStride(_ columns: Int) -> Int { columns + 16 }

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
    func forEachExpert(_ selection: ExpertSelection, _ body: (Int, Range<Int>) -> Void) {
        // Lists differ in length: many short chunks balance the threads.
        let chunk = max(1, min(8, selection.experts / (pool.threadCount * 4)))
        pool.parallel(chunks: (selection.experts + chunk - 1) / chunk) { index in
            for expert in (index * chunk)..<min(selection.experts, (index + 1) * chunk) {
                let entries = selection.offsets[expert]..<selection.offsets[expert + 1]
                if !entries.isEmpty { body(expert, entries) }
            }
        }
    }
}
