import CMonetKernels
import Foundation

// Gathered execution of a plan, exact and sparse: an expert that no head selects has a probability and a
// gradient of exactly zero, so only the tokens of each expert's list are computed. The work for one expert is
// a product of a few hidden units with gathered rows; mixing both sides takes a few coefficients per token.

/// What a gathered forward pass stores for its gradient.
struct GatheredActivations: Sendable {
    let selection: RoutedSelection
    /// σ(U x + b) of the entries, `[entries, units]`, in the order of the plan's hidden sides.
    let hidden: [Tensor]
    /// In the order of the plan's projections.
    let down: [DownProjection]
}

extension CPUBackend {
    func gatheredExperts(
        _ x: Tensor, _ selection: RoutedSelection, weights: ExpertWeights<Tensor>, _ shape: ExpertShape
    ) throws -> (output: Tensor, saved: GatheredActivations) {
        let plan = weights.plan
        let padded = paddedRows(x.pointer, rows: x.rowCount, columns: shape.width, stride: shape.width)
        let hidden = zip(plan.hidden, weights.up).map { side, up in
            gatheredActivations(padded, shape.width, selection.side(side).selection, up.weight, bias: up.bias)
        }
        let coefficients = coefficients(plan, hidden, selection)
        let output = Tensor(uninitialized: x.shape)
        var down: [DownProjection] = []
        for (place, projection) in plan.projections.enumerated() {
            let weights = weights.down[place]
            down.append(
                downProjection(
                    try weights.columns("gathered experts", name), bias: weights.bias,
                    coefficients: coefficients[place], experts: shape.experts))
            project(
                down[place], selection.side(projection.side).selection,
                into: output.pointer + place * shape.part, stride: shape.width)
        }
        return (output, GatheredActivations(selection: selection, hidden: hidden, down: down))
    }

    func gatheredGradient(
        _ outputGradient: Tensor, x: Tensor, weights: ExpertWeights<Tensor>, saved: GatheredActivations,
        into gradient: ExpertGradient, weightGradient: ExpertWeights<Tensor>
    ) throws {
        let (plan, selection) = (weights.plan, saved.selection)
        var dCoefficients: [Tensor] = []
        for (place, projection) in plan.projections.enumerated() {
            let (down, target) = (saved.down[place], weightGradient.down[place])
            let dOut = paddedRows(
                outputGradient.pointer + place * down.width, rows: x.rowCount, columns: down.width,
                stride: x.columnCount)
            dCoefficients.append(
                downGradient(
                    down, dOut, selection.side(projection.side).selection,
                    units: try target.columns("gathered experts", name), bias: target.bias))
        }
        let dHidden = saved.hidden.map { Tensor(zeros: $0.shape) }
        coefficientGradients(plan, dCoefficients, saved.hidden, selection, into: dHidden, gradient)
        for (place, side) in plan.hidden.enumerated() {
            let (up, target) = (weights.up[place], weightGradient.up[place])
            gatheredActivationsGradient(
                dHidden[place], saved.hidden[place], x: x, selection.side(side).selection, up.weight,
                into: gradient.x, weightGradient: target.weight, biasGradient: target.bias)
        }
    }

    // MARK: Rows that do not fall into one cache set

    /// A copy of rows whose stride is not a power of two, `[rows, columns + 16]`: gathered rows at
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
    private func gatheredActivations(
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

    private func gatheredActivationsGradient(
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
        let wide = widened(u)
        scatter(
            dHidden, units, wide.pointer, selection, columns, into: xGradient.pointer, stride: columns,
            adds: true)
    }

    /// One expert's rows of `u` as float32.
    private func expertRows(_ u: Tensor, _ expert: Int, _ units: Int) -> Tensor {
        if u.dtype == .float32 { return u.slice((expert * units)..<((expert + 1) * units)) }
        let rows = Tensor(uninitialized: [units, u.columnCount])
        u.read(
            into: rows.pointer, from: expert * units * u.columnCount, count: rows.count, by: instructionSet)
        return rows
    }

    /// Runs `body` for each expert with entries, on all threads.
    func forEachExpert(_ selection: ExpertSelection, _ body: (Int, Range<Int>) -> Void) {
        // Lists differ in length: many short chunks balance the threads.
        let chunk = max(1, min(8, selection.experts / (pool.shareCount * 4)))
        pool.parallel(chunks: (selection.experts + chunk - 1) / chunk) { index in
            for expert in (index * chunk)..<min(selection.experts, (index + 1) * chunk) {
                let entries = selection.offsets[expert]..<selection.offsets[expert + 1]
                if !entries.isEmpty { body(expert, entries) }
            }
        }
    }
}
