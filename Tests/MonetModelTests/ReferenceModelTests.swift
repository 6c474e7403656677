import Foundation
import MonetCompute
import MonetModel
import TestSupport
import Testing

/// Models of many shapes against the whole decoder in double precision.
///
/// Bound 1e-4 norm-wise as for the fixtures; a few layers of float32 sums leave about 1e-6.
@Suite struct ReferenceModelTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let configuration: MonetConfiguration
        var length = 9
        var testDescription: String { name }

        init(_ name: String, length: Int = 9, _ change: (inout MonetConfiguration) -> Void) {
            var c = MonetConfiguration()
            (c.vocabularySize, c.hiddenSize, c.layerCount) = (53, 24, 3)
            (c.attentionHeads, c.keyValueHeads, c.headWidth) = (4, 4, 6)
            c.experts = ExpertSettings(width: 6, heads: 2, perSide: 11, topK: 3, layersPerRouter: 2)
            c.maxPositionEmbeddings = 64
            change(&c)
            (self.name, configuration, self.length) = (name, c, length)
        }
    }

    static let cases = [
        Case("vertical") { _ in },
        Case("horizontal") { $0.feedForward = HorizontalExperts($0.experts ?? ExpertSettings()) },
        Case("horizontal, odd expert width") {
            $0.feedForward = HorizontalExperts($0.experts ?? ExpertSettings())
            $0.experts?.width = 5
        },
        Case("dense") { $0.feedForward = DenseFeedForward(intermediateSize: 37) },
        Case("grouped queries") { $0.keyValueHeads = 2 },
        Case("one key-value head") { $0.keyValueHeads = 1 },
        Case("heads wider than d / heads") { $0.headWidth = 10 },
        Case("biases") { $0.attentionBias = true },
        Case("tied embeddings") { $0.tieWordEmbeddings = true },
        Case("linear rope scaling", length: 20) { $0.ropeScaling = .linear(factor: 2.5) },
        Case("dynamic rope scaling, within", length: 8) {
            ($0.ropeScaling, $0.maxPositionEmbeddings) = (.dynamic(factor: 2), 16)
        },
        Case("dynamic rope scaling, beyond", length: 30) {
            ($0.ropeScaling, $0.maxPositionEmbeddings) = (.dynamic(factor: 2), 16)
        },
        Case("one expert") {
            $0.experts?.perSide = 1
            $0.experts?.topK = 1
        },
        Case("every expert selected") {
            $0.experts?.perSide = 7
            $0.experts?.topK = 7
        },
        Case("a router a layer") { $0.experts?.layersPerRouter = 1 },
        Case("one router for all") { $0.experts?.layersPerRouter = 8 },
        Case("one token", length: 1) { _ in },
        Case("other base and epsilon") { ($0.ropeTheta, $0.rmsNormEpsilon) = (500_000, 1e-5) },
    ]

    private func sequences(_ test: Case, count: Int) -> [[Int32]] {
        var source = TensorSource(seed: 77)
        return (0..<count).map { _ in source.ids(test.length, below: test.configuration.vocabularySize) }
    }

    @Test(arguments: cases)
    func forward(test: Case) throws {
        let model = try scrambledModel(test.configuration, seed: 5)
        for count in [1, 3] {
            let sequences = sequences(test, count: count)
            let expected = ReferenceModel(model)(sequences)
            for backend in Kernels.available.compactMap({ Kernels(named: $0) }).map({
                CPUBackend(instructionSet: $0)
            }) {
                let output = try model.forward(ForwardInput(sequences), on: backend)
                let logits = try model.logits(output.hidden.value, on: backend)
                let error = relativeError(logits.floats().map(Double.init), expected.logits.values)
                #expect(error < 1e-4, "\(backend.name): \(error)")
                #expect(output.routings.map(\.layer) == expected.routings.keys.sorted())
                for routing in output.routings {
                    guard let reference = expected.routings[routing.layer] else { continue }
                    for (side, values) in [(routing.left, reference.left), (routing.right, reference.right)] {
                        #expect(relativeError(side.value.floats().map(Double.init), values.values) < 1e-4)
                    }
                }
            }
        }
    }

    /// Tokens fed in pieces through the cache give the last logits of one pass over all of them.
    @Test(arguments: cases, [[1, 1, 1], [4, 1, 2]])
    func cacheAgrees(test: Case, pieces: [Int]) throws {
        let model = try scrambledModel(test.configuration, seed: 6)
        let backend = CPUBackend()
        let tokens = sequences(test, count: 1)[0]
        var cache = KVCache(configuration: test.configuration)
        var position = 0
        var steps = pieces[...]
        while position < tokens.count {
            let count = min(steps.popFirst() ?? 1, tokens.count - position)
            let piece = Array(tokens[position..<(position + count)])
            position += count
            let output = try model.forward(
                ForwardInput([ForwardSequence(piece, cache: cache)]), on: backend)
            cache = output.caches[0]
            let logits = try model.logits(output.hidden.value, on: backend)
            let expected = ReferenceModel(model)([Array(tokens[..<position])]).logits
            let columns = test.configuration.vocabularySize
            #expect(
                relativeError(
                    logits.floats().suffix(columns).map(Double.init), Array(expected.values.suffix(columns)))
                    < 1e-4)
        }
    }

    /// Sequences of different lengths run together as each by itself; sums differ in their order only.
    @Test func raggedBatchesAreTheirSequences() throws {
        let model = try scrambledModel(Self.cases[0].configuration, seed: 7)
        let batch: [[Int32]] = [[1, 2, 9, 4, 5], [3], [7, 7, 8]]
        func hidden(_ sequences: [[Int32]]) throws -> [Float] {
            try model.forward(ForwardInput(sequences)).hidden.value.floats()
        }
        let together = try hidden(batch).map(Double.init)
        let apart = try batch.flatMap { try hidden([$0]).map(Double.init) }
        #expect(relativeError(together, apart) < 1e-5)
    }

    @Test func emptyBatchesAreErrors() throws {
        let model = try scrambledModel(Self.cases[0].configuration, seed: 7)
        for bad: [[Int32]] in [[], [[]], [[1], []]] {
            #expect(throws: ModelError.self) {
                try model.forward(ForwardInput(bad))
            }
        }
        #expect(throws: ComputeError.indexOutOfRange(operation: "embedding", index: 53, limit: 53)) {
            try model.forward(ForwardInput([[1, 53]]))
        }
    }

    /// Values of Python's `statistics.NormalDist().inv_cdf`.
    @Test(arguments: [
        (1e-09, -5.9978070150076865),
        (0.001, -3.090232306167813),
        (0.25, -0.6744897501960817),
        (0.5, 0.0),
        (0.975, 1.9599639845400536),
        (0.984375, 2.1538746940614555),
        (0.999, 3.090232306167813),
    ])
    func gaussianQuantile(probability: Double, expected: Double) {
        #expect(abs(GaussianQuantile.callAsFunction(probability) - expected) < 1e-9)
    }
}
