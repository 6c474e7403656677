import CMonetKernels
import EmulatedKernels
import MonetCompute
import TestSupport
import Testing

/// Products with rows of bfloat16: of activations rounded to it, which backends use in bfloat16 precision where
/// the processor multiplies such values, and of exact ones with even and odd columns apart. The loops run on
/// every instruction set here; without such an instruction each product is widened first.
///
/// Bounds: against the formula on the numbers that are multiplied, sums in float32 of at most 700 products: for
/// dot products three times 2^-24 of the sum of magnitudes, as a sum may cancel; for sums by columns 1e-6;
/// whole expert layers round four operands one after another, each by 1.7e-3 in the mean square
/// (2^-8/√3 of the last place, evenly spread over a binade), one of which is squared: 6e-3.
@Suite struct RoundedProductTests {
    private static let layerBound = 6e-3
    private static let dotBound = 2e-7

    /// Every remainder of tiles of rows and units, odd lengths, gathered rows, one row.
    @Test(arguments: [1, 3, 31, 32, 33, 64, 100, 257, 700])
    func dotProducts(columns: Int) throws {
        var source = TensorSource(seed: UInt64(columns))
        let (x, w) = (source.normal([17, columns]), source.normal([23, columns]).converted(to: .bfloat16))
        for set in OperationTests.instructionSets {
            let kernels = set.table.pointee
            let rounded = x.converted(to: .bfloat16).converted(to: .float32)
            try checkDots(kernels.rounded_bf16, x, w, exactly: rounded, "\(set.name), rounded")
            try checkDots(kernels.even_odd_bf16, x, w, exactly: x, "\(set.name), even and odd")
        }
    }

    /// Compares products of gathered rows with the formula on the activations that they stand for.
    private func checkDots(
        _ format: monet_row_kernels, _ x: Tensor, _ w: Tensor, exactly activations: Tensor, _ name: String
    ) throws {
        let columns = x.columnCount
        let (a, b) = (Reference(activations), Reference(w.converted(to: .float32)))
        let expected = ReferenceMath.linear(a, b)
        let magnitudes = ReferenceMath.linear(
            Reference(a.values.map(abs), shape: a.shape), Reference(b.values.map(abs), shape: b.shape))
        let rows: [Int32] = [16, 0, 3, 7, 2, 9, 1, 8, 4, 10, 6, 5, 15]
        let (activationBytes, prepare) = try (#require(format.activation_bytes), #require(format.prepare))
        // Rows that do not begin on multiples of registers.
        let rowBytes = activationBytes(columns) + 12
        let prepared = UnsafeMutableRawPointer.allocate(byteCount: 17 * rowBytes, alignment: 64)
        defer { prepared.deallocate() }
        for row in 0..<17 { prepare(prepared + row * rowBytes, x.pointer + row * columns, columns) }
        for count in 1...13 {
            for units in [1, 4, 7, 23] {
                // What is read next is only asked for: any address will do.
                let next = units % 2 == 0 ? UnsafeRawPointer(bitPattern: 4096) : nil
                var y = [Float](repeating: 9, count: count * 25)
                format.dot(
                    &y, 25, prepared, rowBytes, rows, count, w.address, 2 * columns, units, columns, next)
                let found = (0..<count).flatMap { row in (0..<units).map { Double(y[row * 25 + $0]) } }
                func gathered(_ reference: Reference) -> [Double] {
                    rows[..<count].flatMap { row in
                        (0..<units).map { reference.values[Int(row) * 23 + $0] }
                    }
                }
                let errors = zip(found, gathered(expected)).map { $0 - $1 }
                let bound = Self.dotBound * gathered(magnitudes).reduce(0) { $0 + $1 * $1 }.squareRoot()
                #expect(
                    errors.reduce(0) { $0 + $1 * $1 }.squareRoot() < bound, "\(name), \(count) × \(units)")
                #expect(y[25 * (count - 1) + units] == 9, "written beyond the units")
            }
        }
    }

    /// Odd and even numbers of rows of weights; every number of gathered rows up to two tiles.
    @Test(arguments: [1, 15, 16, 31, 32, 33, 50, 130], [1, 2, 5, 8])
    func sumsByColumns(columns: Int, units: Int) {
        var source = TensorSource(seed: UInt64(columns * units))
        let pairs = (units + 1) / 2
        let w = source.normal([units, columns]).converted(to: .bfloat16)
        let coefficients = source.normal([13, 2 * pairs]).converted(to: .bfloat16)
        let start = source.normal([14, columns])
        let rows: [Int32] = [13, 0, 3, 7, 2, 9, 1, 8, 4, 10, 6, 5, 12]
        let (ws, cs) = (w.converted(to: .float32).floats(), coefficients.converted(to: .float32).floats())
        let stored = w.address.assumingMemoryBound(to: UInt16.self)
        for set in OperationTests.instructionSets {
            let kernels = set.table.pointee
            var sideBySide = [UInt16](repeating: 0xffff, count: pairs * (2 * columns + 2))
            for pair in 0..<pairs {
                sideBySide.withUnsafeMutableBufferPointer {
                    guard let base = $0.baseAddress else { return }
                    kernels.interleave(
                        base + pair * (2 * columns + 2), stored + 2 * pair * columns,
                        2 * pair + 1 < units ? stored + (2 * pair + 1) * columns : nil, columns)
                }
            }
            for count in 1...13 {
                let out = start.copy()
                kernels.scatter_add_pairs(
                    out.pointer, columns, rows, count,
                    coefficients.address.assumingMemoryBound(to: UInt16.self),
                    2 * pairs, sideBySide, 2 * columns + 2, pairs, columns)
                var expected = start.floats().map(Double.init)
                for row in 0..<count {
                    for unit in 0..<units {
                        for column in 0..<columns {
                            expected[Int(rows[row]) * columns + column] +=
                                Double(cs[row * 2 * pairs + unit]) * Double(ws[unit * columns + column])
                        }
                    }
                }
                #expect(
                    relativeError(out.floats().map(Double.init), expected) < 1e-6,
                    "\(set.name), \(count) rows")
            }
        }
    }

    /// Whole layers in bfloat16 precision, few tokens and many, weights of every kind that is rounded.
    @Test(arguments: [DType.float32, .bfloat16, .int8Rows], [1, 3, 8, 9, 40, 64, 65, 300])
    func expertLayers(dtype: DType, tokens: Int) throws {
        var source = TensorSource(seed: UInt64(tokens))
        let (experts, heads, half, units) = (13, 2, 70, 5)
        func probabilities() throws -> Tensor {
            let logits = source.normal([tokens, heads, experts])
            let backend = CPUBackend()
            return try backend.route(
                logits,
                rule: RouterSelectionRule(
                    statistics: backend.routerStatistics(logits), epsilon: 1e-5, threshold: 0.7))
        }
        let routing = ExpertRouting(left: try probabilities(), right: try probabilities())
        let x = source.normal([tokens, 2 * half])
        let (up, down) = ([experts * units, 2 * half], [half, experts * units])
        let vertical = [up, [up[0]], up, [up[0]], down, down, down, down, [experts, half], [experts, half]]
            .map { source.normal($0) }
        let horizontal = [up, [up[0]], [2 * half, experts * units], [experts, 2 * half]]
            .map { source.normal($0) }
        for weights in [vertical, horizontal] {
            let packed = ExpertWeights(listed: weights).packed(experts: experts)
            let exact = try CPUBackend().experts(
                x, routing: routing, prepared: CPUBackend().prepare(packed))
            let stored = try CPUBackend().prepare(packed.converted(to: dtype))
            let unrounded = try CPUBackend().experts(x, routing: routing, prepared: stored)
            // What int8 adds: 0.4% of the largest of a row of 140, in the mean square 0.7% of a weight.
            let bound = dtype == .int8Rows ? 4 * Self.layerBound : Self.layerBound
            let onlySavesBytes = Kernels(table: emulated_kernels(), bfloat16OutrunsFloat32: false)
            for set in OperationTests.instructionSets + [onlySavesBytes] {
                for threads in [1, 3] {
                    let backend = CPUBackend(
                        pool: WorkerPool(threadCount: threads), instructionSet: set, precision: .bfloat16)
                    let found = try backend.experts(x, routing: routing, prepared: stored)
                    let error = relativeError(
                        found.floats().map(Double.init), exact.floats().map(Double.init))
                    #expect(error < bound, "\(backend.name): \(error)")
                    guard set.table.pointee.bfloat16_pays != 0, dtype == .bfloat16 else { continue }
                    // Rounded activations are what sets this path apart: none would mean that it did not run.
                    // Where it only saves bytes, many tokens are multiplied in float32.
                    let rounding = relativeError(
                        found.floats().map(Double.init), unrounded.floats().map(Double.init))
                    if tokens > 64, !set.bfloat16OutrunsFloat32 {
                        #expect(rounding < 1e-5, "\(backend.name): \(rounding)")
                    } else {
                        #expect(rounding > 1e-4, "\(backend.name): \(rounding)")
                    }
                }
            }
        }
    }
}
