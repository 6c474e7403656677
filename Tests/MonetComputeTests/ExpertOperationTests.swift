import Foundation
import MonetCompute
import TestSupport
import Testing

/// Routers and expert layers against the definitions: sums over every pair of experts in double
/// precision, which use none of the factorizations that the backend does. Bounds as in `OperationTests`.
@Suite struct ExpertOperationTests {
    struct Sizes: Sendable, CustomTestStringConvertible {
        let tokens: Int
        let width: Int
        let heads: Int
        let experts: Int
        let units: Int
        let threshold: Float

        var testDescription: String {
            "tokens \(tokens), width \(width), heads \(heads), experts \(experts), m \(units)"
        }
    }

    /// One expert, every expert selected, sizes that no register divides, one token and many.
    static let sizes = [
        Sizes(tokens: 1, width: 2, heads: 1, experts: 1, units: 2, threshold: 1),
        Sizes(tokens: 1, width: 10, heads: 3, experts: 5, units: 4, threshold: 0.6),
        Sizes(tokens: 7, width: 18, heads: 2, experts: 9, units: 6, threshold: 0.9),
        Sizes(tokens: 12, width: 16, heads: 4, experts: 16, units: 8, threshold: 1.1),
        Sizes(tokens: 5, width: 14, heads: 2, experts: 7, units: 2, threshold: -50),
        // Enough tokens, few enough selected, for sparse execution; lists of every length modulo a tile.
        Sizes(tokens: 23, width: 18, heads: 2, experts: 13, units: 6, threshold: 1.2),
        Sizes(tokens: 40, width: 70, heads: 1, experts: 11, units: 14, threshold: 1.5),
        Sizes(tokens: 9, width: 34, heads: 3, experts: 20, units: 2, threshold: 1.9),
        // Decoding: blocks of 16, 8 and single columns.
        Sizes(tokens: 3, width: 20, heads: 2, experts: 30, units: 34, threshold: 1.9),
        Sizes(tokens: 1, width: 24, heads: 1, experts: 40, units: 50, threshold: 2),
    ]

    struct Routing {
        let logits: Tensor
        let selection: [Bool]
        let probabilities: Reference
    }

    private func routing(_ sizes: Sizes, _ source: inout TensorSource) -> Routing {
        let logits = source.normal([sizes.tokens, sizes.heads, sizes.experts], deviation: 1.5)
        let reference = Reference(logits)
        let (mean, variance) = ReferenceMath.routerStatistics(reference)
        let selection = ReferenceMath.selection(
            reference, mean: mean, variance: variance, epsilon: 1e-5, threshold: Double(sizes.threshold))
        return Routing(
            logits: logits, selection: selection,
            probabilities: ReferenceMath.route(reference, selection: selection))
    }

    @Test(arguments: sizes)
    func routing(sizes: Sizes) throws {
        var source = TensorSource(seed: 21)
        let expected = routing(sizes, &source)
        let logits = Reference(expected.logits)
        let (mean, variance) = ReferenceMath.routerStatistics(logits)
        let outputGradient = source.normal(expected.logits.shape)
        let weights = outputGradient.floats().map(Double.init)
        let indices = spread(weights.count, limit: 60)
        let differences = finiteDifferences(of: [logits], input: 0, at: indices) { inputs in
            zip(ReferenceMath.route(inputs[0], selection: expected.selection).values, weights)
                .reduce(0) { $0 + $1.0 * $1.1 }
        }
        for backend in OperationTests.backends {
            let statistics = try backend.routerStatistics(expected.logits)
            #expect(relativeError(statistics.mean.floats().map(Double.init), mean) < 1e-5)
            #expect(relativeError(statistics.variance.floats().map(Double.init), variance) < 1e-5)
            let probabilities = try backend.route(
                expected.logits,
                rule: RouterSelectionRule(
                    statistics: statistics, epsilon: 1e-5, threshold: sizes.threshold))
            #expect(probabilities.floats().map { $0 > 0 } == expected.selection)
            #expect(
                relativeError(probabilities.floats().map(Double.init), expected.probabilities.values) < 1e-5)
            let gradient = Tensor(zeros: expected.logits.shape)
            try backend.routeGradient(outputGradient, probabilities: probabilities, into: gradient)
            let values = gradient.floats()
            #expect(
                relativeError(indices.map { Double(values[$0]) }, differences) < OperationTests.gradientBound)
        }
    }

    @Test(arguments: sizes, UniformitySource.allCases)
    func objective(sizes: Sizes, uniformity: UniformitySource) throws {
        var source = TensorSource(seed: 22)
        let routing = routing(sizes, &source)
        let probabilities = Tensor(routing.probabilities.values.map(Float.init), shape: routing.logits.shape)
        let inputs = [Reference(routing.logits), Reference(probabilities)]
        let (uniformityWeight, ambiguityWeight) = (0.7, 0.4)
        func loss(_ inputs: [Reference]) -> Double {
            let (u, a) = ReferenceMath.routerObjective(
                logits: inputs[0], probabilities: inputs[1], uniformity: uniformity)
            return uniformityWeight * u + ambiguityWeight * a
        }
        let expected = ReferenceMath.routerObjective(
            logits: inputs[0], probabilities: inputs[1], uniformity: uniformity)
        // Where an expert is never selected its mean is clamped: no gradient by definition, so the
        // differences are taken only where the probability is positive.
        let selected = routing.selection.indices.filter { routing.selection[$0] }
        for backend in OperationTests.backends {
            let objective = try backend.routerObjective(
                logits: routing.logits, probabilities: probabilities, uniformity: uniformity)
            let losses = objective.losses.floats().map(Double.init)
            #expect(abs(losses[0] - expected.uniformity) < 1e-5 * max(1, abs(expected.uniformity)))
            #expect(abs(losses[1] - expected.ambiguity) < 1e-5)
            #expect(Int(objective.selectionCounts.floats().reduce(0, +)) == selected.count)
            let logitGradient = Tensor(zeros: routing.logits.shape)
            let probabilityGradient = Tensor(zeros: routing.logits.shape)
            try backend.routerObjectiveGradient(
                objective, logits: routing.logits, probabilities: probabilities, uniformity: uniformity,
                uniformityWeight: Float(uniformityWeight), ambiguityWeight: Float(ambiguityWeight),
                into: probabilityGradient, logitGradient: logitGradient)
            let all = Array(routing.selection.indices)
            for (input, gradient, indices) in [(0, logitGradient, all), (1, probabilityGradient, selected)] {
                let reference = finiteDifferences(of: inputs, input: input, at: indices, loss: loss)
                let values = gradient.floats()
                #expect(
                    relativeError(indices.map { Double(values[$0]) }, reference)
                        < OperationTests.gradientBound)
            }
        }
    }

    @Test(arguments: sizes)
    func horizontalExperts(sizes: Sizes) throws {
        var source = TensorSource(seed: 23)
        let (e, d, m) = (sizes.experts, sizes.width, sizes.units)
        let weights = [
            source.normal([e * m, d]), source.normal([e * m]), source.normal([d, e * m]),
            source.normal([e, d]),
        ]
        try checkExperts(sizes, &source, weights: weights) { inputs, left, right in
            ReferenceMath.horizontalExperts(
                inputs[0], left: left, right: right, u: inputs[3], uBias: inputs[4], v: inputs[5],
                b: inputs[6])
        }
    }

    @Test(arguments: sizes)
    func verticalExperts(sizes: Sizes) throws {
        var source = TensorSource(seed: 24)
        let (e, half, units) = (sizes.experts, sizes.width / 2, sizes.units / 2)
        let up = [e * units, sizes.width]
        let weights = [
            source.normal(up), source.normal([e * units]), source.normal(up), source.normal([e * units]),
            source.normal([half, e * units]), source.normal([half, e * units]),
            source.normal([half, e * units]),
            source.normal([half, e * units]), source.normal([e, half]), source.normal([e, half]),
        ]
        try checkExperts(sizes, &source, weights: weights) { inputs, left, right in
            ReferenceMath.verticalExperts(inputs[0], left: left, right: right, weights: Array(inputs[3...]))
        }
    }

    /// Compares one kind of expert layer; `formula` takes x, both sides' probabilities and the weights.
    ///
    /// The factorizations use that a head's probabilities sum to one, so their gradient is determined only up
    /// to a constant a head, which the softmax removes: it is compared where it is determined, at the router's logits.
    private func checkExperts(
        _ sizes: Sizes, _ source: inout TensorSource, weights: [Tensor],
        formula: (_ inputs: [Reference], _ left: Reference, _ right: Reference) -> Reference
    ) throws {
        let x = source.normal([sizes.tokens, sizes.width])
        let sides = [routing(sizes, &source), routing(sizes, &source)]
        let probabilities = sides.map {
            Tensor($0.probabilities.values.map(Float.init), shape: $0.logits.shape)
        }
        let inputs = [x, sides[0].logits, sides[1].logits] + weights
        let references = inputs.map { Reference($0) }
        func output(_ inputs: [Reference]) -> Reference {
            formula(
                inputs, ReferenceMath.route(inputs[1], selection: sides[0].selection),
                ReferenceMath.route(inputs[2], selection: sides[1].selection))
        }
        let expected = output(references)
        let outputGradient = source.normal([sizes.tokens, sizes.width])
        let factors = outputGradient.floats().map(Double.init)
        let differences = inputs.indices.map { input -> ([Int], [Double]) in
            let indices = spread(references[input].values.count, limit: 24)
            return (
                indices,
                finiteDifferences(of: references, input: input, at: indices) {
                    zip(output($0).values, factors).reduce(0) { $0 + $1.0 * $1.1 }
                }
            )
        }
        for backend in OperationTests.backends {
            let gradients = inputs.map { Tensor(zeros: $0.shape) }
            let probabilityGradients = probabilities.map { Tensor(zeros: $0.shape) }
            let routing = ExpertRouting(left: probabilities[0], right: probabilities[1])
            let listed = ExpertWeights(listed: weights)
            let (output, saved) = try backend.experts(x, routing: routing, weights: listed)
            try backend.expertsGradient(
                outputGradient, x: x, routing: routing, weights: listed, saved: saved,
                into: ExpertGradient(
                    x: gradients[0], left: probabilityGradients[0], right: probabilityGradients[1]),
                weightGradient: ExpertWeights(listed: Array(gradients[3...])))
            for side in 0..<2 {
                try backend.routeGradient(
                    probabilityGradients[side], probabilities: probabilities[side], into: gradients[1 + side])
            }
            let error = relativeError(output.floats().map(Double.init), expected.values)
            #expect(error < OperationTests.forwardBound, "forward on \(backend.name): \(error)")
            for (input, (indices, reference)) in differences.enumerated() {
                let values = gradients[input].floats()
                let error = relativeError(indices.map { Double(values[$0]) }, reference)
                #expect(error < OperationTests.gradientBound, "input \(input) on \(backend.name): \(error)")
            }
        }
    }
}
