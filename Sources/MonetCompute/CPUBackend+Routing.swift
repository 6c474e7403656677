import CMonetKernels
import Foundation

extension CPUBackend {
    public func routerStatistics(_ logits: Tensor) throws -> RouterStatistics {
        guard logits.shape.count == 3 else {
            throw ComputeError.shapeMismatch(
                operation: "router statistics", expected: "[tokens, heads, experts]", found: "\(logits.shape)"
            )
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let ranges = pool.rangeCount(of: tokens, minimum: 16)
        let count = Double(tokens * experts)
        /// One value a head: the sum over all its logits of what `term` gives for a row.
        func sums(_ term: (UnsafePointer<Float>, Int) -> Double) -> [Double] {
            var partial = [Double](repeating: 0, count: ranges * heads)
            partial.withUnsafeMutableBufferPointer { partial in
                nonisolated(unsafe) let partial = partial
                pool.forEachRange(of: tokens, minimum: 16) { range, index in
                    for token in range {
                        for head in 0..<heads {
                            partial[index * heads + head] +=
                                term(logits.pointer + (token * heads + head) * experts, head)
                        }
                    }
                }
            }
            return (0..<heads).map { head in
                (0..<ranges).reduce(0) { $0 + partial[$1 * heads + head] }
            }
        }
        let mean = sums { row, _ in kernels.sum(row, experts) }.map { Float($0 / count) }
        let variance = sums { row, head in kernels.centered_squares(row, mean[head], experts) }
            .map { Float($0 / count) }
        return RouterStatistics(mean: mean, variance: variance)
    }

    public func route(
        _ logits: Tensor, statistics: RouterStatistics, epsilon: Float, threshold: Float
    ) throws -> Tensor {
        guard logits.shape.count == 3, statistics.mean.count == logits.shape[1],
            statistics.variance.count == logits.shape[1]
        else {
            throw ComputeError.shapeMismatch(
                operation: "route", expected: "[tokens, \(statistics.mean.count) heads, experts]",
                found: "\(logits.shape)")
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let probabilities = Tensor(uninitialized: logits.shape)
        let inverse = statistics.variance.map { 1 / ($0 + epsilon).squareRoot() }
        pool.forEachRange(of: tokens, minimum: 2) { range, _ in
            for token in range {
                for head in 0..<heads {
                    let row = (token * heads + head) * experts
                    kernels.route(
                        probabilities.pointer + row, logits.pointer + row, statistics.mean[head],
                        inverse[head],
                        threshold, experts)
                }
            }
        }
        return probabilities
    }

    public func routeGradient(
        _ probabilityGradient: Tensor, probabilities: Tensor, into logitGradient: Tensor
    ) throws {
        let experts = probabilities.columnCount
        pool.forEachRange(of: probabilities.rowCount, minimum: 64) { range, _ in
            withUnsafeTemporaryAllocation(of: Float.self, capacity: experts) { scratch in
                guard let line = scratch.baseAddress else { return }
                for row in range {
                    let p = probabilities.pointer + row * experts
                    let d = probabilityGradient.pointer + row * experts
                    memcpy(line, d, experts * 4)
                    kernels.softmax_gradient(line, p, kernels.dot(p, d, experts), 1, experts)
                    kernels.axpy(logitGradient.pointer + row * experts, 1, line, experts)
                }
            }
        }
    }

    /// Below this mean probability the logarithm is clamped and its gradient is zero.
    private static var smallestProbability: Float { 1e-8 }

    public func routerObjective(
        logits: Tensor, probabilities: Tensor, uniformity: UniformitySource
    ) throws -> RouterObjective {
        try requireShape(probabilities, logits.shape, "router objective")
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let rowWidth = heads * experts
        let ranges = pool.rangeCount(of: tokens, minimum: 16)
        let sums = Tensor(zeros: [ranges, rowWidth])
        let used = Tensor(zeros: [ranges, rowWidth])
        var ambiguity = [Double](repeating: 0, count: ranges)
        var selected = [Int](repeating: 0, count: ranges)
        ambiguity.withUnsafeMutableBufferPointer { ambiguity in
            selected.withUnsafeMutableBufferPointer { selected in
                nonisolated(unsafe) let (ambiguity, selected) = (ambiguity, selected)
                pool.forEachRange(of: tokens, minimum: 16) { range, index in
                    let full = Tensor(uninitialized: [experts])
                    for token in range {
                        for head in 0..<heads {
                            let row = token * rowWidth + head * experts
                            let place = index * rowWidth + head * experts
                            let p = probabilities.pointer + row
                            var largest: Float = 0
                            for expert in 0..<experts where p[expert] > 0 {
                                largest = max(largest, p[expert])
                                selected[index] += 1
                                used.pointer[place + expert] += 1
                            }
                            ambiguity[index] += Double(1 - largest)
                            if uniformity == .full {
                                memcpy(full.pointer, logits.pointer + row, experts * 4)
                                _ = kernels.softmax(full.pointer, 1, experts)
                                kernels.axpy(sums.pointer + place, 1, full.pointer, experts)
                            } else {
                                kernels.axpy(sums.pointer + place, 1, p, experts)
                            }
                        }
                    }
                }
            }
        }
        let total = Tensor(zeros: [rowWidth])
        addColumnSums(of: sums, into: total)
        let totalUsed = Tensor(zeros: [rowWidth])
        addColumnSums(of: used, into: totalUsed)
        let mean = total.floats().map { $0 / Float(max(1, tokens)) }
        let logs = mean.reduce(0.0) { $0 + log(Double(max($1, Self.smallestProbability))) }
        let rows = Double(max(1, tokens * heads))
        return RouterObjective(
            uniformity: -logs / Double(2 * rowWidth), ambiguity: ambiguity.reduce(0, +) / rows / 2,
            meanProbability: mean, selectedPerHead: Double(selected.reduce(0, +)) / rows,
            selectionCounts: totalUsed.floats().map { Int($0) })
    }

    public func routerObjectiveGradient(
        _ objective: RouterObjective, logits: Tensor, probabilities: Tensor, uniformity: UniformitySource,
        uniformityWeight: Float, ambiguityWeight: Float, into probabilityGradient: Tensor,
        logitGradient: Tensor
    ) throws {
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let rowWidth = heads * experts
        guard tokens > 0 else { return }
        // d(loss)/d(p of a token): the mean over tokens divides by their number.
        let dMean = Tensor(
            objective.meanProbability.map {
                $0 > Self.smallestProbability
                    ? -uniformityWeight / (Float(2 * rowWidth) * $0 * Float(tokens)) : 0
            }, shape: [rowWidth])
        let dLargest = -ambiguityWeight / Float(2 * heads * tokens)
        pool.forEachRange(of: tokens, minimum: 16) { range, _ in
            let full = Tensor(uninitialized: [experts])
            let d = Tensor(uninitialized: [experts])
            for token in range {
                for head in 0..<heads {
                    let row = token * rowWidth + head * experts
                    let p = probabilities.pointer + row
                    var largest = 0
                    for expert in 1..<max(1, experts) where p[expert] > p[largest] { largest = expert }
                    probabilityGradient.pointer[row + largest] += dLargest
                    let share = dMean.pointer + head * experts
                    if uniformity == .full {
                        memcpy(full.pointer, logits.pointer + row, experts * 4)
                        _ = kernels.softmax(full.pointer, 1, experts)
                        memcpy(d.pointer, share, experts * 4)
                        kernels.softmax_gradient(
                            d.pointer, full.pointer, kernels.dot(full.pointer, share, experts), 1, experts)
                        kernels.axpy(logitGradient.pointer + row, 1, d.pointer, experts)
                    } else {
                        kernels.axpy(probabilityGradient.pointer + row, 1, share, experts)
                    }
                }
            }
        }
    }
}
