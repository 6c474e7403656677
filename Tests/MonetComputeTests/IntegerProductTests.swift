import MonetCompute
import TestSupport
import Testing

/// Dense products on integers, which stand in for bfloat16 where processors lack it.
///
/// Bound: an element is off by at most 2^-13.5 of the largest of its 64 and by 2^-13.5/√3 of it in the mean
/// square; the largest of 64 normal numbers is about 2.4, so that both operands together are off by
/// √2 · 2.4 · 5e-5 = 1.7e-4 of a deviation. Rounding to bfloat16 gives 2e-3.
@Suite struct IntegerProductTests {
    private static let bound = 3e-4

    /// Those whose kernels prefer integers: not the portable ones and NEON, which compute in float32.
    private static let backends = OperationTests.instructionSets.flatMap { set in
        [1, 3].map {
            CPUBackend(pool: WorkerPool(threadCount: $0), instructionSet: set, precision: .bfloat16)
        }
    }

    /// Every remainder of panels and blocks, and sums longer than what is kept in the cache at once.
    @Test(arguments: [
        (64, 64, 1), (65, 70, 63), (66, 64, 64), (67, 81, 65), (121, 97, 130), (64, 200, 577),
        (250, 64, 1100),
    ])
    func productsAndGradients(rows: Int, outputs: Int, inputs: Int) throws {
        if CPUBackend.hasNativeBFloat16 { return }
        var source = TensorSource(seed: UInt64(rows * outputs))
        let (x, weight) = (source.normal([rows, inputs]), source.normal([outputs, inputs]))
        let outputGradient = source.normal([rows, outputs])
        let (xs, ws, ds) = (Reference(x), Reference(weight), Reference(outputGradient))
        let expected = ReferenceMath.linear(xs, ws)
        // dx = d · W and dW = dᵀ · x are products with rows too, of transposed operands.
        let dx = ReferenceMath.linear(ds, transposed(ws))
        let dw = ReferenceMath.linear(transposed(ds), transposed(xs))
        for backend in Self.backends {
            let found = try backend.linear(x, weight: weight, bias: nil)
            #expect(
                relativeError(found.floats().map(Double.init), expected.values)
                    < bound(backend, rows, outputs))
            let (gx, gw) = (Tensor(zeros: x.shape), Tensor(filled: weight.shape, with: 0.5))
            try backend.linearGradient(
                outputGradient, x: x, weight: weight, into: LinearGradient(x: gx, weight: gw, bias: nil))
            #expect(
                relativeError(gx.floats().map(Double.init), dx.values) < bound(backend, rows, inputs))
            let added = gw.floats().map { Double($0) - 0.5 }
            #expect(relativeError(added, dw.values) < bound(backend, outputs, inputs), "\(backend.name)")
        }
    }

    @Test(arguments: [DType.bfloat16, .float16, .int8Rows, .int4Rows])
    func narrowWeights(dtype: DType) throws {
        if CPUBackend.hasNativeBFloat16 { return }
        var source = TensorSource(seed: 12)
        let (x, weight) = (source.normal([70, 200]), source.normal([83, 200]).converted(to: dtype))
        let expected = ReferenceMath.linear(Reference(x), Reference(weight.converted(to: .float32)))
        for backend in Self.backends {
            let found = try backend.linear(x, weight: weight, bias: nil)
            #expect(relativeError(found.floats().map(Double.init), expected.values) < bound(backend))
        }
    }

    /// Numbers far apart in different blocks keep their relative precision; what is not finite stays so.
    @Test func blocksHaveTheirOwnScales() throws {
        if CPUBackend.hasNativeBFloat16 { return }
        var values = [Float](repeating: 0, count: 64 * 192)
        var source = TensorSource(seed: 2)
        let normal = source.normal([64, 192]).floats()
        for index in values.indices {
            values[index] = normal[index] * ([1e-12, 1, 1e12][index % 192 / 64])
        }
        let weight = source.normal([64, 192])
        for block in 0..<3 {
            // Only one block of the sum counts.
            var kept = weight.floats()
            for index in kept.indices where index % 192 / 64 != block { kept[index] = 0 }
            let one = Tensor(kept, shape: [64, 192])
            let x = Tensor(values, shape: [64, 192])
            let expected = ReferenceMath.linear(Reference(x), Reference(one))
            for backend in Self.backends {
                let found = try backend.linear(x, weight: one, bias: nil)
                #expect(relativeError(found.floats().map(Double.init), expected.values) < bound(backend))
            }
        }
        for bad in [Float.nan, .infinity] {
            values[5 * 192 + 100] = bad
            for backend in Self.backends {
                let found = try backend.linear(
                    Tensor(values, shape: [64, 192]), weight: weight, bias: nil
                ).floats()
                #expect((0..<64).allSatisfy { !found[5 * 64 + $0].isFinite })
                #expect((0..<64).allSatisfy { found[6 * 64 + $0].isFinite })
            }
        }
    }

    /// Kernels without fast integers round to bfloat16, each operand by 2^-9 at most; so do those that have
    /// them where the result is so narrow that packing the operands would not pay.
    private func bound(_ backend: CPUBackend, _ rows: Int = 64, _ columns: Int = 64) -> Double {
        let isPortable = ["scalar", "neon"].contains(backend.instructionSet.name)
        return isPortable || min(rows, columns) < 64 ? 5e-3 : Self.bound
    }

    private func transposed(_ x: Reference) -> Reference {
        let (rows, columns) = (x.shape[0], x.shape[1])
        return Reference(
            (0..<(rows * columns)).map { x.values[$0 % rows * columns + $0 / rows] }, shape: [columns, rows])
    }
}
