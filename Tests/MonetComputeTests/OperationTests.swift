import EmulatedKernels
import Foundation
import MonetCompute
import TestSupport
import Testing

/// Every operation of the CPU backend, forward and gradient, against the double-precision
/// formulas and their finite differences, on every instruction set and several thread counts.
///
/// Bounds: sums of n float32 products of mixed sign carry a relative error of about √n · 6e-8;
/// with n up to a few hundred, 1e-5 norm-wise leaves a margin of ten. Gradients pass through two
/// such sums: 2e-5.
@Suite struct OperationTests {
    static let forwardBound = 1e-5
    static let gradientBound = 2e-5

    /// Every instruction set that the machine runs, and the widest one's loops emulated.
    static let instructionSets: [Kernels] =
        Kernels.available.compactMap { Kernels(named: $0) }
        + [Kernels(table: emulated_kernels(), bfloat16OutrunsFloat32: true)]

    /// Backends to test: every instruction set with one thread; the best one also with three, and asking memory
    /// ahead, whether or not that is faster here.
    static let backends: [CPUBackend] =
        instructionSets.map { CPUBackend(pool: WorkerPool(threadCount: 1), instructionSet: $0) }
        + [CPUBackend(pool: WorkerPool(threadCount: 3))]
        + [
            CPUBackend(
                pool: WorkerPool(threadCount: 2),
                instructionSet: Kernels(table: Kernels.best.table, bytesAhead: 4096))
        ]

    /// What an operation computes and adds: the output and one gradient for every input.
    typealias Computed = (output: Tensor, gradients: [Tensor?])

    /// Compares an operation with its formula: the output, and d(Σ r · output)/d(input) for random r.
    private func check(
        _ name: String, inputs: [Tensor], source: inout TensorSource, outputShape: [Int],
        formula: ([Reference]) -> Reference,
        compute: (CPUBackend, _ outputGradient: Tensor, _ gradients: [Tensor]) throws -> Computed
    ) throws {
        let outputGradient = source.normal(outputShape)
        let weights = outputGradient.floats().map(Double.init)
        let references = inputs.map { Reference($0) }
        let expected = formula(references)
        let differences = inputs.indices.map { input -> ([Int], [Double]) in
            let indices = spread(inputs[input].floats().count, limit: 60)
            return (
                indices,
                finiteDifferences(of: references, input: input, at: indices) {
                    zip(formula($0).values, weights).reduce(0) { $0 + $1.0 * $1.1 }
                }
            )
        }
        for backend in Self.backends {
            // Gradients are added into what is there: start from a constant, and take it off again.
            let offset: Float = 0.25
            let buffers = inputs.map { Tensor(filled: $0.shape, with: offset) }
            let (output, gradients) = try compute(backend, outputGradient, buffers)
            #expect(output.shape == outputShape)
            let error = relativeError(output.floats().map(Double.init), expected.values)
            #expect(error < Self.forwardBound, "\(name) on \(backend.name): \(error)")
            for (input, gradient) in gradients.enumerated() {
                guard let gradient else { continue }
                let values = gradient.floats()
                let (indices, reference) = differences[input]
                let error = relativeError(indices.map { Double(values[$0] - offset) }, reference)
                #expect(
                    error < Self.gradientBound,
                    "\(name), gradient of input \(input) on \(backend.name): \(error)")
            }
        }
    }

    @Test(arguments: [(1, 1, 1), (1, 33, 7), (2, 65, 130), (3, 5, 9), (8, 64, 64), (9, 31, 17), (70, 48, 33)])
    func linear(rows: Int, width: Int, out: Int) throws {
        var source = TensorSource(seed: 1)
        let inputs = [source.normal([rows, width]), source.normal([out, width]), source.normal([out])]
        try check(
            "linear \(rows)×\(width)→\(out)", inputs: inputs, source: &source, outputShape: [rows, out],
            formula: { ReferenceMath.linear($0[0], $0[1], $0[2]) },
            compute: { backend, outputGradient, g in
                let y = try backend.linear(inputs[0], weight: inputs[1], bias: inputs[2])
                try backend.linearGradient(
                    outputGradient, x: inputs[0], weight: inputs[1],
                    into: LinearGradient(x: g[0], weight: g[1], bias: g[2]))
                return (y, g)
            })
    }

    /// Narrow weights are widened exactly, so the bound stays the one of float32.
    @Test(arguments: [DType.bfloat16, .float16], [1, 2, 8, 9, 40])
    func linearWithNarrowWeights(dtype: DType, rows: Int) throws {
        var source = TensorSource(seed: 2)
        for (width, out) in [(1, 1), (37, 19), (128, 65)] {
            let x = source.normal([rows, width])
            let weight = source.normal([out, width]).converted(to: dtype)
            let expected = ReferenceMath.linear(Reference(x), Reference(weight))
            for backend in Self.backends {
                let y = try backend.linear(x, weight: weight, bias: nil)
                let error = relativeError(y.floats().map(Double.init), expected.values)
                #expect(
                    error < Self.forwardBound, "\(dtype) \(rows)×\(width)→\(out) on \(backend.name): \(error)"
                )
            }
        }
    }

    /// bfloat16 keeps 8 bits: each rounded operand is off by up to 2⁻⁹, and errors of both average out.
    @Test(arguments: [1, 8, 9, 64])
    func bfloat16PrecisionRoundsOperands(rows: Int) throws {
        var source = TensorSource(seed: 3)
        let (x, weight) = (source.normal([rows, 96]), source.normal([50, 96]))
        let expected = ReferenceMath.linear(Reference(x), Reference(weight))
        let backend = CPUBackend(pool: WorkerPool(threadCount: 2), precision: .bfloat16)
        let error = relativeError(
            try backend.linear(x, weight: weight, bias: nil).floats().map(Double.init), expected.values)
        #expect(error < 5e-3)
    }

    @Test(arguments: [(1, 1), (5, 7), (3, 64), (33, 257)])
    func rmsNorm(rows: Int, width: Int) throws {
        var source = TensorSource(seed: 4)
        let inputs = [source.normal([rows, width]), source.normal([width])]
        try check(
            "rmsNorm \(rows)×\(width)", inputs: inputs, source: &source, outputShape: [rows, width],
            formula: { ReferenceMath.rmsNorm($0[0], $0[1], epsilon: 1e-2) },
            compute: { backend, outputGradient, g in
                let (y, scale) = try backend.rmsNorm(inputs[0], weight: inputs[1], epsilon: 1e-2)
                try backend.rmsNormGradient(
                    outputGradient, x: inputs[0], weight: inputs[1], scale: scale, into: g[0],
                    weightGradient: g[1])
                return (y, g)
            })
    }

    private func rotary(positions: Int, headWidth: Int) -> RotaryTable {
        let half = headWidth / 2
        var cosine: [Float] = []
        var sine: [Float] = []
        for position in 0..<positions {
            for index in 0..<half {
                let angle = Double(position) * pow(10000, -2 * Double(index) / Double(headWidth))
                cosine.append(Float(cos(angle)))
                sine.append(Float(sin(angle)))
            }
        }
        return RotaryTable(
            cosine: Tensor(cosine, shape: [positions, half]), sine: Tensor(sine, shape: [positions, half]))
    }

    @Test(arguments: [
        (1, 1, 1, 1, 2), (2, 5, 4, 2, 6), (1, 67, 2, 1, 8), (3, 9, 3, 3, 10), (1, 130, 1, 1, 4),
    ])
    func attention(sequences: Int, length: Int, heads: Int, keyValueHeads: Int, headWidth: Int) throws {
        var source = TensorSource(seed: 5)
        let tokens = sequences * length
        let inputs = [
            source.normal([tokens, heads * headWidth]), source.normal([tokens, keyValueHeads * headWidth]),
            source.normal([tokens, keyValueHeads * headWidth]),
        ]
        let table = rotary(positions: length, headWidth: headWidth)
        try check(
            "attention \(sequences)×\(length)", inputs: inputs, source: &source,
            outputShape: [tokens, heads * headWidth],
            formula: {
                ReferenceMath.attention(
                    $0[0], $0[1], $0[2], cosine: Reference(table.cosine), sine: Reference(table.sine),
                    heads: heads,
                    keyValueHeads: keyValueHeads, sequences: sequences)
            },
            compute: { backend, outputGradient, g in
                let input = AttentionInput(
                    query: inputs[0], key: inputs[1], value: inputs[2],
                    shape: AttentionShape(
                        rotary: table, heads: heads, keyValueHeads: keyValueHeads,
                        segments: (0..<sequences).map { _ in AttentionSegment(count: length) }))
                let result = try backend.attention(input)
                try backend.attentionGradient(
                    outputGradient, input: input, result: result, into: g[0], keyGradient: g[1],
                    valueGradient: g[2])
                return (result.output, g)
            })
    }

    /// A cache filled in pieces gives the rows of one pass over everything: exactly but for rounding in
    /// float32; bfloat16 rounds keys and values to 2^-9, int8 to 1/254 of a head's largest.
    @Test(
        arguments: [[5], [1, 1, 1, 1, 1], [3, 1, 4], [64, 1, 2], [700, 1, 3], [1, 600]],
        [DType.float32, .bfloat16, .int8Rows])
    func attentionWithCacheInPieces(pieces: [Int], dtype: DType) throws {
        var source = TensorSource(seed: 6)
        let (heads, keyValueHeads, width, total) = (4, 2, 6, pieces.reduce(0, +))
        let query = source.normal([total, heads * width])
        let key = source.normal([total, keyValueHeads * width])
        let value = source.normal([total, keyValueHeads * width])
        let table = rotary(positions: total, headWidth: width)
        let expected = ReferenceMath.attention(
            Reference(query), Reference(key), Reference(value), cosine: Reference(table.cosine),
            sine: Reference(table.sine), heads: heads, keyValueHeads: keyValueHeads, sequences: 1)
        let bound = dtype == .float32 ? Self.forwardBound : dtype == .bfloat16 ? 6e-3 : 1.2e-2
        for backend in Self.backends {
            // A second sequence of other lengths runs beside the first and must not disturb it.
            let caches = (0..<2).map { _ in
                AttentionCache(
                    keys: Tensor(zeros: [keyValueHeads * (total + 3), width]).converted(to: dtype),
                    values: Tensor(zeros: [keyValueHeads * (total + 3), width]).converted(to: dtype))
            }
            func joined(_ tensor: Tensor, _ range: Range<Int>) -> Tensor {
                let rows = [0..<1, range].flatMap { tensor.slice($0).floats() }
                return Tensor(rows, shape: [range.count + 1, tensor.columnCount])
            }
            var outputs: [Float] = []
            var start = 0
            for (index, piece) in pieces.enumerated() {
                let range = start..<(start + piece)
                let result = try backend.attention(
                    AttentionInput(
                        query: joined(query, range), key: joined(key, range), value: joined(value, range),
                        shape: AttentionShape(
                            rotary: table, heads: heads, keyValueHeads: keyValueHeads,
                            segments: [
                                AttentionSegment(count: 1, position: min(index, total - 1), cache: caches[1]),
                                AttentionSegment(count: piece, position: start, cache: caches[0]),
                            ])))
                outputs += result.output.slice(1..<(piece + 1)).floats()
                start += piece
            }
            #expect(relativeError(outputs.map(Double.init), expected.values) < bound, "\(backend.name)")
        }
    }

    /// Caches without room, of another width, or of two types: errors, for one new token and for several.
    @Test(arguments: [1, 2])
    func cachesThatDoNotFit(tokens: Int) {
        var source = TensorSource(seed: 8)
        let (query, key) = (source.normal([tokens, 12]), source.normal([tokens, 6]))
        func rows(_ shape: [Int], _ dtype: DType = .float32) -> Tensor {
            Tensor(zeros: shape).converted(to: dtype)
        }
        let caches = [
            AttentionCache(keys: rows([4, 6]), values: rows([4, 6])),
            AttentionCache(keys: rows([9, 4]), values: rows([9, 4])),
            AttentionCache(keys: rows([9, 6]), values: rows([9, 6], .bfloat16)),
            AttentionCache(keys: rows([9, 6]), values: rows([5, 6])),
        ]
        for (place, cache) in caches.enumerated() {
            #expect(throws: ComputeError.self, "cache \(place)") {
                try CPUBackend().attention(
                    AttentionInput(
                        query: query, key: key, value: key,
                        shape: AttentionShape(
                            rotary: rotary(positions: 9, headWidth: 6), heads: 2, keyValueHeads: 1,
                            segments: [AttentionSegment(count: tokens, position: 4, cache: cache)])))
            }
        }
    }

    @Test(arguments: [(1, 1), (7, 13), (64, 33), (3, 1000)])
    func gatedActivation(rows: Int, width: Int) throws {
        var source = TensorSource(seed: 7)
        // Also far from zero, where exp must neither overflow nor lose its small results.
        let inputs = [source.normal([rows, width], deviation: 8), source.normal([rows, width])]
        try check(
            "gatedActivation", inputs: inputs, source: &source, outputShape: [rows, width],
            formula: { ReferenceMath.gatedActivation($0[0], $0[1]) },
            compute: { backend, outputGradient, g in
                let y = try backend.gatedActivation(gate: inputs[0], up: inputs[1])
                try backend.gatedActivationGradient(
                    outputGradient, gate: inputs[0], up: inputs[1], into: g[0], upGradient: g[1])
                return (y, g)
            })
    }

    @Test func embeddingGathersAndScatters() throws {
        var source = TensorSource(seed: 8)
        let table = source.normal([11, 5])
        let ids: [Int32] = [3, 3, 0, 10, 7, 3]
        try check(
            "embed", inputs: [table], source: &source, outputShape: [ids.count, 5],
            formula: { inputs in
                Reference(
                    ids.flatMap { id in (0..<5).map { inputs[0][Int(id), $0] } }, shape: [ids.count, 5])
            },
            compute: { backend, outputGradient, g in
                let y = try backend.embed(ids, table: table)
                try backend.embedGradient(outputGradient, ids: ids, into: g[0])
                return (y, g)
            })
        for bad: Int32 in [-1, 11] {
            #expect(throws: ComputeError.indexOutOfRange(operation: "embedding", index: Int(bad), limit: 11))
            {
                try CPUBackend().embed([bad], table: table)
            }
        }
    }

    /// 300 rows cross the blocks in which logits are made; targets below 0 are left out.
    @Test(arguments: [(1, 1, 1), (5, 7, 3), (300, 9, 130)])
    func crossEntropy(rows: Int, width: Int, vocabulary: Int) throws {
        var source = TensorSource(seed: 9)
        let inputs = [source.normal([rows, width]), source.normal([vocabulary, width])]
        var targets = source.ids(rows, below: vocabulary)
        if rows > 2 { targets[1] = -1 }
        let references = inputs.map { Reference($0) }
        let expected = ReferenceMath.crossEntropy(references[0], references[1], targets: targets)
        let scale = 0.37
        for backend in Self.backends {
            let gradients = inputs.map { Tensor(zeros: $0.shape) }
            let losses = try backend.crossEntropy(
                hidden: inputs[0], weight: inputs[1], targets: targets, scale: Float(scale),
                gradient: LinearGradient(x: gradients[0], weight: gradients[1], bias: nil)
            ).floats()
            #expect(relativeError(losses.map(Double.init), expected) < Self.forwardBound)
            let silent = try backend.crossEntropy(
                hidden: inputs[0], weight: inputs[1], targets: targets, scale: 1, gradient: nil
            ).floats()
            #expect(silent == losses)
            for input in 0..<2 {
                let indices = spread(inputs[input].floats().count, limit: 30)
                let reference = finiteDifferences(of: references, input: input, at: indices) {
                    scale * ReferenceMath.crossEntropy($0[0], $0[1], targets: targets).reduce(0, +)
                }
                let values = gradients[input].floats()
                #expect(relativeError(indices.map { Double(values[$0]) }, reference) < Self.gradientBound)
            }
        }
        #expect(throws: ComputeError.self) {
            try CPUBackend().crossEntropy(
                hidden: inputs[0], weight: inputs[1],
                targets: [Int32](repeating: Int32(vocabulary), count: rows),
                scale: 1, gradient: nil)
        }
    }

    @Test(arguments: [0, 1, 7, 4099])
    func elementwise(count: Int) throws {
        var source = TensorSource(seed: 10)
        let (x, y) = (source.normal([1, count]), source.normal([1, count]))
        for backend in Self.backends {
            let sum = zip(x.floats(), y.floats()).map { $0 + $1 }
            #expect(try backend.add(x, y).floats() == sum)
            let total = y.copy()
            try backend.accumulate(x, into: total)
            #expect(total.floats() == sum)
            let squares = x.floats().reduce(0.0) { $0 + Double($1) * Double($1) }
            // Each square is rounded once, and stretches are summed in float32.
            #expect(abs(try backend.sumOfSquares(x) - squares) <= 1e-6 * squares)
        }
    }

    /// Decoupled weight decay and bias correction as in PyTorch's AdamW.
    @Test func adamWStep() throws {
        var source = TensorSource(seed: 11)
        let count = 1037
        let (start, gradient) = (source.normal([count]), source.normal([count]))
        for backend in Self.backends {
            let (parameter, first, second) = (start.copy(), Tensor(zeros: [count]), Tensor(zeros: [count]))
            var (p, m, v) = (
                start.floats().map(Double.init), [Double](repeating: 0, count: count),
                [Double](repeating: 0, count: count)
            )
            for step in 1...3 {
                try backend.adamWStep(
                    AdamWStep(
                        learningRate: 1e-2, beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1,
                        step: step,
                        gradientScale: 0.5),
                    parameter: parameter, gradient: gradient, moment1: first, moment2: second)
                for (index, raw) in gradient.floats().enumerated() {
                    let g = 0.5 * Double(raw)
                    m[index] = 0.9 * m[index] + 0.1 * g
                    v[index] = 0.95 * v[index] + 0.05 * g * g
                    p[index] *= 1 - 1e-2 * 0.1
                    p[index] -=
                        1e-2 * (m[index] / (1 - pow(0.9, Double(step))))
                        / ((v[index] / (1 - pow(0.95, Double(step)))).squareRoot() + 1e-8)
                }
            }
            #expect(relativeError(parameter.floats().map(Double.init), p) < 1e-6)
        }
    }
}
