import Foundation
import MonetCompute
import MonetFoundation

/// A dense array of doubles with a shape, for the reference formulas in the tests.
public struct Reference: Sendable {
    public var values: [Double]
    public let shape: [Int]

    public init(_ values: [Double], shape: [Int]) {
        self.values = values
        self.shape = shape
    }

    public init(zeros shape: [Int]) {
        self.init([Double](repeating: 0, count: shape.reduce(1, *)), shape: shape)
    }

    /// The tensor's values exactly; narrower types are widened.
    public init(_ tensor: Tensor) {
        self.init(tensor.floats().map(Double.init), shape: tensor.shape)
    }

    public var columns: Int { shape.last ?? 1 }
    public var rows: Int { columns == 0 ? 0 : values.count / columns }

    public subscript(_ row: Int, _ column: Int) -> Double {
        get { values[row * columns + column] }
        set { values[row * columns + column] = newValue }
    }

    public func reshaped(_ shape: [Int]) -> Reference { Reference(values, shape: shape) }
}

/// Tensors of normal random numbers, the same in every run.
public struct TensorSource {
    private var generator: SplitMix64

    public init(seed: UInt64) { generator = SplitMix64(seed: seed) }

    /// Numbers of mean 0 and the given deviation.
    public mutating func normal(_ shape: [Int], deviation: Double = 1) -> Tensor {
        var values: [Float] = []
        while values.count < shape.reduce(1, *) {
            let (x, y) = generator.nextNormalPair()
            values += [Float(x * deviation), Float(y * deviation)]
        }
        return Tensor(Array(values.prefix(shape.reduce(1, *))), shape: shape)
    }

    public mutating func ids(_ count: Int, below limit: Int) -> [Int32] {
        (0..<count).map { _ in Int32(generator.next() % UInt64(limit)) }
    }
}

/// The formulas of the layers in double precision, written straight from their definitions.
public enum ReferenceMath {
    public static func linear(_ x: Reference, _ weight: Reference, _ bias: Reference? = nil) -> Reference {
        var result = Reference(zeros: [x.rows, weight.rows])
        for row in 0..<x.rows {
            for out in 0..<weight.rows {
                var sum = bias?.values[out] ?? 0
                for column in 0..<x.columns { sum += x[row, column] * weight[out, column] }
                result[row, out] = sum
            }
        }
        return result
    }

    public static func rmsNorm(_ x: Reference, _ weight: Reference, epsilon: Double) -> Reference {
        var result = x
        for row in 0..<x.rows {
            var squares = 0.0
            for column in 0..<x.columns { squares += x[row, column] * x[row, column] }
            let scale = 1 / (squares / Double(x.columns) + epsilon).squareRoot()
            for column in 0..<x.columns {
                result[row, column] = weight.values[column] * x[row, column] * scale
            }
        }
        return result
    }

    /// Rotates pairs (i, i + half) of every head of a row by the position's angles.
    static func rotated(_ x: Reference, heads: Int, positions: [Int], cosine: Reference, sine: Reference)
        -> Reference
    {
        var result = x
        let width = x.columns / heads
        for row in 0..<x.rows {
            for head in 0..<heads {
                for index in 0..<(width / 2) {
                    let (low, high) = (head * width + index, head * width + index + width / 2)
                    let (c, s) = (cosine[positions[row], index], sine[positions[row], index])
                    result[row, low] = x[row, low] * c - x[row, high] * s
                    result[row, high] = x[row, high] * c + x[row, low] * s
                }
            }
        }
        return result
    }

    /// Causal attention over sequences that all start at position `start`.
    public static func attention(
        _ query: Reference, _ key: Reference, _ value: Reference, cosine: Reference, sine: Reference,
        heads: Int,
        keyValueHeads: Int, sequences: Int, start: Int = 0
    ) -> Reference {
        let length = query.rows / max(1, sequences)
        let positions = (0..<query.rows).map { start + $0 % max(1, length) }
        let q = rotated(query, heads: heads, positions: positions, cosine: cosine, sine: sine)
        let k = rotated(key, heads: keyValueHeads, positions: positions, cosine: cosine, sine: sine)
        let width = query.columns / heads
        var result = Reference(zeros: query.shape)
        for sequence in 0..<sequences {
            for head in 0..<heads {
                let group = head / (heads / keyValueHeads)
                for t in 0..<length {
                    let row = sequence * length + t
                    var scores: [Double] = []
                    for past in 0...t {
                        var dot = 0.0
                        for index in 0..<width {
                            dot +=
                                q[row, head * width + index]
                                * k[sequence * length + past, group * width + index]
                        }
                        scores.append(dot / Double(width).squareRoot())
                    }
                    let weights = softmax(scores)
                    for past in 0...t {
                        for index in 0..<width {
                            result[row, head * width + index] +=
                                weights[past] * value[sequence * length + past, group * width + index]
                        }
                    }
                }
            }
        }
        return result
    }

    public static func softmax(_ x: [Double]) -> [Double] {
        let largest = x.max() ?? 0
        let exponentials = x.map { exp($0 - largest) }
        let sum = exponentials.reduce(0, +)
        return exponentials.map { $0 / sum }
    }

    /// Mean and biased variance of each head's logits `[tokens, heads, experts]`.
    public static func routerStatistics(_ logits: Reference) -> (mean: [Double], variance: [Double]) {
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        var means: [Double] = []
        var variances: [Double] = []
        for head in 0..<heads {
            var all: [Double] = []
            for token in 0..<tokens {
                for expert in 0..<experts {
                    all.append(logits.values[(token * heads + head) * experts + expert])
                }
            }
            let mean = all.reduce(0, +) / Double(all.count)
            means.append(mean)
            variances.append(all.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(all.count))
        }
        return (means, variances)
    }

    /// Which experts are selected, by section 3 of the paper.
    public static func selection(
        _ logits: Reference, mean: [Double], variance: [Double], epsilon: Double, threshold: Double
    ) -> [Bool] {
        let (heads, experts) = (logits.shape[1], logits.shape[2])
        var result: [Bool] = []
        for row in 0..<(logits.shape[0] * heads) {
            let head = row % heads
            let normalized = (0..<experts).map {
                (logits.values[row * experts + $0] - mean[head]) / (variance[head] + epsilon).squareRoot()
            }
            let bound = min(threshold, normalized.max() ?? 0)
            result += normalized.map { $0 >= bound }
        }
        return result
    }

    /// Softmax over the selected logits of each head, zero elsewhere.
    public static func route(_ logits: Reference, selection: [Bool]) -> Reference {
        let experts = logits.shape[2]
        var result = Reference(zeros: logits.shape)
        for row in 0..<(logits.shape[0] * logits.shape[1]) {
            let chosen = (0..<experts).filter { selection[row * experts + $0] }
            let weights = softmax(chosen.map { logits.values[row * experts + $0] })
            for (place, expert) in chosen.enumerated() {
                result.values[row * experts + expert] = weights[place]
            }
        }
        return result
    }

    /// This side's shares of equations 16 and 17.
    public static func routerObjective(
        logits: Reference, probabilities: Reference, uniformity: UniformitySource
    ) -> (uniformity: Double, ambiguity: Double) {
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let source =
            uniformity == .full
            ? route(logits, selection: [Bool](repeating: true, count: logits.values.count)) : probabilities
        var logs = 0.0
        var ambiguity = 0.0
        for head in 0..<heads {
            for expert in 0..<experts {
                var sum = 0.0
                for token in 0..<tokens { sum += source.values[(token * heads + head) * experts + expert] }
                logs += log(max(sum / Double(tokens), 1e-8))
            }
            for token in 0..<tokens {
                let row = (token * heads + head) * experts
                ambiguity += 1 - (probabilities.values[row..<(row + experts)].max() ?? 0)
            }
        }
        return (-logs / Double(2 * heads * experts), ambiguity / Double(2 * heads * tokens))
    }

    private static func squaredReLU(_ x: Double) -> Double { x > 0 ? x * x : 0 }

    /// Every pair of experts that some head of a token selects, with its weight.
    private static func forEachPair(
        _ left: Reference, _ right: Reference, strengths: [Int: Double],
        _ body: (_ token: Int, _ i: Int, _ j: Int, _ weight: Double) -> Void
    ) {
        let (tokens, heads, experts) = (left.shape[0], left.shape[1], left.shape[2])
        for row in 0..<(tokens * heads) {
            for i in 0..<experts {
                for j in 0..<experts {
                    let strength = strengths[i * experts + j] ?? 1
                    let weight =
                        strength * left.values[row * experts + i] * right.values[row * experts + j]
                    if weight != 0 { body(row / heads, i, j, weight) }
                }
            }
        }
    }

    /// Horizontal decomposition as a sum over all pairs of experts: no factorization to get wrong.
    public static func horizontalExperts(
        _ x: Reference, left: Reference, right: Reference, u: Reference, uBias: Reference, v: Reference,
        b: Reference, strengths: [Int: Double] = [:]
    ) -> Reference {
        let m = u.rows / left.shape[2]
        let hidden = linear(x, u, uBias)
        var result = Reference(zeros: x.shape)
        forEachPair(left, right, strengths: strengths) { token, i, j, weight in
            for out in 0..<x.columns {
                var sum = b[j, out]
                for unit in 0..<m {
                    sum += v[out, j * m + unit] * squaredReLU(hidden[token, i * m + unit])
                }
                result[token, out] += weight * sum
            }
        }
        return result
    }

    /// Vertical decomposition as a sum over all pairs of experts; weights in `VerticalWeights`' order.
    public static func verticalExperts(
        _ x: Reference, left: Reference, right: Reference, weights w: [Reference],
        strengths: [Int: Double] = [:]
    ) -> Reference {
        let half = x.columns / 2
        let units = w[0].rows / left.shape[2]
        let a = linear(x, w[0], w[1])
        let e = linear(x, w[2], w[3])
        var result = Reference(zeros: x.shape)
        forEachPair(left, right, strengths: strengths) { token, i, j, weight in
            for out in 0..<half {
                var upper = w[8][i, out]
                var lower = w[9][j, out]
                for unit in 0..<units {
                    let first = squaredReLU(a[token, i * units + unit])
                    let second = squaredReLU(e[token, j * units + unit])
                    upper += w[4][out, i * units + unit] * first + w[5][out, i * units + unit] * second
                    lower += w[6][out, j * units + unit] * first + w[7][out, j * units + unit] * second
                }
                result[token, out] += weight * upper
                result[token, half + out] += weight * lower
            }
        }
        return result
    }

    /// - Parameter strengths: of single hidden units.
    public static func gatedActivation(
        _ gate: Reference, _ up: Reference, strengths: [Int: Double] = [:]
    ) -> Reference {
        let values = zip(gate.values, up.values).enumerated().map { place, pair in
            pair.0 / (1 + exp(-pair.0)) * pair.1 * (strengths[place % gate.columns] ?? 1)
        }
        return Reference(values, shape: gate.shape)
    }

    /// Each row's cross entropy; rows with a negative target cost nothing.
    public static func crossEntropy(_ hidden: Reference, _ weight: Reference, targets: [Int32]) -> [Double] {
        let logits = linear(hidden, weight)
        return (0..<hidden.rows).map { row in
            if targets[row] < 0 { return 0 }
            let line = (0..<weight.rows).map { logits[row, $0] }
            return -log(softmax(line)[Int(targets[row])])
        }
    }
}

/// Central differences of `loss` in double precision at some of one input's elements.
///
/// The loss is evaluated in doubles, so a step of 1e-5 leaves errors of about 1e-9 of its scale.
public func finiteDifferences(
    of inputs: [Reference], input: Int, at indices: [Int], loss: ([Reference]) -> Double
) -> [Double] {
    var inputs = inputs
    return indices.map { index in
        let center = inputs[input].values[index]
        let step = 1e-5 * max(1, abs(center))
        inputs[input].values[index] = center + step
        let above = loss(inputs)
        inputs[input].values[index] = center - step
        let below = loss(inputs)
        inputs[input].values[index] = center
        return (above - below) / (2 * step)
    }
}

/// Up to `limit` indices spread over `0..<count`, always with the first and the last.
public func spread(_ count: Int, limit: Int) -> [Int] {
    guard count > limit else { return Array(0..<count) }
    return (0..<limit).map { $0 * (count - 1) / (limit - 1) }
}
