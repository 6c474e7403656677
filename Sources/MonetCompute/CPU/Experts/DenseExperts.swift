import CMonetKernels
import Foundation

// Dense execution of a plan: every expert for every token, as the paper's formulas are written. It serves
// batches of a few tokens, and to check gathered execution. Its gradient is that of the gathered one.

extension CPUBackend {
    /// The output of all experts.
    func denseExperts(
        _ x: Tensor, _ routing: ExpertRouting, weights: ExpertWeights<Tensor>, _ shape: ExpertShape
    ) throws -> Tensor {
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
        return output
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

    // MARK: Mixing

    /// Equation 12 for every token: `from`'s activations are summed and distributed over `to`'s selection.
    private func mix(_ source: Tensor, from: Tensor, to: Tensor, _ shape: ExpertShape) -> Tensor {
        let destination = Tensor(uninitialized: source.shape)
        let columns = source.columnCount
        forEachToken(from, to, shape, scratch: shape.units) { token, from, to, scratch in
            memset(destination.pointer + token * columns, 0, columns * 4)
            kernels.mix(
                destination.pointer + token * columns, source.pointer + token * columns, from, to,
                shape.heads,
                shape.units, scratch)
        }
        return destination
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

    // MARK: Output bias

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
}

extension ExpertPlan {
    /// The index of a hidden side among the plan's; `ExpertExtents` has checked that every source is one.
    func place(of side: ExpertSide) -> Int {
        guard let place = hidden.firstIndex(of: side) else {
            preconditionFailure("a source that is no hidden side of the plan")
        }
        return place
    }
}

extension ExpertRouting {
    /// One side's probabilities.
    subscript(side: ExpertSide) -> Tensor { side == .left ? left : right }
}

extension ExpertGradient {
    /// One side's probabilities' gradient.
    subscript(side: ExpertSide) -> Tensor { side == .left ? left : right }
}
