import CMonetKernels
import Foundation

// Both decompositions share three steps over the selected experts of a token: mixing one side's
// activations into the other side (equation 12), weighting a side's activations by the routing
// probability summed over heads, and adding the experts' output biases.

extension CPUBackend {
    // MARK: Horizontal

    public func horizontalExperts(
        _ x: Tensor, routing: ExpertRouting, weights: HorizontalWeights
    ) throws -> (output: Tensor, saved: ExpertActivations) {
        let (left, right) = (routing.left, routing.right)
        let shape = try ExpertShape(
            x: x, left: left, right: right, hidden: weights.u, bias: weights.b,
            operation: "horizontal experts")
        if let selection = sparseSelection(routing) {
            let (output, saved) = sparseHorizontalExperts(x, selection, weights: weights)
            return (output, ExpertActivations(saved))
        }
        let hidden = try activations(x, weights.u, bias: weights.uBias)
        let output = Tensor(uninitialized: x.shape)
        let mixed = mix(hidden, from: left, to: right, shape)
        product(mixed, weights.v, into: output.pointer, stride: shape.width, accumulate: false)
        addWeightedBias(sumOverHeads(right), weights.b, into: output.pointer, stride: shape.width)
        return (output, ExpertActivations(DenseActivations(left: hidden, right: nil)))
    }

    public func horizontalExpertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: HorizontalWeights,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: HorizontalWeights
    ) throws {
        let (left, right) = (routing.left, routing.right)
        let shape = try ExpertShape(
            x: x, left: left, right: right, hidden: weights.u, bias: weights.b,
            operation: "horizontal experts")
        if let sparse = saved.content as? SparseActivations {
            return sparseHorizontalGradient(
                outputGradient, x: x, weights: weights, saved: sparse, into: gradient,
                weightGradient: weightGradient)
        }
        let saved = try dense(saved)
        let out = OutputHalf(outputGradient.pointer, stride: shape.width, width: shape.width)
        let dMixed = downGradient(
            out, mixed: mix(saved.left, from: left, to: right, shape), weights.v, into: weightGradient.v)
        biasGradient(
            out, probabilities: right, weights.b, into: weightGradient.b, probabilityGradient: gradient.right)
        let dHidden = Tensor(zeros: saved.left.shape)
        mixGradient(
            dMixed, source: saved.left, from: left, to: right, shape, into: dHidden,
            fromGradient: gradient.left,
            toGradient: gradient.right)
        try activationsGradient(
            dHidden, saved.left, x: x, weights.u, into: gradient.x, weightGradient: weightGradient.u,
            biasGradient: weightGradient.uBias)
    }

    // MARK: Vertical

    public func verticalExperts(
        _ x: Tensor, routing: ExpertRouting, weights: VerticalWeights
    ) throws -> (output: Tensor, saved: ExpertActivations) {
        let (left, right) = (routing.left, routing.right)
        let shape = try ExpertShape(
            x: x, left: left, right: right, hidden: weights.u1, bias: weights.b1,
            operation: "vertical experts")
        if let selection = sparseSelection(routing) {
            let (output, saved) = sparseVerticalExperts(x, selection, weights: weights)
            return (output, ExpertActivations(saved))
        }
        let (leftSum, rightSum) = (sumOverHeads(left), sumOverHeads(right))
        let a = try activations(x, weights.u1, bias: weights.u1Bias)
        let e = try activations(x, weights.u2, bias: weights.u2Bias)
        let output = Tensor(uninitialized: x.shape)
        let half = shape.width / 2
        let (upper, lower) = (output.pointer, output.pointer + half)
        product(
            weighted(a, by: leftSum), weights.v11, into: upper, stride: shape.width,
            accumulate: false)
        product(
            mix(e, from: right, to: left, shape), weights.v12, into: upper,
            stride: shape.width, accumulate: true)
        product(
            mix(a, from: left, to: right, shape), weights.v21, into: lower,
            stride: shape.width, accumulate: false)
        product(
            weighted(e, by: rightSum), weights.v22, into: lower, stride: shape.width,
            accumulate: true)
        addWeightedBias(leftSum, weights.b1, into: upper, stride: shape.width)
        addWeightedBias(rightSum, weights.b2, into: lower, stride: shape.width)
        return (output, ExpertActivations(DenseActivations(left: a, right: e)))
    }

    public func verticalExpertsGradient(
        _ outputGradient: Tensor, x: Tensor, routing: ExpertRouting, weights: VerticalWeights,
        saved: ExpertActivations, into gradient: ExpertGradient, weightGradient: VerticalWeights
    ) throws {
        let (left, right) = (routing.left, routing.right)
        let shape = try ExpertShape(
            x: x, left: left, right: right, hidden: weights.u1, bias: weights.b1,
            operation: "vertical experts")
        if let sparse = saved.content as? SparseActivations {
            return sparseVerticalGradient(
                outputGradient, x: x, weights: weights, saved: sparse, into: gradient,
                weightGradient: weightGradient)
        }
        let saved = try dense(saved)
        guard let e = saved.right else { throw Self.foreignActivations }
        let a = saved.left
        let half = shape.width / 2
        let upper = OutputHalf(outputGradient.pointer, stride: shape.width, width: half)
        let lower = OutputHalf(outputGradient.pointer + half, stride: shape.width, width: half)
        let (leftSum, rightSum) = (sumOverHeads(left), sumOverHeads(right))
        let dA = Tensor(zeros: a.shape)
        let dE = Tensor(zeros: e.shape)

        let d11 = downGradient(upper, mixed: weighted(a, by: leftSum), weights.v11, into: weightGradient.v11)
        weightedGradient(d11, source: a, by: leftSum, into: dA, probabilityGradient: gradient.left)
        let d12 = downGradient(
            upper, mixed: mix(e, from: right, to: left, shape), weights.v12, into: weightGradient.v12)
        mixGradient(
            d12, source: e, from: right, to: left, shape, into: dE, fromGradient: gradient.right,
            toGradient: gradient.left)
        let d21 = downGradient(
            lower, mixed: mix(a, from: left, to: right, shape), weights.v21, into: weightGradient.v21)
        mixGradient(
            d21, source: a, from: left, to: right, shape, into: dA, fromGradient: gradient.left,
            toGradient: gradient.right)
        let d22 = downGradient(lower, mixed: weighted(e, by: rightSum), weights.v22, into: weightGradient.v22)
        weightedGradient(d22, source: e, by: rightSum, into: dE, probabilityGradient: gradient.right)
        biasGradient(
            upper, probabilities: left, weights.b1, into: weightGradient.b1,
            probabilityGradient: gradient.left)
        biasGradient(
            lower, probabilities: right, weights.b2, into: weightGradient.b2,
            probabilityGradient: gradient.right)

        try activationsGradient(
            dA, a, x: x, weights.u1, into: gradient.x, weightGradient: weightGradient.u1,
            biasGradient: weightGradient.u1Bias)
        try activationsGradient(
            dE, e, x: x, weights.u2, into: gradient.x, weightGradient: weightGradient.u2,
            biasGradient: weightGradient.u2Bias)
    }

    private static var foreignActivations: ComputeError {
        .shapeMismatch(
            operation: "experts' gradient", expected: "activations of this layer's forward pass",
            found: "others")
    }

    private func dense(_ saved: ExpertActivations) throws -> DenseActivations {
        guard let dense = saved.content as? DenseActivations else { throw Self.foreignActivations }
        return dense
    }

    // MARK: Up-projection

    /// σ(U x + b), `[tokens, E · width]`.
    private func activations(_ x: Tensor, _ u: Tensor, bias: Tensor) throws -> Tensor {
        let columns = u.shape[0]
        try requireShape(bias, [columns], "expert bias")
        let hidden = Tensor(uninitialized: [x.rowCount, columns])
        product(x, u, into: hidden.pointer, stride: columns, accumulate: false)
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

    /// Equation 12 for every token: `from`'s activations summed and spread over `to`'s selection.
    private func mix(_ source: Tensor, from: Tensor, to: Tensor, _ shape: ExpertShape) -> Tensor {
        let destination = Tensor(uninitialized: source.shape)
        let columns = source.columnCount
        forEachToken(from, to, shape, scratch: 2 * shape.hiddenWidth) { token, from, to, scratch in
            memset(destination.pointer + token * columns, 0, columns * 4)
            kernels.mix(
                destination.pointer + token * columns, source.pointer + token * columns, from, to,
                shape.heads,
                shape.hiddenWidth, scratch)
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
        forEachToken(from, to, shape, scratch: 2 * shape.hiddenWidth) { token, from, to, scratch in
            kernels.mix_gradient(
                dSource.pointer + token * columns, fromGradient.pointer + token * row,
                toGradient.pointer + token * row, dDestination.pointer + token * columns,
                source.pointer + token * columns, from, to, shape.heads, shape.hiddenWidth, shape.experts,
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
                // Written always, kept only if non-zero: no branch to mispredict.
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
        _ dOut: OutputHalf, mixed: Tensor, _ v: Tensor, into vGradient: Tensor
    ) -> Tensor {
        let columns = mixed.columnCount
        matrixProduct.multiply(
            m: dOut.width, n: columns, k: mixed.rowCount, dOut.operand(transposed: true),
            MatrixOperand(mixed),
            into: vGradient.pointer, cStride: columns, accumulate: true)
        let dMixed = Tensor(uninitialized: mixed.shape)
        matrixProduct.multiply(
            m: mixed.rowCount, n: columns, k: dOut.width, dOut.operand(), MatrixOperand(v),
            into: dMixed.pointer,
            cStride: columns, accumulate: false)
        return dMixed
    }

    /// out += weight · bias, for `weight` `[tokens, E]` and `bias` `[E, width]`.
    private func addWeightedBias(
        _ weight: Tensor, _ bias: Tensor, into out: UnsafeMutablePointer<Float>, stride: Int
    ) {
        let (tokens, experts, width) = (weight.rowCount, bias.shape[0], bias.shape[1])
        guard tokens <= 8 else {
            matrixProduct.multiply(
                m: tokens, n: width, k: experts, MatrixOperand(weight), MatrixOperand(bias), into: out,
                cStride: stride, accumulate: true)
            return
        }
        let row = Tensor(uninitialized: [width])
        for token in 0..<tokens {
            for expert in 0..<experts where weight.pointer[token * experts + expert] != 0 {
                bias.read(into: row.pointer, from: expert * width, count: width)
                kernels.axpy(
                    out + token * stride, weight.pointer[token * experts + expert], row.pointer, width)
            }
        }
    }

    private func biasGradient(
        _ dOut: OutputHalf, probabilities: Tensor, _ bias: Tensor, into biasGradient: Tensor,
        probabilityGradient: Tensor
    ) {
        let (tokens, heads, experts) = (
            probabilities.shape[0], probabilities.shape[1], probabilities.shape[2]
        )
        let weight = sumOverHeads(probabilities)
        matrixProduct.multiply(
            m: experts, n: dOut.width, k: tokens, MatrixOperand(weight, transposed: true), dOut.operand(),
            into: biasGradient.pointer, cStride: dOut.width, accumulate: true)
        let dWeight = Tensor(uninitialized: [tokens, experts])
        matrixProduct.multiply(
            m: tokens, n: experts, k: dOut.width, dOut.operand(), MatrixOperand(bias, transposed: true),
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

/// Hidden activations after squared ReLU of all experts.
private struct DenseActivations: Sendable {
    /// `[tokens, E·m]` (horizontal) or `[tokens, E·m/2]` (vertical).
    let left: Tensor
    /// `[tokens, E·m/2]`, vertical only.
    let right: Tensor?
}

/// Columns of the output's gradient: all (horizontal), the upper or the lower half (vertical).
private struct OutputHalf {
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

/// Checked extents of an expert layer's call.
private struct ExpertShape {
    let tokens: Int
    let heads: Int
    let experts: Int
    /// Width of the layer, d.
    let width: Int
    /// Hidden units of one expert (one half, vertical).
    let hiddenWidth: Int

    init(x: Tensor, left: Tensor, right: Tensor, hidden: Tensor, bias: Tensor, operation: String) throws {
        tokens = x.rowCount
        width = x.columnCount
        experts = bias.shape.first ?? 0
        guard left.shape.count == 3, left.shape == right.shape, left.shape[0] == tokens,
            left.shape[2] == experts
        else {
            throw ComputeError.shapeMismatch(
                operation: operation, expected: "probabilities [\(tokens), heads, \(experts)]",
                found: "\(left.shape) and \(right.shape)")
        }
        heads = left.shape[1]
        guard experts > 0, hidden.shape.count == 2, hidden.shape[1] == width, hidden.shape[0] % experts == 0
        else {
            throw ComputeError.shapeMismatch(
                operation: operation, expected: "up-projection [\(experts) · m, \(width)]",
                found: "\(hidden.shape)")
        }
        hiddenWidth = hidden.shape[0] / experts
    }
}
