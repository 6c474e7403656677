import CMonetKernels
import Foundation

extension RoundedRouter {
    /// A router's weights rounded to int8, with error bounds that hold for any order of summation.
    public init(of weight: Tensor, pool: WorkerPool = .shared) {
        let rows = weight.converted(to: .int8Rows, by: .best, pool: pool)
        let bounds = Tensor(uninitialized: [weight.rowCount])
        let columns = weight.columnCount
        // Float32 sums in different orders differ too; each lane sums at most n / 4 terms.
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
        self.init(rows: rows, bounds: bounds)
    }
}

/// A router prepared for the processor. For a few tokens, its int8 rows determine which experts can be
/// selected at all (screening). Rows that stay below the selection threshold even with their error bound are
/// skipped, and the few others are multiplied exactly, so that the result equals that of the full product.
private struct PreparedRouter: Sendable {
    let router: RouterWeights

    init(_ router: RouterWeights, _ backend: CPUBackend) throws {
        for side in router.sides {
            let (weight, heads) = (side.weight, router.heads)
            guard backend.instructionSet.rows(weight.dtype) != nil, weight.shape.count == 2, heads > 0,
                weight.rowCount % heads == 0,
                side.rounded.map({
                    $0.rows.shape == weight.shape && $0.rows.dtype == .int8Rows
                        && $0.bounds.shape == [weight.rowCount] && $0.bounds.dtype == .float32
                }) ?? true
            else {
                throw ComputeError.shapeMismatch(
                    operation: "preparing a router",
                    expected: "weights [\(heads) · E, d] and their int8 rows",
                    found: "\(weight.dtype) \(weight.shape)")
            }
            try backend.requireHost(weight, "preparing a router")
            _ = try HostRule(side.rule, heads: heads, backend)
        }
        self.router = router
    }
}

extension CPUBackend {
    public func prepare(_ router: RouterWeights) throws -> PreparedWeights {
        PreparedWeights(try PreparedRouter(router, self))
    }

    public func route(_ x: Tensor, prepared: PreparedWeights) throws -> (left: Tensor, right: Tensor) {
        guard let prepared = prepared.content as? PreparedRouter else {
            throw ComputeError.foreignPreparation(operation: "router", device: name)
        }
        try requireFloat32(x, "router")
        let router = prepared.router
        let logits =
            try x.rowCount <= min(policy.screenedTokens, policy.rowsInRegisters)
            && router.sides.allSatisfy { $0.rounded != nil }
            && !(isBatchInvariant && (roundsInKernels || packsInvariantProducts))
            ? screenedLogits(x, prepared) : projections(x, weights: router.sides.map(\.weight))
        func probabilities(_ side: Int) throws -> Tensor {
            let logits = logits[side]
            return try route(
                logits.reshaped([x.rowCount, router.heads, logits.columnCount / router.heads]),
                rule: router.sides[side].rule)
        }
        return (try probabilities(0), try probabilities(1))
    }

    /// Logits of which only those that can be selected are exact; all others are −∞.
    private func screenedLogits(_ x: Tensor, _ prepared: PreparedRouter) throws -> [Tensor] {
        let (router, width, tokens) = (prepared.router, x.columnCount, x.rowCount)
        let screens = router.sides.compactMap(\.rounded)
        let rules = try router.sides.map { try HostRule($0.rule, heads: router.heads, self) }
        for side in router.sides where side.weight.columnCount != width {
            throw ComputeError.shapeMismatch(
                operation: "router", expected: "\(side.weight.columnCount) columns", found: "\(x.shape)")
        }
        // Activations are never rounded here: the bounds cover the rounding of weights alone.
        let estimates = try projections(
            x, weights: screens.map(\.rows), formats: screens.map { instructionSet.rows($0.rows.dtype) })
        let logits = router.sides.map { Tensor(uninitialized: [tokens, $0.weight.rowCount]) }
        let norms = (0..<tokens).map {
            Float(kernels.sum_of_squares(x.pointer + $0 * width, width).squareRoot() * (1 + 1e-6))
        }
        // The kernels of a whole product, so that the logits are the same bits.
        let formats = router.sides.compactMap { side in
            roundsInKernels
                ? instructionSet.rows(side.weight.dtype) : rowKernels(side.weight.dtype, rows: tokens)
        }
        let activations = formats.map { RowActivations(x, columns: width, for: $0, pool: pool) }
        pool.parallel(chunks: router.sides.count * router.heads) { index in
            let (side, head) = (index / router.heads, index % router.heads)
            let (weight, rule) = (router.sides[side].weight, rules[side])
            let (format, activations) = (formats[side], activations[side])
            let experts = weight.rowCount / router.heads
            let mean = rule.mean[head]
            let distance = rule.threshold * (rule.variance[head] + rule.epsilon).squareRoot()
            // The comparison of normalized values rounds differently from a comparison of logits.
            let slack = 1e-5 * (abs(mean) + abs(distance))
            let bounds = screens[side].bounds.pointer + head * experts
            for token in 0..<tokens {
                let row = token * weight.rowCount + head * experts
                let (estimate, out) = (estimates[side].pointer + row, logits[side].pointer + row)
                var largestForSure = -Float.infinity
                for expert in 0..<experts {
                    largestForSure = max(largestForSure, estimate[expert] - norms[token] * bounds[expert])
                }
                // If no expert certainly reaches the threshold, the largest may be selected below it.
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
