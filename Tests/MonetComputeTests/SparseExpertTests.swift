import MonetCompute
import MonetFoundation
import TestSupport
import Testing

/// Sparse and dense execution agree on random shapes, in output and in every gradient.
///
/// Both are float32 sums of the same terms in other orders: 2e-5 norm-wise as in `OperationTests`.
@Suite struct SparseExpertTests {
    static let bound = 2e-5

    struct Inputs {
        let x: Tensor
        let left: Tensor
        let right: Tensor
        let outputGradient: Tensor
        var routing: ExpertRouting { ExpertRouting(left: left, right: right) }
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

    /// Output and gradients of one kind of layer on one backend.
    private func run(
        _ backend: CPUBackend, _ inputs: Inputs, weights: [Tensor]
    ) throws -> [Tensor] {
        let g = weights.map { Tensor(zeros: $0.shape) }
        let gradient = ExpertGradient(
            x: Tensor(zeros: inputs.x.shape), left: Tensor(zeros: inputs.left.shape),
            right: Tensor(zeros: inputs.right.shape))
        let (output, saved) = try backend.experts(
            inputs.x, routing: inputs.routing, weights: .init(listed: weights))
        try backend.expertsGradient(
            inputs.outputGradient, x: inputs.x, routing: inputs.routing, weights: .init(listed: weights),
            saved: saved, into: gradient, weightGradient: .init(listed: g))
        // Probabilities' gradients are determined where the softmax uses them.
        let sides = try [(gradient.left, inputs.left), (gradient.right, inputs.right)].map { d, p in
            let logits = Tensor(zeros: p.shape)
            try backend.routeGradient(d, probabilities: p, into: logits)
            return logits
        }
        return [output, gradient.x] + sides + g
    }

    @Test(arguments: 0..<80)
    func agreesWithDense(index: Int) throws {
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
        for kernels in OperationTests.instructionSets {
            for threads in [1, 3] {
                let pool = WorkerPool(threadCount: threads)
                let dense = try run(
                    CPUBackend(pool: pool, instructionSet: kernels, expertExecution: .dense), inputs,
                    weights: weights)
                let backend = CPUBackend(pool: pool, instructionSet: kernels)
                let packed = try backend.experts(
                    inputs.x, routing: inputs.routing, prepared: backend.prepare(.init(listed: weights)))
                #expect(
                    relativeError(packed, dense[0]) < Self.bound,
                    "packed, \(kernels.name), \(threads) threads")
                for execution in [ExpertExecution.sparse, .automatic] {
                    let found = try run(
                        CPUBackend(pool: pool, instructionSet: kernels, expertExecution: execution), inputs,
                        weights: weights)
                    for (place, (x, y)) in zip(found, dense).enumerated() {
                        // Where all of a gradient cancels, the noise of both sides is all there is.
                        let scale = max(1, y.floats().reduce(0) { max($0, abs($1)) })
                        let difference = zip(x.floats(), y.floats()).reduce(0) { max($0, abs($1.0 - $1.1)) }
                        #expect(
                            relativeError(x, y) < Self.bound || difference < 1e-5 * scale,
                            "\(execution), tensor \(place), \(kernels.name), \(threads) threads")
                    }
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
