import MonetCompute
import TestSupport
import Testing

/// A screened router selects what the whole product selects, with the same probabilities to the bit.
@Suite struct RouterScreenTests {
    @Test(
        arguments: [(1, 1, 5), (2, 7, 33), (8, 64, 128), (3, 100, 300), (4, 128, 513)],
        [DType.float32, .bfloat16])
    func sameProbabilities(sizes: (heads: Int, experts: Int, width: Int), dtype: DType) throws {
        var source = TensorSource(seed: 41)
        let rows = sizes.heads * sizes.experts
        // Rows of different lengths, so that the bounds differ; one is zero.
        var values = source.normal([rows, sizes.width]).floats()
        for row in 0..<rows {
            for column in 0..<sizes.width {
                values[row * sizes.width + column] *= row == rows / 2 ? 0 : Float(1 + row % 5)
            }
        }
        let weight = Tensor(values, shape: [rows, sizes.width]).converted(to: dtype)
        let rounded = RoundedRouter(of: weight)
        for backend in OperationTests.backends {
            for tokens in 1...3 {
                let x = source.normal([tokens, sizes.width])
                // From thresholds that everything reaches to those that nothing does.
                for threshold: Float in [-9, -0.5, 0.7, 2.1, 9] {
                    let logits = try backend.linear(x, weight: weight, bias: nil)
                        .reshaped([tokens, sizes.heads, sizes.experts])
                    let rule = RouterSelectionRule(
                        statistics: try backend.routerStatistics(logits), epsilon: 1e-5, threshold: threshold)
                    func sides(_ rounded: RoundedRouter?) throws -> (left: Tensor, right: Tensor) {
                        let side = RouterWeights.Side(weight: weight, rule: rule, rounded: rounded)
                        return try backend.route(
                            x,
                            prepared: backend.prepare(
                                RouterWeights(left: side, right: side, heads: sizes.heads)))
                    }
                    let expected = try backend.route(logits, rule: rule)
                    let (screened, whole) = (try sides(rounded), try sides(nil))
                    for found in [screened.left, screened.right, whole.left, whole.right] {
                        // One row at a time sums as several at a time do only for one token. Logits of some
                        // hundreds, 2^-24 of which is 2e-5, are exponents.
                        if tokens == 1 {
                            #expect(found.floats() == expected.floats(), "\(backend.name), \(threshold)")
                        } else {
                            #expect(relativeError(found, expected) < 1e-4, "\(backend.name), \(threshold)")
                        }
                    }
                }
            }
        }
    }
}
