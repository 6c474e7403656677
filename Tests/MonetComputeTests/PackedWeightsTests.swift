import MonetCompute
import TestSupport
import Testing

/// Weights that a backend has packed once are multiplied as if they were packed for every product.
@Suite struct PackedWeightsTests {
    private func backend() -> any Backend {
        CPUBackend(
            pool: WorkerPool(threadCount: 2), precision: .bfloat16, isBatchInvariant: true
        ).forManyRows
    }

    private func values(_ shape: [Int], seed: Int) -> Tensor {
        var state = UInt64(seed + 1)
        return Tensor(
            (0..<shape.reduce(1, *)).map { _ in
                state = state &* 6_364_136_223_846_793_005 &+ 1
                return Float(Int32(truncatingIfNeeded: state >> 33)) / Float(1 << 30)
            }, shape: shape)
    }

    @Test(arguments: [(1, 5, 3), (7, 130, 65), (70, 64, 200)])
    func keptWeightsGiveTheSameProducts(_ size: (rows: Int, inputs: Int, outputs: Int)) throws {
        let kept = backend()
        for round in 0..<3 {
            for number in 0..<4 {
                // Weights of one shape, made anew in every round: an address may come back with other numbers.
                let weight = values([size.outputs, size.inputs], seed: 10 * round + number)
                    .converted(to: .bfloat16)
                for turn in 0..<2 {
                    let x = values([size.rows, size.inputs], seed: 100 + turn)
                    let expected = try backend().linear(x, weight: weight, bias: nil).floats()
                    #expect(try kept.linear(x, weight: weight, bias: nil).floats() == expected)
                    let exact = try CPUBackend().linear(
                        x, weight: weight.converted(to: .float32), bias: nil
                    ).floats()
                    // bfloat16 operands: 2⁻⁸ of the sum of magnitudes, which is at most 4 · inputs.
                    for (a, b) in zip(expected, exact) { #expect(abs(a - b) < Float(size.inputs) / 64) }
                }
            }
        }
    }

    @Test func weightsInFloat32MayChange() throws {
        let kept = backend()
        let (x, weight) = (values([70, 96], seed: 1), values([80, 96], seed: 2))
        let before = try kept.linear(x, weight: weight, bias: nil).floats()
        try weight.write(weight.floats().map { -$0 })
        #expect(try kept.linear(x, weight: weight, bias: nil).floats() == before.map { -$0 })
    }
}
