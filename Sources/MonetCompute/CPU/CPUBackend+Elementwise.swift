import CMonetKernels
import Foundation

extension CPUBackend {
    // MARK: Normalization

    public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float) throws -> (output: Tensor, scale: Tensor)
    {
        let width = x.columnCount
        try requireFloat32(x, "RMSNorm")
        try requireShape(weight, [width], "RMSNorm weight")
        let weightValues = widened(weight)
        let output = Tensor(uninitialized: x.shape)
        let scale = Tensor(uninitialized: [x.rowCount])
        pool.forEachRange(of: x.rowCount, minimum: 16) { range, _ in
            for row in range {
                scale.pointer[row] = kernels.rms_norm(
                    output.pointer + row * width, x.pointer + row * width, weightValues.pointer, epsilon,
                    width)
            }
        }
        return (output, scale)
    }

    public func rmsNormGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, scale: Tensor,
        into xGradient: Tensor, weightGradient: Tensor
    ) throws {
        let width = x.columnCount
        try requireFloat32([x, outputGradient, xGradient], x.shape, "RMSNorm gradient")
        try requireFloat32([scale], [x.rowCount], "RMSNorm gradient")
        try requireFloat32([weightGradient], [width], "RMSNorm gradient")
        try requireShape(weight, [width], "RMSNorm weight")
        let weightValues = widened(weight)
        let ranges = pool.rangeCount(of: x.rowCount, minimum: 16)
        let partial = Tensor(zeros: [ranges, width])
        pool.forEachRange(of: x.rowCount, minimum: 16) { range, index in
            for row in range {
                kernels.rms_norm_gradient(
                    xGradient.pointer + row * width, partial.pointer + index * width,
                    outputGradient.pointer + row * width, x.pointer + row * width, weightValues.pointer,
                    scale.pointer[row], width)
            }
        }
        addColumnSums(of: partial, into: weightGradient)
    }

    // MARK: Gated feed-forward

    public func gatedActivation(gate: Tensor, up: Tensor) throws -> Tensor {
        try requireFloat32(gate, "gated activation")
        try requireShape(up, gate.shape, "gated activation")
        let output = Tensor(uninitialized: gate.shape)
        pool.forEachRange(of: gate.count, minimum: 1 << 13) { range, _ in
            let start = range.lowerBound
            kernels.gated_silu(output.pointer + start, gate.pointer + start, up.pointer + start, range.count)
        }
        return output
    }

    public func gatedActivationGradient(
        _ outputGradient: Tensor, gate: Tensor, up: Tensor, into gateGradient: Tensor, upGradient: Tensor
    ) throws {
        try requireFloat32(
            [gate, up, outputGradient, gateGradient, upGradient], gate.shape, "gated activation's gradient")
        let block = 1 << 12
        pool.forEachRange(of: gate.count, minimum: block) { range, _ in
            withScratch(2 * block) { dGate in
                let dUp = dGate + block
                for start in stride(from: range.lowerBound, to: range.upperBound, by: block) {
                    let count = min(block, range.upperBound - start)
                    kernels.gated_silu_gradient(
                        dGate, dUp, outputGradient.pointer + start, gate.pointer + start, up.pointer + start,
                        count)
                    kernels.axpy(gateGradient.pointer + start, 1, dGate, count)
                    kernels.axpy(upGradient.pointer + start, 1, dUp, count)
                }
            }
        }
    }

    public func scaled(_ hidden: Tensor, by strengths: [RowStrengths]) throws -> Tensor {
        try requireFloat32(hidden, "scaling of units")
        let (result, units) = (hidden.copy(), hidden.columnCount)
        for part in strengths {
            guard part.rows.lowerBound >= 0, part.rows.upperBound <= hidden.rowCount,
                part.factors.allSatisfy({ $0.units == units })
            else {
                throw ComputeError.shapeMismatch(
                    operation: "scaling of units", expected: "strengths of \(units) units",
                    found: "\(part.factors.map(\.units)) for rows \(part.rows)")
            }
            let touched = (0..<units).filter(part.isTouched).map { ($0, part[$0]) }
            for row in part.rows {
                for (unit, strength) in touched { result.pointer[row * units + unit] *= strength }
            }
        }
        return result
    }

    // MARK: Sums and the optimizer

    public func add(_ x: Tensor, _ y: Tensor) throws -> Tensor {
        try requireFloat32(x, "add")
        try requireShape(y, x.shape, "add")
        let output = Tensor(uninitialized: x.shape)
        pool.forEachRange(of: x.count, minimum: 1 << 14) { range, _ in
            let start = range.lowerBound
            kernels.add(output.pointer + start, x.pointer + start, y.pointer + start, range.count)
        }
        return output
    }

    public func accumulate(_ x: Tensor, into total: Tensor) throws {
        try requireFloat32(total, "accumulate")
        try requireShape(x, total.shape, "accumulate")
        pool.forEachRange(of: x.count, minimum: 1 << 14) { range, _ in
            let start = range.lowerBound
            kernels.axpy(total.pointer + start, 1, x.pointer + start, range.count)
        }
    }

    public func sumOfSquares(_ x: Tensor) throws -> Double {
        try requireFloat32(x, "sum of squares")
        // Blocks of a fixed size: the sum does not depend on the number of threads.
        let block = 1 << 16
        let blocks = (x.count + block - 1) / block
        var partial = [Double](repeating: 0, count: blocks)
        partial.withUnsafeMutableBufferPointer { partial in
            // Every block writes the sum at its own index.
            nonisolated(unsafe) let partial = partial
            pool.parallel(chunks: blocks) { index in
                let start = index * block
                partial[index] = kernels.sum_of_squares(x.pointer + start, min(block, x.count - start))
            }
        }
        return partial.reduce(0, +)
    }

    public func adamWStep(
        _ step: AdamWStep, parameter: Tensor, gradient: Tensor, moment1: Tensor, moment2: Tensor
    ) throws {
        for other in [gradient, moment1, moment2] { try requireShape(other, parameter.shape, "AdamW") }
        guard parameter.storage.isWritable else { throw ComputeError.readOnly(operation: "AdamW") }
        for tensor in [parameter, gradient, moment1, moment2] { try requireFloat32(tensor, "AdamW") }
        var settings = monet_adamw(
            learning_rate: step.learningRate, beta1: step.beta1, beta2: step.beta2, epsilon: step.epsilon,
            weight_decay: step.weightDecay,
            correction1: Float(1 - pow(Double(step.beta1), Double(step.step))),
            correction2: Float(1 - pow(Double(step.beta2), Double(step.step))),
            gradient_scale: step.gradientScale)
        withUnsafePointer(to: &settings) { settings in
            // All threads only read the settings.
            nonisolated(unsafe) let settings = settings
            pool.forEachRange(of: parameter.count, minimum: 1 << 14) { range, _ in
                let start = range.lowerBound
                kernels.adamw(
                    parameter.pointer + start, moment1.pointer + start, moment2.pointer + start,
                    gradient.pointer + start, settings, range.count)
            }
        }
    }

    public func largestColumns(_ x: Tensor) throws -> Tensor {
        try requireFloat32(x, "largest columns")
        let (rows, columns) = (x.rowCount, x.columnCount)
        guard columns > 0 else {
            throw ComputeError.shapeMismatch(
                operation: "largest columns", expected: "one column or more", found: "\(x.shape)")
        }
        let result = Tensor(uninitialized: [rows], dtype: .int32)
        let found = result.address.assumingMemoryBound(to: Int32.self)
        pool.forEachRange(of: rows, minimum: 8) { range, _ in
            for row in range {
                let line = x.pointer + row * columns
                var best = 0
                for column in 1..<max(1, columns) where line[column] > line[best] { best = column }
                found[row] = Int32(truncatingIfNeeded: best)
            }
        }
        return result
    }
}
