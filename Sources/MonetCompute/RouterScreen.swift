import CMonetKernels
import Foundation

/// A router's weights rounded to int8, to find out cheaply which experts can be selected at all.
///
/// A row's product with x differs from that of its rounded form by at most ‖row − rounded‖ · ‖x‖
/// (Cauchy–Schwarz). Rows that stay below the selection's threshold even so are not read again; the
/// few others are multiplied exactly, so that the selection and its probabilities are those of the
/// whole product.
public struct RouterScreen: Sendable {
    /// `[heads · experts, d]`, rows of int8.
    public let rows: Tensor
    /// Bound on what a row's product can differ by, for ‖x‖ = 1, `[heads · experts]`.
    public let bounds: Tensor

    /// Joins both.
    public init(rows: Tensor, bounds: Tensor) {
        self.rows = rows
        self.bounds = bounds
    }

    /// The screen of a router's weights.
    public init(of weight: Tensor, pool: WorkerPool = .shared) {
        rows = weight.quantized(to: .int8Rows, pool: pool)
        bounds = Tensor(uninitialized: [weight.rowCount])
        let columns = weight.columnCount
        let (rows, bounds) = (rows, bounds)
        // Sums of float32 products in another order differ too: in lanes of at most n / 4 terms each.
        let rounding = max(2e-5, Double(columns) * 3e-8)
        pool.forEachRange(of: weight.rowCount, minimum: 64) { range, _ in
            let (exact, rounded) = (Tensor(uninitialized: [columns]), Tensor(uninitialized: [columns]))
            for row in range {
                weight.readRow(row, columns: 0..<columns, into: exact.pointer)
                rows.readRow(row, columns: 0..<columns, into: rounded.pointer)
                var (error, norm) = (0.0, 0.0)
                for column in 0..<columns {
                    let difference = Double(exact.pointer[column]) - Double(rounded.pointer[column])
                    error += difference * difference
                    norm += Double(exact.pointer[column]) * Double(exact.pointer[column])
                }
                bounds.pointer[row] = Float(error.squareRoot() * (1 + 1e-6) + rounding * norm.squareRoot())
            }
        }
    }
}

/// What decides a router side's selection.
public struct RouterSelectionRule: Sendable {
    /// Statistics of the logits, one value a head.
    public let statistics: RouterStatistics
    /// Added to the variance.
    public let epsilon: Float
    /// Normalized value from which an expert is selected.
    public let threshold: Float

    /// Collects the numbers.
    public init(statistics: RouterStatistics, epsilon: Float, threshold: Float) {
        self.statistics = statistics
        self.epsilon = epsilon
        self.threshold = threshold
    }
}

extension CPUBackend {
    public func screenedLogits(
        _ x: Tensor, sides: [(weight: Tensor, screen: RouterScreen, rule: RouterSelectionRule)]
    ) throws -> [Tensor] {
        let width = x.columnCount
        for side in sides {
            let heads = side.rule.statistics.mean.count
            guard side.weight.shape.count == 2, side.weight.columnCount == width, heads > 0,
                side.weight.rowCount % heads == 0, side.screen.rows.shape == side.weight.shape,
                side.screen.bounds.count == side.weight.rowCount,
                side.rule.statistics.variance.count == heads,
                side.weight.dtype.isReal
            else {
                throw ComputeError.shapeMismatch(
                    operation: "screened router", expected: "weights [heads · E, \(width)] and their screen",
                    found: "\(side.weight.shape), \(side.screen.rows.shape)")
            }
        }
        guard x.rowCount <= Self.fewRows else {
            throw ComputeError.shapeMismatch(
                operation: "screened router", expected: "at most \(Self.fewRows) tokens",
                found: "\(x.rowCount)")
        }
        // Activations as they are, however many rows: the bounds cover the rounding of weights alone.
        let estimates = try projections(
            x, weights: sides.map(\.screen.rows),
            formats: sides.map { instructionSet.rows($0.screen.rows.dtype) })
        let tokens = x.rowCount
        let logits = sides.map { Tensor(uninitialized: [tokens, $0.weight.rowCount]) }
        let norms = (0..<tokens).map {
            Float(kernels.sum_of_squares(x.pointer + $0 * width, width).squareRoot() * (1 + 1e-6))
        }
        let exact = sides.map { side in
            instructionSet.rows(side.weight.dtype).map {
                (format: $0, activations: RowActivations(x, columns: width, for: $0, pool: pool))
            }
        }
        let tasks = sides.indices.flatMap { side in
            (0..<sides[side].rule.statistics.mean.count).map { (side: side, head: $0) }
        }
        pool.parallel(chunks: tasks.count) { index in
            let (side, head) = tasks[index]
            let (weight, rule) = (sides[side].weight, sides[side].rule)
            guard let (format, activations) = exact[side] else { return }
            let experts = weight.rowCount / rule.statistics.mean.count
            let mean = rule.statistics.mean[head]
            let distance = rule.threshold * (rule.statistics.variance[head] + rule.epsilon).squareRoot()
            // The comparison of normalized values rounds differently from that of logits.
            let slack = 1e-5 * (abs(mean) + abs(distance))
            let bounds = sides[side].screen.bounds.pointer + head * experts
            for token in 0..<tokens {
                let row = token * weight.rowCount + head * experts
                let (estimate, out) = (estimates[side].pointer + row, logits[side].pointer + row)
                var largestForSure = -Float.infinity
                for expert in 0..<experts {
                    largestForSure = max(largestForSure, estimate[expert] - norms[token] * bounds[expert])
                }
                // Where no expert surely reaches the threshold, the largest may be below it and still count.
                let cut = min(mean + distance - slack, largestForSure)
                for expert in 0..<experts {
                    if estimate[expert] + norms[token] * bounds[expert] >= cut {
                        format.dot(
                            out + expert, 1, activations.address + token * activations.stride,
                            activations.stride, nil, 1,
                            weight.address + (head * experts + expert) * weight.rowByteCount,
                            weight.rowByteCount, 1, width, nil)
                    } else {
                        out[expert] = -.infinity
                    }
                }
            }
        }
        return logits
    }
}
