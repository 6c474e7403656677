import CMonetKernels
import Foundation

// Dense execution of a plan: every expert for every token, as the paper's formulas are written. It serves
// batches in which most experts are selected, and to check gathered execution.

extension CPUBackend {
    /// The output, and σ(U x + b) of the hidden sides.
    func denseExperts(
        _ x: Tensor, _ routing: ExpertRouting, weights: ExpertWeights<Tensor>, _ shape: ExpertShape
    ) throws -> (output: Tensor, hidden: [Tensor]) {
        let plan = weights.plan
        let hidden = try weights.up.map { try activations(x, $0.weight, bias: $0.bias) }
        let output = Tensor(uninitialized: x.shape)
        for (place, projection) in plan.projections.enumerated() {
            let out = output.pointer + place * shape.part
            let matrices = try weights.down[place].columns("dense experts", name)
            let sums = sumOverHeads(routing[projection.side])
            for (index, source) in projection.sources.enumerated() {
                try product(
                    term(source, of: projection, hidden, plan, routing, sums, shape), matrices[index],
                    into: out, stride: shape.width, accumulate: index > 0)
            }
            if projection.sources.isEmpty {
                for row in 0..<shape.tokens { memset(out + row * shape.width, 0, shape.part * 4) }
            }
            try addWeightedBias(sums, weights.down[place].bias, into: out, stride: shape.width)
        }
        return (output, hidden)
    }

    /// The hidden units of a source as a projection's matrices multiply them: weighted or mixed.
    private func term(
        _ source: ExpertSide, of projection: ExpertPlan.Projection, _ hidden: [Tensor], _ plan: ExpertPlan,
        _ routing: ExpertRouting, _ sums: Tensor, _ shape: ExpertShape
    ) -> Tensor {
        let units = hidden[plan.place(of: source)]
        return projection.mixes(source)
            ? mix(units, from: routing[source], to: routing[projection.side], shape)
            : weighted(units, by: sums)
    }

    func denseGradient(
        _ outputGradient: Tensor, x: Tensor, _ routing: ExpertRouting, weights: ExpertWeights<Tensor>,
        hidden: [Tensor], _ shape: ExpertShape, into gradient: ExpertGradient,
        weightGradient: ExpertWeights<Tensor>
    ) throws {
        let plan = weights.plan
        let dHidden = hidden.map { Tensor(zeros: $0.shape) }
        let parts = plan.projections.indices.map {
            OutputPart(outputGradient.pointer + $0 * shape.part, stride: shape.width, width: shape.part)
        }
        for (place, projection) in plan.projections.enumerated() {
            let matrices = try weights.down[place].columns("dense experts", name)
            let gradients = try weightGradient.down[place].columns("dense experts", name)
            let sums = sumOverHeads(routing[projection.side])
            for (index, source) in projection.sources.enumerated() {
                let d = try downGradient(
                    parts[place], mixed: term(source, of: projection, hidden, plan, routing, sums, shape),
                    matrices[index], into: gradients[index])
                let from = plan.place(of: source)
                if projection.mixes(source) {
                    mixGradient(
                        d, source: hidden[from], from: routing[source], to: routing[projection.side], shape,
                        into: dHidden[from], fromGradient: gradient[source],
                        toGradient: gradient[projection.side])
                } else {
                    weightedGradient(
                        d, source: hidden[from], by: sums, into: dHidden[from],
                        probabilityGradient: gradient[source])
                }
            }
        }
        for (place, projection) in plan.projections.enumerated() {
            try biasGradient(
                parts[place], probabilities: routing[projection.side], weights.down[place].bias,
                into: weightGradient.down[place].bias, probabilityGradient: gradient[projection.side])
        }
        for (place, up) in weights.up.enumerated() {
            try activationsGradient(
                dHidden[place], hidden[place], x: x, up.weight, into: gradient.x,
                weightGradient: weightGradient.up[place].weight,
                biasGradient: weightGradient.up[place].bias)
        }
    }

    // MARK: Up-projection

    /// σ(U x + b), `[tokens, E · width]`.
    private func activations(_ x: Tensor, _ u: Tensor, bias: Tensor) throws -> Tensor {
        let columns = u.shape[0]
        let hidden = Tensor(uninitialized: [x.rowCount, columns])
        try product(x, u, into: hidden.pointer, stride: columns, accumulate: false)
        let biasValues = widened(bias)
        pool.forEachRange(of: x.rowCount, minimum: max(1, (1 << 13) / columns)) { range, _ in
            for row in range {
                kernels.squared_relu(hidden.pointer + row * columns, biasValues.pointer, columns)
            }
        }
        return hidden
    }

    private func activationsGradient(
        _ dHidden: Tensor, _ hidden: Tensor, x: Tensor, _ u: Tensor, into xGradient: Tensor,
        weightGradient: Tensor,
        biasGradient: Tensor
    ) throws {
        pool.forEachRange(of: hidden.count, minimum: 1 << 13) { range, _ in
            let start = range.lowerBound
            kernels.squared_relu_gradient(dHidden.pointer + start, hidden.pointer + start, range.count)
        }
        try linearGradient(
            dHidden, x: x, weight: u,
            into: LinearGradient(x: xGradient, weight: weightGradient, bias: biasGradient))
    }

    // MARK: Mixing

    /// Equation 12 for every token: `from`'s activations are summed and distributed over `to`'s selection.
    private func mix(_ source: Tensor, from: Tensor, to: Tensor, _ shape: ExpertShape) -> Tensor {
        let destination = Tensor(uninitialized: source.shape)
        let columns = source.columnCount
        forEachToken(from, to, shape, scratch: 2 * shape.units) { token, from, to, scratch in
            memset(destination.pointer + token * columns, 0, columns * 4)
            kernels.mix(
                destination.pointer + token * columns, source.pointer + token * columns, from, to,
                shape.heads,
                shape.units, scratch)
        }
        return destination
    }

    private func mixGradient(
        _ dDestination: Tensor, source: Tensor, from: Tensor, to: Tensor, _ shape: ExpertShape,
        into dSource: Tensor,
        fromGradient: Tensor, toGradient: Tensor
    ) {
        let columns = source.columnCount
        let row = shape.heads * shape.experts
        forEachToken(from, to, shape, scratch: 2 * shape.units) { token, from, to, scratch in
            kernels.mix_gradient(
                dSource.pointer + token * columns, fromGradient.pointer + token * row,
                toGradient.pointer + token * row, dDestination.pointer + token * columns,
                source.pointer + token * columns, from, to, shape.heads, shape.units, shape.experts,
                scratch)
        }
    }

    /// Lists the non-zero probabilities of each token and hands them to `body` with scratch memory.
    private func forEachToken(
        _ from: Tensor, _ to: Tensor, _ shape: ExpertShape, scratch scratchCount: Int,
        _ body: (Int, monet_selection, monet_selection, UnsafeMutablePointer<Float>) -> Void
    ) {
        let entries = shape.heads * shape.experts
        pool.forEachRange(of: shape.tokens, minimum: 8) { range, _ in
            let index = Tensor(uninitialized: [2, entries], dtype: .int32)
            let count = Tensor(uninitialized: [2, shape.heads], dtype: .int32)
            let value = Tensor(uninitialized: [2, entries])
            let scratch = Tensor(uninitialized: [scratchCount])
            let indices = index.address.assumingMemoryBound(to: Int32.self)
            let counts = count.address.assumingMemoryBound(to: Int32.self)
            for token in range {
                for (side, probabilities) in [from, to].enumerated() {
                    compress(
                        probabilities.pointer + token * entries, shape, count: counts + side * shape.heads,
                        index: indices + side * entries, value: value.pointer + side * entries)
                }
                let fromSelection = monet_selection(
                    count: counts, index: indices, value: value.pointer, capacity: shape.experts)
                let toSelection = monet_selection(
                    count: counts + shape.heads, index: indices + entries, value: value.pointer + entries,
                    capacity: shape.experts)
                body(token, fromSelection, toSelection, scratch.pointer)
            }
        }
    }

    private func compress(
        _ probabilities: UnsafePointer<Float>, _ shape: ExpertShape, count: UnsafeMutablePointer<Int32>,
        index: UnsafeMutablePointer<Int32>, value: UnsafeMutablePointer<Float>
    ) {
        for head in 0..<shape.heads {
            let base = head * shape.experts
            var found = 0
            for expert in 0..<shape.experts {
                let p = probabilities[base + expert]
                // Always written but kept only if non-zero, so that there is no branch to mispredict.
                index[base + found] = Int32(truncatingIfNeeded: expert)
                value[base + found] = p
                found &+= p != 0 ? 1 : 0
            }
            count[head] = Int32(truncatingIfNeeded: found)
        }
    }

    // MARK: Weighting by the probability summed over heads

    /// Σ_h p, `[tokens, experts]`.
    private func sumOverHeads(_ probabilities: Tensor) -> Tensor {
        let (tokens, heads, experts) = (
            probabilities.shape[0], probabilities.shape[1], probabilities.shape[2]
        )
        let sums = Tensor(zeros: [tokens, experts])
        pool.forEachRange(of: tokens, minimum: 64) { range, _ in
            for token in range {
                for head in 0..<heads {
                    kernels.axpy(
                        sums.pointer + token * experts, 1,
                        probabilities.pointer + (token * heads + head) * experts,
                        experts)
                }
            }
        }
        return sums
    }

    private func weighted(_ x: Tensor, by weight: Tensor) -> Tensor {
        let result = Tensor(uninitialized: x.shape)
        let (columns, experts) = (x.columnCount, weight.columnCount)
        pool.forEachRange(of: x.rowCount, minimum: max(1, (1 << 13) / max(1, columns))) { range, _ in
            for token in range {
                kernels.scale_rows(
                    result.pointer + token * columns, x.pointer + token * columns,
                    weight.pointer + token * experts, experts, columns / experts)
            }
        }
        return result
    }

    private func weightedGradient(
        _ d: Tensor, source: Tensor, by weight: Tensor, into dSource: Tensor, probabilityGradient: Tensor
    ) {
        let (columns, experts) = (source.columnCount, weight.columnCount)
        let (width, heads) = (columns / experts, probabilityGradient.shape[1])
        pool.forEachRange(of: source.rowCount, minimum: 16) { range, _ in
            let dWeight = Tensor(uninitialized: [experts])
            for token in range {
                memset(dWeight.pointer, 0, experts * 4)
                for expert in 0..<experts {
                    let w = weight.pointer[token * experts + expert]
                    if w == 0 { continue }
                    let offset = token * columns + expert * width
                    dWeight.pointer[expert] = kernels.dot(d.pointer + offset, source.pointer + offset, width)
                    kernels.axpy(dSource.pointer + offset, w, d.pointer + offset, width)
                }
                for head in 0..<heads {
                    kernels.axpy(
                        probabilityGradient.pointer + (token * heads + head) * experts, 1, dWeight.pointer,
                        experts)
                }
            }
        }
    }

    // MARK: Down-projection and output bias

    /// Adds to the gradient of `v` and returns that of the mixed activations.
    private func downGradient(
        _ dOut: OutputPart, mixed: Tensor, _ v: Tensor, into vGradient: Tensor
    ) throws -> Tensor {
        let columns = mixed.columnCount
        matrixProduct.multiply(
            m: dOut.width, n: columns, k: mixed.rowCount, dOut.operand(transposed: true),
            MatrixOperand(mixed),
            into: vGradient.pointer, cStride: columns, accumulate: true)
        let dMixed = Tensor(uninitialized: mixed.shape)
        matrixProduct.multiply(
            m: mixed.rowCount, n: columns, k: dOut.width, dOut.operand(), try operand(v),
            into: dMixed.pointer,
            cStride: columns, accumulate: false)
        return dMixed
    }

    /// out += weight · bias, for `weight` `[tokens, E]` and `bias` `[E, width]`.
    private func addWeightedBias(
        _ weight: Tensor, _ bias: Tensor, into out: UnsafeMutablePointer<Float>, stride: Int
    ) throws {
        let (tokens, experts, width) = (weight.rowCount, bias.shape[0], bias.shape[1])
        guard tokens <= policy.denseTokens else {
            return matrixProduct.multiply(
                m: tokens, n: width, k: experts, MatrixOperand(weight), try operand(bias), into: out,
                cStride: stride, accumulate: true)
        }
        let row = Tensor(uninitialized: [width])
        for token in 0..<tokens {
            for expert in 0..<experts where weight.pointer[token * experts + expert] != 0 {
                bias.readRow(expert, columns: 0..<width, into: row.pointer, by: instructionSet)
                kernels.axpy(
                    out + token * stride, weight.pointer[token * experts + expert], row.pointer, width)
            }
        }
    }

    private func biasGradient(
        _ dOut: OutputPart, probabilities: Tensor, _ bias: Tensor, into biasGradient: Tensor,
        probabilityGradient: Tensor
    ) throws {
        let (tokens, heads, experts) = (
            probabilities.shape[0], probabilities.shape[1], probabilities.shape[2]
        )
        let weight = sumOverHeads(probabilities)
        matrixProduct.multiply(
            m: experts, n: dOut.width, k: tokens, MatrixOperand(weight, transposed: true), dOut.operand(),
            into: biasGradient.pointer, cStride: dOut.width, accumulate: true)
        let dWeight = Tensor(uninitialized: [tokens, experts])
        matrixProduct.multiply(
            m: tokens, n: experts, k: dOut.width, dOut.operand(), try operand(bias, transposed: true),
            into: dWeight.pointer, cStride: experts, accumulate: false)
        pool.forEachRange(of: tokens, minimum: 64) { range, _ in
            for token in range {
                for head in 0..<heads {
                    kernels.axpy(
                        probabilityGradient.pointer + (token * heads + head) * experts, 1,
                        dWeight.pointer + token * experts, experts)
                }
            }
        }
    }
}

/// The columns of the output's gradient that belong to one projection.
private struct OutputPart {
    let address: UnsafeMutablePointer<Float>
    let stride: Int
    let width: Int

    init(_ address: UnsafeMutablePointer<Float>, stride: Int, width: Int) {
        self.address = address
        self.stride = stride
        self.width = width
    }

    func operand(transposed: Bool = false) -> MatrixOperand {
        MatrixOperand(UnsafeMutableRawPointer(address), stride: stride, transposed: transposed)
    }
}

extension ExpertPlan {
    /// The index of a hidden side among the plan's.
    func place(of side: ExpertSide) -> Int { hidden.firstIndex(of: side) ?? 0 }
}

extension ExpertRouting {
    /// One side's probabilities.
    subscript(side: ExpertSide) -> Tensor { side == .left ? left : right }
}

extension ExpertGradient {
    /// One side's probabilities' gradient.
    subscript(side: ExpertSide) -> Tensor { side == .left ? left : right }
}
