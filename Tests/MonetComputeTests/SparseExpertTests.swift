import MonetCompute
import MonetFoundation
import TestSupport
import Testing

/// Every execution agrees with the sum over all pairs in double precision, in output and in every gradient.
///
/// The processor sums the same terms in float32: 2e-5 norm-wise as in `OperationTests`.
@Suite struct SparseExpertTests {
    static let bound = 2e-5

    struct Inputs {
        let x: Tensor
        let left: Tensor
        let right: Tensor
        let outputGradient: Tensor
    }

    /// One result of a layer, and the size of the terms that rounding acts on.
    struct Result {
        let name: String
        let values: Tensor
        var scale: Double
    }

    private func probabilities(
        tokens: Int, heads: Int, experts: Int, threshold: Float, same: Bool, _ source: inout TensorSource
    ) throws -> Tensor {
        var logits = source.normal([tokens, heads, experts])
        if same {
            // Every token selects one and the same expert.
            var values = logits.floats()
            for row in 0..<(tokens * heads) { values[row * experts + experts / 2] = 9 }
            logits = Tensor(values, shape: logits.shape)
        }
        let backend = CPUBackend()
        return try backend.route(
            logits,
            rule: RouterSelectionRule(
                statistics: try backend.routerStatistics(logits), epsilon: 1e-5, threshold: threshold))
    }

    /// Output and gradients of a layer.
    ///
    /// - Parameters:
    ///   - normalized: Whether the layer may use that probabilities sum to 1. Their gradient is then known up to a
    ///     constant of each head, which the softmax takes away, and the gradient by logits stands for it.
    private func run(
        _ backend: any Backend, _ inputs: Inputs, weights: [Tensor], normalized: Bool
    ) throws -> [Result] {
        let (x, left, right) = try (
            backend.tensor(inputs.x), backend.tensor(inputs.left), backend.tensor(inputs.right)
        )
        let listed = ExpertWeights(listed: try weights.map { try backend.tensor($0) })
        func zeros(_ like: Tensor) throws -> Tensor { try backend.zeros(like.shape, dtype: .float32) }
        let gradient = ExpertGradient(x: try zeros(x), left: try zeros(left), right: try zeros(right))
        let weightGradient = try listed.map(zeros)
        let routing = ExpertRouting(left: left, right: right, isNormalized: normalized)
        let (output, saved) = try backend.experts(x, routing: routing, weights: listed)
        try backend.expertsGradient(
            try backend.tensor(inputs.outputGradient), x: x, routing: routing, weights: listed, saved: saved,
            into: gradient, weightGradient: weightGradient)
        func result(_ name: String, _ tensor: Tensor) throws -> Result {
            let values = tensor.onHost
            return Result(
                name: name, values: values,
                scale: values.floats().reduce(0) { max($0, Double(abs($1))) })
        }
        var results = [try result("output", output), try result("x", gradient.x)]
        for (name, d, p) in [("left", gradient.left, left), ("right", gradient.right, right)] {
            // Outside the selection a probability is a constant.
            let (slopes, selected) = (d.onHost.floats(), p.onHost.floats())
            let inside = try result(
                name, Tensor(zip(slopes, selected).map { $1 > 0 ? $0 : 0 }, shape: d.shape))
            guard normalized else {
                results.append(inside)
                continue
            }
            let logits = try zeros(p)
            try backend.routeGradient(d, probabilities: p, into: logits)
            var byLogits = try result("\(name) logits", logits)
            // A difference of slopes, often far larger than itself.
            byLogits.scale = max(byLogits.scale, inside.scale)
            results.append(byLogits)
        }
        for (place, tensor) in weightGradient.all.enumerated() {
            results.append(try result("weight \(place)", tensor))
        }
        return results
    }

    @Test(arguments: 0..<80)
    func agreesWithPairs(index: Int) throws {
        var random = SplitMix64(seed: UInt64(index))
        func pick(_ range: ClosedRange<Int>) -> Int {
            range.lowerBound + Int(random.next() % UInt64(range.count))
        }
        let isVertical = index % 2 == 0
        let (tokens, heads, experts) = (pick(1...70), pick(1...4), index % 10 == 3 ? 1 : pick(2...24))
        let width = isVertical ? 2 * pick(1...40) : pick(1...80)
        let units = pick(1...13)
        // From every expert selected to the largest alone.
        let threshold: Float = index % 8 == 5 ? -50 : index % 8 == 6 ? 50 : Float(pick(0...20)) / 10
        var source = TensorSource(seed: UInt64(1000 + index))
        let same = index % 9 == 4
        let inputs = Inputs(
            x: source.normal([tokens, width]),
            left: try probabilities(
                tokens: tokens, heads: heads, experts: experts, threshold: threshold, same: same, &source),
            right: try probabilities(
                tokens: tokens, heads: heads, experts: experts, threshold: threshold, same: same, &source),
            outputGradient: source.normal([tokens, width]))
        let (e, half) = (experts, width / 2)
        let up = [e * units, width]
        let down = [half, e * units]
        let shapes =
            isVertical
            ? [up, [e * units], up, [e * units], down, down, down, down, [e, half], [e, half]]
            : [up, [e * units], [width, e * units], [e, width]]
        let weights = shapes.map { source.normal($0) }
        let reference = ReferenceBackend()
        for normalized in [true, false] {
            let expected = try run(reference, inputs, weights: weights, normalized: normalized)
            for kernels in OperationTests.instructionSets {
                for (threads, execution) in [1, 3].flatMap({ threads in
                    ExpertExecution.allCases.map { (threads, $0) }
                }) {
                    let place = "\(execution), \(kernels.name), \(threads) threads, normalized: \(normalized)"
                    let backend = CPUBackend(
                        pool: WorkerPool(threadCount: threads), instructionSet: kernels,
                        expertExecution: execution)
                    let found = try run(backend, inputs, weights: weights, normalized: normalized)
                    for (x, y) in zip(found, expected) {
                        // Where all of a gradient cancels, rounding is all there is.
                        let difference = zip(x.values.floats(), y.values.floats())
                            .reduce(0) { max($0, Double(abs($1.0 - $1.1))) }
                        let error = relativeError(x.values, y.values)
                        #expect(
                            error < Self.bound || difference < 1e-5 * max(1, y.scale),
                            "\(x.name): \(error), \(difference) of \(y.scale), \(place)")
                    }
                    let packed = try backend.experts(
                        inputs.x,
                        routing: ExpertRouting(
                            left: inputs.left, right: inputs.right, isNormalized: normalized),
                        prepared: backend.prepare(.init(listed: weights)))
                    #expect(relativeError(packed, expected[0].values) < Self.bound, "packed, \(place)")
                }
            }
        }
    }

    /// Columns of an expert in all matrices become its rows, value for value.
    @Test(arguments: [DType.float32, .bfloat16, .float16], [1, 3, 8, 17, 70])
    func columnsOfExpertsBecomeRows(dtype: DType, width: Int) {
        var source = TensorSource(seed: 3)
        for (experts, units, count) in [(1, 1, 1), (5, 3, 2), (33, 8, 2), (40, 16, 1), (1, 300, 3)] {
            let matrices = (0..<count).map { _ in
                source.normal([width, experts * units]).converted(to: dtype)
            }
            let values = matrices.map { $0.floats() }
            let found = Tensor.expertRows(of: matrices, experts: experts)
            #expect(found.shape == [experts * count * units, width] && found.dtype == dtype)
            let expected = (0..<experts).flatMap { expert in
                (0..<(count * units)).flatMap { row in
                    (0..<width).map {
                        values[row / units][$0 * experts * units + expert * units + row % units]
                    }
                }
            }
            #expect(found.floats() == expected, "\(experts) experts of \(units) units")
        }
    }

    /// Weights in narrow types are read where they lie, by every path.
    @Test(arguments: [DType.bfloat16, .float16], [1, 4, 30])
    func narrowWeights(dtype: DType, tokens: Int) throws {
        var source = TensorSource(seed: 99)
        let (experts, width, units) = (25, 36, 10)
        let left = try probabilities(
            tokens: tokens, heads: 2, experts: experts, threshold: 1.6, same: false, &source)
        let right = try probabilities(
            tokens: tokens, heads: 2, experts: experts, threshold: 1.6, same: false, &source)
        let x = source.normal([tokens, width])
        let weights = [
            [experts * units, width], [experts * units], [width, experts * units], [experts, width],
        ]
        .map { source.normal($0).converted(to: dtype) }
        let expected = ReferenceMath.horizontalExperts(
            Reference(x), left: Reference(left), right: Reference(right), u: Reference(weights[0]),
            uBias: Reference(weights[1]), v: Reference(weights[2]), b: Reference(weights[3]))
        for backend in OperationTests.backends {
            let listed = ExpertWeights(listed: weights)
            let routing = ExpertRouting(left: left, right: right)
            let output = try backend.experts(x, routing: routing, weights: listed).output
            #expect(
                relativeError(output.floats().map(Double.init), expected.values) < 1e-5, "\(backend.name)")
            let packed = try backend.experts(x, routing: routing, prepared: backend.prepare(listed))
            #expect(
                relativeError(packed.floats().map(Double.init), expected.values) < 1e-5, "\(backend.name)")
        }
    }
}
