import MonetCompute
import TestSupport
import Testing

/// Quantized rows: what the bytes mean, how far from the weights they are, and that every kernel reads
/// the same numbers.
///
/// Products of few rows with quantized rows run on rounded activations where that is faster, which the
/// references here do too; all else is sums of float32 products.
@Suite struct QuantizationTests {
    private static let bound = 1e-5

    /// Up to 64 rows as products with weights of this type read them. 4 bits: whole chunks of 128 rounded
    /// to -127...127 times their largest / 127. int8, three rows and more, where integers are fast: panels of
    /// 2048 rounded to 16 bits.
    private func read(_ x: Tensor, by dtype: DType, on backend: CPUBackend) -> Reference {
        guard x.rowCount <= 64 else { return Reference(x) }
        if dtype == .int4Rows {
            return rounded(x, panel: 128, columns: x.columnCount / 128 * 128, limit: 127)
        }
        guard x.rowCount > 2, backend.instructionSet.table.pointee.integers_pay != 0 else {
            return Reference(x)
        }
        return rounded(x, panel: 2048, columns: x.columnCount, limit: 32767)
    }

    private func rounded(_ x: Tensor, panel: Int, columns: Int, limit: Float) -> Reference {
        var values = x.floats()
        for row in 0..<x.rowCount {
            for first in stride(from: 0, to: columns, by: panel) {
                let start = row * x.columnCount
                let range = (start + first)..<(start + min(columns, first + panel))
                let largest = values[range].reduce(0) { max($0, abs($1)) }
                for index in range {
                    values[index] =
                        (values[index] * (limit / largest)).rounded(.toNearestOrEven) * largest / limit
                }
            }
        }
        return Reference(values.map(Double.init), shape: x.shape)
    }

    /// An independent reading of the layout in `Docs/Monet.docc/Quantization.md`.
    private func decoded(_ tensor: Tensor) -> [Double] {
        let columns = tensor.columnCount
        return tensor.withUnsafeBytes { bytes in
            let rowBytes = bytes.count / max(1, tensor.rowCount)
            return (0..<tensor.rowCount).flatMap { row in
                let base = row * rowBytes
                func float(_ offset: Int) -> Double {
                    Double(bytes.loadUnaligned(fromByteOffset: base + offset, as: Float.self))
                }
                if tensor.dtype == .int8Rows {
                    return (0..<columns).map {
                        float(0) * Double(Int8(bitPattern: bytes[base + 4 + $0]))
                    }
                }
                let groups = (columns + 127) / 128 * 4
                return (0..<columns).map { column in
                    let (group, place) = (column % 128 / 32, column % 32)
                    let byte = bytes[base + 8 + 2 * groups + column / 128 * 64 + group / 2 * 32 + place]
                    let q = Double(group % 2 == 0 ? byte & 15 : byte >> 4)
                    let scale = Double(bytes[base + 8 + column / 32])
                    let minimum = Double(Int8(bitPattern: bytes[base + 8 + groups + column / 32]))
                    return float(0) * scale * q + float(4) * minimum
                }
            }
        }
    }

    @Test(arguments: [DType.int8Rows, .int4Rows], [1, 3, 31, 32, 33, 100, 127, 128, 129, 300, 2200])
    func rowsAreNearAndReadAlike(dtype: DType, columns: Int) throws {
        var source = TensorSource(seed: UInt64(columns))
        let weights = source.normal([7, columns])
        let quantized = weights.converted(to: dtype)
        let expected = decoded(quantized)
        #expect(relativeError(quantized.floats().map(Double.init), expected) < 1e-6)
        // Steps of 1/127 of a row's largest value of normal numbers, or of 1/15 of a group's range:
        // uniform errors of a third of a percent to a percent of a deviation, and of 8 percent.
        let error = relativeError(expected, weights.floats().map(Double.init))
        #expect(error < (dtype == .int8Rows ? 0.012 : 0.1), "\(error)")

        let reference = Reference(expected, shape: [7, columns])
        for tokens in [1, 2, 3, 4, 5, 8, 9, 30, 64, 65] {
            let x = source.normal([tokens, columns])
            for backend in OperationTests.backends {
                let product = ReferenceMath.linear(read(x, by: dtype, on: backend), reference)
                let found = try backend.linear(x, weight: quantized, bias: nil)
                #expect(
                    relativeError(found.floats().map(Double.init), product.values) < Self.bound,
                    "\(tokens) tokens, \(backend.name)")
            }
        }
        #expect(quantized.slice(2..<5).floats() == Array(quantized.floats()[(2 * columns)..<(5 * columns)]))
    }

    /// What rounding activations adds is far below what rounding weights did. Bytes are steps of 1/127 of the
    /// largest of 128, which is 2.8 deviations of normal numbers: 0.6% in the mean square, weights 8%. Words
    /// are steps of 1/32767 of the largest of 1024, 3.2 deviations: 3e-5, weights 0.7%.
    @Test func roundedActivationsAreNear() throws {
        var source = TensorSource(seed: 8)
        let (weights, x) = (source.normal([200, 1024]), source.normal([5, 1024]))
        for (dtype, bound) in [(DType.int4Rows, 0.01), (.int8Rows, 1e-4)] {
            let quantized = weights.converted(to: dtype)
            let exact = ReferenceMath.linear(Reference(x), Reference(decoded(quantized), shape: [200, 1024]))
            for backend in OperationTests.backends {
                let found = try backend.linear(x, weight: quantized, bias: nil)
                let error = relativeError(found.floats().map(Double.init), exact.values)
                #expect(error < bound, "\(backend.name), \(dtype): \(error)")
            }
        }
    }

    /// Sums of integers at their largest: all products of one sign, over more columns than share a scale.
    @Test(arguments: [DType.int8Rows, .int4Rows], [1, 2, 4, 7])
    func largestSumsFit(dtype: DType, rows: Int) throws {
        let columns = 4500
        let x = Tensor(filled: [rows, columns], with: -3)
        // Groups of -1 and 14 have numbers 0 and 15 of 4 bits.
        let weight = Tensor(filled: [5, columns], with: 14)
        if dtype == .int4Rows {
            for index in stride(from: 0, to: 5 * columns, by: 32) { weight.pointer[index] = -1 }
        }
        let quantized = weight.converted(to: dtype)
        let decodedRows = Reference(decoded(quantized), shape: [5, columns])
        let expected = ReferenceMath.linear(Reference(x), decodedRows)
        for backend in OperationTests.backends {
            let found = try backend.linear(x, weight: quantized, bias: nil)
            #expect(
                relativeError(found.floats().map(Double.init), expected.values) < Self.bound,
                "\(backend.name)")
        }
    }

    /// A token that is not finite stays so, and spoils no other.
    @Test(arguments: [DType.int8Rows, .int4Rows, .bfloat16], [Float.nan, .infinity])
    func valuesThatAreNotFiniteStay(dtype: DType, bad: Float) throws {
        var source = TensorSource(seed: 21)
        let weight = source.normal([6, 300]).converted(to: dtype)
        for rows in [1, 2, 5, 8, 17] {
            let x = source.normal([rows, 300])
            x.pointer[130] = bad
            for backend in OperationTests.backends {
                let found = try backend.linear(x, weight: weight, bias: nil).floats()
                #expect(found[..<6].allSatisfy { !$0.isFinite }, "\(backend.name), \(rows) rows")
                #expect(found[6...].allSatisfy { $0.isFinite }, "\(backend.name), \(rows) rows")
            }
        }
    }

    @Test func constantRowsAreKept() {
        for dtype in [DType.int8Rows, .int4Rows] {
            let zeros = Tensor(zeros: [2, 130]).converted(to: dtype)
            #expect(zeros.floats().allSatisfy { $0 == 0 })
            let ones = Tensor(filled: [1, 130], with: 1).converted(to: dtype)
            #expect(ones.floats().allSatisfy { abs($0 - 1) < 1e-6 })
        }
    }

    /// Experts of quantized rows give what their decoded weights give, for decoding and for batches.
    @Test(arguments: [DType.int8Rows, .int4Rows], [0, 1, 3, 8, 9, 40, 64, 65, 130])
    func experts(dtype: DType, tokens: Int) throws {
        var source = TensorSource(seed: 5)
        let (experts, heads, half, units) = (13, 2, 70, 5)
        let width = 2 * half
        func probabilities() throws -> Tensor {
            let logits = source.normal([tokens, heads, experts])
            let backend = CPUBackend()
            return try backend.route(
                logits,
                rule: RouterSelectionRule(
                    statistics: backend.routerStatistics(logits), epsilon: 1e-5, threshold: 0.7))
        }
        let (left, right) = (try probabilities(), try probabilities())
        let x = source.normal([tokens, width])
        let up = [experts * units, width]
        let down = [half, experts * units]
        let weights = [up, [up[0]], up, [up[0]], down, down, down, down, [experts, half], [experts, half]]
            .map { source.normal($0) }
        let packed = ExpertWeights(listed: weights).packed(experts: experts)
        let quantized = packed.converted(to: dtype)
        guard case .rows(let upper) = packed.down[0].matrices, case .rows(let lower) = packed.down[1].matrices
        else {
            Issue.record("packed weights are rows")
            return
        }
        // Back to the checkpoint's layout, from the decoded numbers.
        func upRows(_ tensor: Tensor) -> Reference {
            Reference(decoded(tensor.converted(to: dtype)), shape: tensor.shape)
        }
        func downColumns(_ tensor: Tensor, part: Int) -> Reference {
            let values = decoded(tensor.converted(to: dtype))
            var result = [Double](repeating: 0, count: half * experts * units)
            for expert in 0..<experts {
                for unit in 0..<units {
                    for column in 0..<half {
                        result[column * experts * units + expert * units + unit] =
                            values[(expert * 2 * units + part * units + unit) * half + column]
                    }
                }
            }
            return Reference(result, shape: [half, experts * units])
        }
        let weightsAsRead = [
            upRows(weights[0]), Reference(weights[1]), upRows(weights[2]), Reference(weights[3]),
            downColumns(upper, part: 0), downColumns(upper, part: 1),
            downColumns(lower, part: 0),
            downColumns(lower, part: 1), Reference(weights[8]), Reference(weights[9]),
        ]
        for backend in OperationTests.backends {
            let expected = ReferenceMath.verticalExperts(
                read(x, by: dtype, on: backend), left: Reference(left), right: Reference(right),
                weights: weightsAsRead)
            let found = try backend.experts(
                x, routing: ExpertRouting(left: left, right: right), prepared: backend.prepare(quantized))
            #expect(
                relativeError(found.floats().map(Double.init), expected.values) < Self.bound,
                "\(backend.name)")
        }
    }
}
