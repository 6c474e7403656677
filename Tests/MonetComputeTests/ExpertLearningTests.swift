import MonetCompute
import TestSupport
import Testing

/// A layer of experts that learns through another routing than it runs with: its output and the gradient of its input are
/// those of the one, the gradients of its weights those of the other, by finite differences of the definition in double
/// precision.
@Suite struct ExpertLearningTests {
    @Test(arguments: [1, 9]) func weightsLearnThroughTheOtherRouting(tokens: Int) throws {
        let (heads, experts, width, units) = (2, 7, 10, 4)
        var source = TensorSource(seed: 31)
        let x = source.normal([tokens, width])
        func probabilities() -> Reference {
            let logits = Reference(source.normal([tokens, heads, experts], deviation: 1.5))
            let (mean, variance) = ReferenceMath.routerStatistics(logits)
            let selection = ReferenceMath.selection(
                logits, mean: mean, variance: variance, epsilon: 1e-5, threshold: 0.3)
            return ReferenceMath.route(logits, selection: selection)
        }
        let sides = [probabilities(), probabilities()]
        // Halves 4 to 6 learn, in all rows but the last.
        let restricted = sides.map { side in
            var result = side
            for place in 0..<(max(1, tokens - 1) * heads) {
                for half in 0..<4 { result.values[place * experts + half] = 0 }
            }
            return result
        }
        let (half, part) = (width / 2, units / 2)
        let weights = [
            source.normal([experts * part, width]), source.normal([experts * part]),
            source.normal([experts * part, width]), source.normal([experts * part]),
            source.normal([half, experts * part]), source.normal([half, experts * part]),
            source.normal([half, experts * part]), source.normal([half, experts * part]),
            source.normal([experts, half]), source.normal([experts, half]),
        ]
        func output(_ inputs: [Reference], _ sides: [Reference]) -> Reference {
            ReferenceMath.verticalExperts(
                inputs[0], left: sides[0], right: sides[1], weights: Array(inputs[1...]))
        }
        let references = ([x] + weights).map { Reference($0) }
        let outputGradient = source.normal([tokens, width])
        let factors = outputGradient.floats().map(Double.init)
        for backend in OperationTests.backends {
            let tape = GradientTape(backend: backend, isRecording: true)
            func variable(_ values: Reference) -> Variable {
                Variable(
                    Tensor(values.values.map(Float.init), shape: [tokens, heads, experts]),
                    requiresGradient: true)
            }
            let own = sides.map(variable)
            let learning = restricted.map(variable)
            let inputs = ([x] + weights).map { Variable($0, requiresGradient: true) }
            let result = try tape.experts(
                inputs[0], left: own[0], right: own[1],
                routing: ExpertRouting(left: own[0].value, right: own[1].value),
                weights: ExpertWeights(listed: Array(inputs[1...])),
                learning: ExpertLearning(
                    left: learning[0], right: learning[1],
                    routing: ExpertRouting(
                        left: learning[0].value, right: learning[1].value,
                        unnormalizedRows: [0..<tokens])))
            #expect(
                relativeError(result.value.floats().map(Double.init), output(references, sides).values)
                    < OperationTests.forwardBound, "\(backend.name)")
            try result.add(outputGradient, on: backend)
            try tape.backward()
            #expect(own.allSatisfy { $0.gradient == nil })
            for (place, input) in inputs.enumerated() {
                let indices = spread(references[place].values.count, limit: 24)
                let expected = finiteDifferences(of: references, input: place, at: indices) {
                    zip(output($0, place == 0 ? sides : restricted).values, factors).reduce(0) {
                        $0 + $1.0 * $1.1
                    }
                }
                let found = try #require(input.gradient).floats()
                let error = relativeError(indices.map { Double(found[$0]) }, expected)
                #expect(error < OperationTests.gradientBound, "input \(place) on \(backend.name): \(error)")
            }
        }
    }
}
