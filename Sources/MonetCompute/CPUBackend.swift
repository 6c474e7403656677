import CMonetKernels
import Foundation

/// The processor: dense products through a library, everything else in the package's kernels.
///
///     let backend = CPUBackend()
///     let y = try backend.linear(x, weight: w, bias: nil)
public struct CPUBackend: Backend {
    /// The threads that share the work.
    public let pool: WorkerPool
    /// The instruction set in use.
    public let instructionSet: Kernels
    var kernels: monet_kernels { instructionSet.functions }
    /// How operands of dense products are rounded.
    public let precision: ComputePrecision
    /// How expert layers run.
    public let expertExecution: ExpertExecution
    let matrixProduct: MatrixProduct

    /// A backend on `pool` with the kernels of one instruction set.
    public init(
        pool: WorkerPool = .shared, instructionSet: Kernels = .best, precision: ComputePrecision = .float32,
        expertExecution: ExpertExecution = .automatic
    ) {
        self.expertExecution = expertExecution
        self.pool = pool
        self.instructionSet = instructionSet
        self.precision = precision
        matrixProduct = MatrixProduct(pool: pool, instructionSet: instructionSet, precision: precision)
    }

    /// Whether this processor multiplies bfloat16 matrices as such.
    public static var hasNativeBFloat16: Bool { MatrixProduct.hasNativeBFloat16 }

    /// Whether products in bfloat16 are faster than in float32: natively, or on integers that round less.
    public var hasFastBFloat16: Bool {
        MatrixProduct.hasNativeBFloat16 || instructionSet.functions.integers_pay != 0
    }

    public var name: String {
        "cpu-\(instructionSet.name), \(pool.threadCount) threads, \(precision.rawValue)"
    }

    // MARK: Checks

    func requireShape(_ tensor: Tensor, _ shape: [Int], _ operation: String) throws {
        guard tensor.shape == shape else {
            throw ComputeError.shapeMismatch(
                operation: operation, expected: "\(shape)", found: "\(tensor.shape)")
        }
    }

    func requireFloat32(_ tensors: Tensor..., operation: String) throws {
        for tensor in tensors where tensor.dtype != .float32 {
            throw ComputeError.unsupportedDType(operation: operation, dtype: tensor.dtype)
        }
    }

    /// The vector as float32, converted if it is stored narrower.
    func widened(_ vector: Tensor) -> Tensor { vector.converted(to: .float32) }

    // MARK: Embedding

    public func embed(_ ids: [Int32], table: Tensor) throws -> Tensor {
        let width = table.columnCount
        let output = Tensor(uninitialized: [ids.count, width])
        for (row, id) in ids.enumerated() {
            guard id >= 0, Int(id) < table.shape[0] else {
                throw ComputeError.indexOutOfRange(
                    operation: "embedding", index: Int(id), limit: table.shape[0])
            }
            table.read(into: output.pointer + row * width, from: Int(id) * width, count: width)
        }
        return output
    }

    public func embedGradient(_ outputGradient: Tensor, ids: [Int32], into tableGradient: Tensor) throws {
        let width = tableGradient.columnCount
        try requireShape(outputGradient, [ids.count, width], "embedding gradient")
        // Serial over tokens: two tokens may share a row, and the order of sums must not vary.
        for (row, id) in ids.enumerated() {
            kernels.axpy(
                tableGradient.pointer + Int(id) * width, 1, outputGradient.pointer + row * width, width)
        }
    }

    // MARK: Linear

    public func linear(_ x: Tensor, weight: Tensor, bias: Tensor?) throws -> Tensor {
        try requireFloat32(x, operation: "linear")
        guard weight.shape.count == 2, weight.shape[1] == x.columnCount, weight.dtype.isReal else {
            throw ComputeError.shapeMismatch(
                operation: "linear", expected: "weight [out, \(x.columnCount)]", found: "\(weight.shape)")
        }
        let output = Tensor(uninitialized: [x.rowCount, weight.shape[0]])
        product(x, weight, into: output.pointer, stride: weight.shape[0], accumulate: false)
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

    /// Up to this many rows each row of weights is widened in registers for all of them; more rows
    /// are worth widening a block of weights once, or rounding it to integers, and a dense product.
    static var fewRows: Int { 64 }
    /// The same where bfloat16 is multiplied as such: a dense product widens nothing there.
    static var fewRoundedRows: Int { 8 }

    private func fewRows(of weight: Tensor) -> Int {
        roundsInKernels && weight.dtype == .bfloat16 ? Self.fewRoundedRows : Self.fewRows
    }

    /// Whether few rows are multiplied as float32: bytes are the cost then, so that rounding activations
    /// would win nothing; float32 weights are only rounded where both operands are asked to be.
    private func readsInRegisters(_ weight: Tensor) -> Bool {
        precision == .float32 || weight.dtype != .float32
    }

    /// output (+)= x · weightᵀ. Output rows lie `stride` apart.
    func product(
        _ x: Tensor, _ weight: Tensor, into output: UnsafeMutablePointer<Float>, stride: Int, accumulate: Bool
    ) {
        let rows = x.rowCount
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        guard rows <= fewRows(of: weight), readsInRegisters(weight),
            let format = rowKernels(weight.dtype, rows: rows)
        else {
            matrixProduct.multiply(
                m: rows, n: outputs, k: inputs, MatrixOperand(x), MatrixOperand(weight, transposed: true),
                into: output, cStride: stride, accumulate: accumulate)
            return
        }
        let rowBytes = weight.rowByteCount
        let activations = RowActivations(x, columns: inputs, for: format, pool: pool)
        pool.forEachRange(of: outputs, minimum: Self.rowsPerChunk(inputs), perThread: 8) { range, _ in
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

    /// Rows of a matrix-vector product worth handing to another thread.
    private static func rowsPerChunk(_ inputs: Int) -> Int { max(16, (1 << 15) / max(1, inputs)) }

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
            weights.allSatisfy({ $0.shape.count == 2 && $0.shape[1] == inputs }), x.dtype == .float32
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
        let chunk = max(Self.rowsPerChunk(inputs), total / (16 * pool.threadCount))
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
        let rows = x.rowCount
        let (outputs, inputs) = (weight.shape[0], weight.shape[1])
        try requireShape(outputGradient, [rows, outputs], "linear gradient")
        if let xGradient = gradient.x {
            matrixProduct.multiply(
                m: rows, n: inputs, k: outputs, MatrixOperand(outputGradient), MatrixOperand(weight),
                into: xGradient.pointer, cStride: inputs, accumulate: true)
        }
        if let weightGradient = gradient.weight {
            matrixProduct.multiply(
                m: outputs, n: inputs, k: rows, MatrixOperand(outputGradient, transposed: true),
                MatrixOperand(x),
                into: weightGradient.pointer, cStride: inputs, accumulate: true)
        }
        if let biasGradient = gradient.bias { addColumnSums(of: outputGradient, into: biasGradient) }
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

    // MARK: Normalization

    public func rmsNorm(_ x: Tensor, weight: Tensor, epsilon: Float) throws -> (output: Tensor, scale: Tensor)
    {
        let width = x.columnCount
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
        let block = 1 << 12
        pool.forEachRange(of: gate.count, minimum: block) { range, _ in
            withUnsafeTemporaryAllocation(of: Float.self, capacity: 2 * block) { scratch in
                guard let dGate = scratch.baseAddress else { return }
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

    // MARK: Sums and the optimizer

    public func add(_ x: Tensor, _ y: Tensor) throws -> Tensor {
        try requireShape(y, x.shape, "add")
        let output = Tensor(uninitialized: x.shape)
        pool.forEachRange(of: x.count, minimum: 1 << 14) { range, _ in
            let start = range.lowerBound
            kernels.add(output.pointer + start, x.pointer + start, y.pointer + start, range.count)
        }
        return output
    }

    public func accumulate(_ x: Tensor, into total: Tensor) throws {
        try requireShape(x, total.shape, "accumulate")
        pool.forEachRange(of: x.count, minimum: 1 << 14) { range, _ in
            let start = range.lowerBound
            kernels.axpy(total.pointer + start, 1, x.pointer + start, range.count)
        }
    }

    public func sumOfSquares(_ x: Tensor) throws -> Double {
        // Blocks of a fixed size: the sum does not depend on the number of threads.
        let block = 1 << 16
        let blocks = (x.count + block - 1) / block
        var partial = [Double](repeating: 0, count: blocks)
        partial.withUnsafeMutableBufferPointer { partial in
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
        guard !parameter.storage.isMapped else {
            throw ComputeError.shapeMismatch(
                operation: "AdamW", expected: "parameters in writable memory", found: "a mapped file")
        }
        try requireFloat32(parameter, gradient, moment1, moment2, operation: "AdamW")
        var settings = monet_adamw(
            learning_rate: step.learningRate, beta1: step.beta1, beta2: step.beta2, epsilon: step.epsilon,
            weight_decay: step.weightDecay,
            correction1: Float(1 - pow(Double(step.beta1), Double(step.step))),
            correction2: Float(1 - pow(Double(step.beta2), Double(step.step))),
            gradient_scale: step.gradientScale)
        withUnsafePointer(to: &settings) { settings in
            nonisolated(unsafe) let settings = settings
            pool.forEachRange(of: parameter.count, minimum: 1 << 14) { range, _ in
                let start = range.lowerBound
                kernels.adamw(
                    parameter.pointer + start, moment1.pointer + start, moment2.pointer + start,
                    gradient.pointer + start, settings, range.count)
            }
        }
    }
}

/// How expert layers run; the results are equal up to rounding.
public enum ExpertExecution: String, Sendable, CaseIterable {
    /// Sparse where few enough experts are selected to pay.
    case automatic
    /// Every expert for every token, as the paper's formulas are written.
    case dense
    /// Only selected experts.
    case sparse
}
