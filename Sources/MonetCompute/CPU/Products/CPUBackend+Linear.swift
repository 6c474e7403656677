import CMonetKernels
import Foundation

extension CPUBackend {
    // MARK: Embedding

    public func embed(_ ids: [Int32], table: Tensor) throws -> Tensor {
        try requireReal(table, "embedding")
        guard table.shape.count == 2 else {
            throw ComputeError.shapeMismatch(
                operation: "embedding", expected: "a table [rows, width]", found: "\(table.shape)")
        }
        let width = table.columnCount
        let output = Tensor(uninitialized: [ids.count, width])
        for (row, id) in ids.enumerated() {
            guard id >= 0, Int(id) < table.shape[0] else {
                throw ComputeError.indexOutOfRange(
                    operation: "embedding", index: Int(id), limit: table.shape[0])
            }
            table.readRow(Int(id), columns: 0..<width, into: output.pointer + row * width, by: instructionSet)
        }
        return output
    }

    public func embedGradient(_ outputGradient: Tensor, ids: [Int32], into tableGradient: Tensor) throws {
        let width = tableGradient.columnCount
        try requireFloat32([outputGradient], [ids.count, width], "embedding gradient")
        try requireFloat32(tableGradient, "embedding gradient")
        // Serial over tokens: two tokens may share a row, and the order of sums must not vary.
        for (row, id) in ids.enumerated() {
            guard id >= 0, Int(id) < tableGradient.shape[0] else {
                throw ComputeError.indexOutOfRange(
                    operation: "embedding gradient", index: Int(id), limit: tableGradient.shape[0])
            }
            kernels.axpy(
                tableGradient.pointer + Int(id) * width, 1, outputGradient.pointer + row * width, width)
        }
    }

    // MARK: Products

    /// Weights as an operand of a dense product.
    ///
    /// - Throws: `ComputeError.unsupportedDType` for integers.
    func operand(_ weight: Tensor, transposed: Bool = false) throws -> MatrixOperand {
        try requireReal(weight, "product")
        return MatrixOperand(weight, transposed: transposed, format: instructionSet.rows(weight.dtype))
    }

    public func linear(_ x: Tensor, weight: Tensor, bias: Tensor?) throws -> Tensor {
        try requireFloat32(x, "linear")
        try requireHost(weight, "linear")
        guard weight.shape.count == 2, weight.shape[1] == x.columnCount, weight.dtype.isReal else {
            throw ComputeError.shapeMismatch(
                operation: "linear", expected: "weight [out, \(x.columnCount)]", found: "\(weight.shape)")
        }
        let output = Tensor(uninitialized: [x.rowCount, weight.shape[0]])
        try product(x, weight, into: output.pointer, stride: weight.shape[0], accumulate: false)
        if let bias {
            try requireShape(bias, [weight.shape[0]], "linear bias")
            let values = widened(bias)
            for row in 0..<x.rowCount {
                let out = output.pointer + row * weight.shape[0]
                kernels.add(out, out, values.pointer, weight.shape[0])
            }
        }
        return output
    }

    private func fewRows(of weight: Tensor) -> Int {
        if isBatchInvariant { return packsInvariantProducts && !weight.dtype.isQuantized ? 0 : .max }
        return roundsInKernels && weight.dtype == .bfloat16
            ? policy.roundedRowsInRegisters : policy.rowsInRegisters
    }

    /// Whether every product of this backend runs on packed integers.
    var packsInvariantProducts: Bool {
        isBatchInvariant && policy.packsInvariantProducts && precision == .bfloat16
            && matrixProduct.hasIntegers
    }

    /// Whether few rows are multiplied in float32. Reading weights dominates their cost, so that rounding
    /// activations would gain nothing; float32 weights are rounded only if the precision requires it.
    private func readsInRegisters(_ weight: Tensor) -> Bool {
        isBatchInvariant || precision == .float32 || weight.dtype != .float32
    }

    /// output (+)= x · weightᵀ. Output rows lie `stride` apart.
    func product(
        _ x: Tensor, _ weight: Tensor, into output: UnsafeMutablePointer<Float>, stride: Int, accumulate: Bool
    ) throws {
        let rows = x.rowCount
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        guard rows <= fewRows(of: weight), readsInRegisters(weight),
            let format = rowKernels(weight.dtype, rows: rows)
        else {
            let right = try operand(weight, transposed: true)
            if rows > 0, inputs > 0, packsInvariantProducts,
                let packed = packedWeights?.integers(
                    of: weight, pack: { matrixProduct.packedRight(right, n: outputs, k: inputs) })
            {
                return matrixProduct.multiplyIntegers(
                    m: rows, n: outputs, k: inputs, MatrixOperand(x), packed,
                    into: output, cStride: stride, accumulate: accumulate)
            }
            return matrixProduct.multiply(
                m: rows, n: outputs, k: inputs, MatrixOperand(x), right,
                into: output, cStride: stride, accumulate: accumulate)
        }
        let rowBytes = weight.rowByteCount
        let activations = RowActivations(x, columns: inputs, for: format, pool: pool)
        pool.forEachRange(of: outputs, minimum: rowsPerChunk(inputs), perThread: 8) { range, _ in
            let start = weight.address + range.lowerBound * rowBytes
            let ahead = instructionSet.ahead(of: start, rows: rows)
            if accumulate {
                let sums = Tensor(uninitialized: [rows, range.count])
                format.dot(
                    sums.pointer, range.count, activations.address, activations.stride, nil, rows, start,
                    rowBytes, range.count, inputs, ahead)
                for row in 0..<rows {
                    let target = output + row * stride + range.lowerBound
                    kernels.add(target, target, sums.pointer + row * range.count, range.count)
                }
            } else {
                format.dot(
                    output + range.lowerBound, stride, activations.address, activations.stride, nil, rows,
                    start, rowBytes, range.count, inputs, ahead)
            }
        }
    }

    /// The least rows of a matrix-vector product that are worth another thread.
    private func rowsPerChunk(_ inputs: Int) -> Int { max(16, policy.weightsPerThread / max(1, inputs)) }

    public func projections(_ x: Tensor, weights: [Tensor]) throws -> [Tensor] {
        try projections(x, weights: weights, formats: weights.map { rowKernels($0.dtype, rows: x.rowCount) })
    }

    /// The same with the kernels of each matrix given.
    func projections(
        _ x: Tensor, weights: [Tensor], formats given: [monet_row_kernels?]
    ) throws -> [Tensor] {
        let (rows, inputs) = (x.rowCount, x.columnCount)
        let formats = given.compactMap { $0 }
        guard formats.count == weights.count,
            weights.allSatisfy({ rows <= fewRows(of: $0) && readsInRegisters($0) }),
            weights.allSatisfy({ $0.shape.count == 2 && $0.shape[1] == inputs && $0.isOnHost }),
            x.dtype == .float32, x.isOnHost
        else { return try weights.map { try linear(x, weight: $0, bias: nil) } }
        let outputs = weights.map { Tensor(uninitialized: [rows, $0.shape[0]]) }
        var activations: [RowActivations] = []
        for index in weights.indices {
            let sameType = weights[..<index].firstIndex { $0.dtype == weights[index].dtype }
            activations.append(
                sameType.map { activations[$0] }
                    ?? RowActivations(x, columns: inputs, for: formats[index], pool: pool))
        }
        // One loop over the rows of all matrices: one start and one finish for the threads.
        let total = outputs.reduce(0) { $0 + $1.columnCount }
        let chunk = max(rowsPerChunk(inputs), total / (16 * pool.shareCount))
        let chunks = weights.indices.flatMap { index in
            stride(from: 0, to: weights[index].shape[0], by: chunk).map { (index: index, start: $0) }
        }
        pool.parallel(chunks: chunks.count) { place in
            let (index, start) = chunks[place]
            let (weight, output) = (weights[index], outputs[index])
            let rowBytes = weight.rowByteCount
            let first = weight.address + start * rowBytes
            formats[index].dot(
                output.pointer + start, output.columnCount, activations[index].address,
                activations[index].stride, nil, rows, first, rowBytes, min(chunk, weight.shape[0] - start),
                inputs, instructionSet.ahead(of: first, rows: rows))
        }
        return outputs
    }

    public func linearGradient(
        _ outputGradient: Tensor, x: Tensor, weight: Tensor, into gradient: LinearGradient
    ) throws {
        guard weight.shape.count == 2 else {
            throw ComputeError.shapeMismatch(
                operation: "linear gradient", expected: "weight [out, in]", found: "\(weight.shape)")
        }
        let rows = x.rowCount
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        try requireFloat32([outputGradient], [rows, outputs], "linear gradient")
        try requireHost(x, "linear gradient")
        for target in [gradient.x, gradient.weight, gradient.bias].compactMap({ $0 }) {
            try requireFloat32(target, "linear gradient")
        }
        if let xGradient = gradient.x {
            try requireShape(xGradient, [rows, inputs], "linear gradient of x")
            matrixProduct.multiply(
                m: rows, n: inputs, k: outputs, MatrixOperand(outputGradient), try operand(weight),
                into: xGradient.pointer, cStride: inputs, accumulate: true)
        }
        if let weightGradient = gradient.weight {
            try requireShape(weightGradient, [outputs, inputs], "linear gradient of the weight")
            matrixProduct.multiply(
                m: outputs, n: inputs, k: rows, MatrixOperand(outputGradient, transposed: true),
                MatrixOperand(x),
                into: weightGradient.pointer, cStride: inputs, accumulate: true)
        }
        if let biasGradient = gradient.bias {
            try requireShape(biasGradient, [outputs], "linear gradient of the bias")
            addColumnSums(of: outputGradient, into: biasGradient)
        }
    }

    /// total[c] += sum over rows of x[r, c].
    func addColumnSums(of x: Tensor, into total: Tensor) {
        let columns = x.columnCount
        pool.forEachRange(of: columns, minimum: 64) { range, _ in
            for row in 0..<x.rowCount {
                kernels.axpy(
                    total.pointer + range.lowerBound, 1, x.pointer + row * columns + range.lowerBound,
                    range.count)
            }
        }
    }
}
