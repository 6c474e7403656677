import MonetCompute
import MonetFoundation
import TestSupport
import Testing

/// Layers with removed, weakened and amplified experts against the sum over every pair (i, j) written
/// out (equations 7 and 14), with its term multiplied by the pair's strength.
@Suite struct ExpertStrengthTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let isVertical: Bool
        let share: Double
        let strength: Float?
        let tokens: Int
        var testDescription: String {
            "\(isVertical ? "vertical" : "horizontal"), \(share) of the pairs at "
                + "\(strength.map { "\($0)" } ?? "random strengths"), \(tokens) tokens"
        }
    }

    static let cases: [Case] = [true, false].flatMap { isVertical in
        [(0, 0), (0.01, 0), (0.5, 0), (1, 0), (0.3, nil), (1, 2)].flatMap { share, strength in
            [1, 5, 20].map {
                Case(isVertical: isVertical, share: share, strength: strength, tokens: $0)
            }
        }
    }

    @Test(arguments: cases)
    func matchesPairByPair(test: Case) throws {
        var random = SplitMix64(seed: 77)
        var source = TensorSource(seed: 78)
        let (experts, heads, width, units) = (11, 3, 18, 4)
        func uniform() -> Double { Double(random.next() >> 11) * 0x1p-53 }
        var strengths: [Int: Float] = [:]
        for index in 0..<(experts * experts) where uniform() < test.share {
            strengths[index] = test.strength ?? Float(uniform() * 2)
        }
        let backendForRouting = CPUBackend()
        func probabilities() throws -> Tensor {
            let logits = source.normal([test.tokens, heads, experts])
            return try backendForRouting.route(
                logits,
                rule: RouterSelectionRule(
                    statistics: backendForRouting.routerStatistics(logits), epsilon: 1e-5, threshold: 0.5))
        }
        let (left, right) = (try probabilities(), try probabilities())
        let x = source.normal([test.tokens, width])
        let dOut = source.normal([test.tokens, width])
        let half = width / 2
        let up = [experts * units, width]
        let down = [half, experts * units]
        let shapes =
            test.isVertical
            ? [up, [up[0]], up, [up[0]], down, down, down, down, [experts, half], [experts, half]]
            : [up, [up[0]], [width, experts * units], [experts, width]]
        let weights = shapes.map { source.normal($0) }
        let doubles = strengths.mapValues { Double($0) }
        func formula(_ inputs: [Reference]) -> Reference {
            test.isVertical
                ? ReferenceMath.verticalExperts(
                    inputs[0], left: inputs[1], right: inputs[2], weights: Array(inputs[3...]),
                    strengths: doubles)
                : ReferenceMath.horizontalExperts(
                    inputs[0], left: inputs[1], right: inputs[2], u: inputs[3], uBias: inputs[4],
                    v: inputs[5],
                    b: inputs[6], strengths: doubles)
        }
        let inputs = ([x, left, right] + weights).map { Reference($0) }
        let expected = formula(inputs)
        let isEmpty = test.share == 1 && test.strength == 0

        for backend in OperationTests.backends {
            let routing = ExpertRouting(
                left: left, right: right,
                strengths: [
                    RowStrengths(
                        rows: 0..<test.tokens,
                        factors: [UnitStrengths(units: experts * experts, strengths: strengths)])
                ])
            let listed = ExpertWeights(listed: weights)
            let packed = try backend.experts(x, routing: routing, prepared: backend.prepare(listed))
            let g = weights.map { Tensor(zeros: $0.shape) }
            let gradient = ExpertGradient(
                x: Tensor(zeros: x.shape), left: Tensor(zeros: left.shape), right: Tensor(zeros: right.shape))
            let (output, saved) = try backend.experts(x, routing: routing, weights: listed)
            try backend.expertsGradient(
                dOut, x: x, routing: routing, weights: listed, saved: saved, into: gradient,
                weightGradient: .init(listed: g))
            for (name, found) in [("packed", packed), ("sparse", output)] {
                if isEmpty {
                    #expect(found.floats().allSatisfy { $0 == 0 }, "\(name): nothing is left")
                } else {
                    #expect(
                        relativeError(found.floats().map(Double.init), expected.values) < 1e-5,
                        "\(name), \(backend.name)")
                }
            }
            // Gradients, with the selection held fixed: probabilities vary inside it only, and without
            // strengths their gradients leave a constant a head open.
            if test.tokens > 5 || (strengths.isEmpty && test.share == 0) { continue }
            let loss: ([Reference]) -> Double = {
                zip(formula($0).values, dOut.floats()).reduce(0) { $0 + $1.0 * Double($1.1) }
            }
            for (place, found) in ([gradient.x, gradient.left, gradient.right] + g).enumerated() {
                let isProbability = place == 1 || place == 2
                let selected = (0..<found.count).filter { !isProbability || inputs[place].values[$0] != 0 }
                let indices = spread(selected.count, limit: 40).map { selected[$0] }
                if isProbability, test.share < 1 { continue }
                let reference = finiteDifferences(of: inputs, input: place, at: indices, loss: loss)
                let values = found.floats()
                let size = reference.reduce(0) { max($0, abs($1)) }
                let difference = zip(indices, reference).reduce(0) {
                    max($0, abs(Double(values[$1.0]) - $1.1))
                }
                #expect(difference <= 1e-4 * max(size, 1e-3), "gradient \(place), \(backend.name)")
            }
        }
    }

    /// Ranges of tokens with strengths of their own, some with two factors, some with none: each row is what it is
    /// when all tokens have its strengths.
    @Test(arguments: [true, false])
    func rowsHaveTheirOwnStrengths(isVertical: Bool) throws {
        var source = TensorSource(seed: 5)
        var random = SplitMix64(seed: 6)
        let (experts, heads, width, units, tokens) = (7, 2, 12, 4, 9)
        let router = CPUBackend()
        func probabilities() throws -> Tensor {
            let logits = source.normal([tokens, heads, experts])
            return try router.route(
                logits,
                rule: RouterSelectionRule(
                    statistics: router.routerStatistics(logits), epsilon: 1e-5, threshold: 0.3))
        }
        func strengths() -> UnitStrengths {
            var values: [Int: Float] = [:]
            for index in 0..<(experts * experts) where random.next() % 2 == 0 {
                values[index] = Float(random.next() % 4) / 2
            }
            return UnitStrengths(units: experts * experts, strengths: values)
        }
        let (left, right) = (try probabilities(), try probabilities())
        let (half, up) = (width / 2, [experts * units, width])
        let shapes =
            isVertical
            ? [up, [up[0]], up, [up[0]]] + Array(repeating: [half, up[0]], count: 4)
                + [[experts, half], [experts, half]]
            : [up, [up[0]], [width, up[0]], [experts, width]]
        let weights = ExpertWeights(listed: shapes.map { source.normal($0) })
        let x = source.normal([tokens, width])
        let (first, second) = (strengths(), strengths())
        let parts = [
            RowStrengths(rows: 0..<3, factors: [first]), RowStrengths(rows: 5..<8, factors: [first, second]),
        ]
        for backend in OperationTests.backends {
            func output(_ strengths: [RowStrengths]) throws -> [Tensor] {
                let routing = ExpertRouting(left: left, right: right, strengths: strengths)
                return [
                    try backend.experts(x, routing: routing, weights: weights).output,
                    try backend.experts(x, routing: routing, prepared: backend.prepare(weights)),
                ]
            }
            let found = try output(parts)
            for (rows, factors) in [
                (0..<3, [first]), (3..<5, []), (5..<8, [first, second]), (8..<9, [UnitStrengths]()),
            ] {
                let expected = try output([RowStrengths(rows: 0..<tokens, factors: factors)])
                for (a, b) in zip(found, expected) {
                    #expect(relativeError(a.slice(rows), b.slice(rows)) < 1e-6, "\(rows), \(backend.name)")
                }
            }
            #expect(throws: ComputeError.self) {
                try output([RowStrengths(rows: 0..<(tokens + 1), factors: [first])])
            }
        }
    }
}
