import CMonetKernels
import Foundation

extension CPUBackend {
    public func routerStatistics(_ logits: Tensor) throws -> RouterStatistics {
        try requireFloat32(logits, "router statistics")
        guard logits.shape.count == 3 else {
            throw ComputeError.shapeMismatch(
                operation: "router statistics", expected: "[tokens, heads, experts]", found: "\(logits.shape)"
            )
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let ranges = pool.rangeCount(of: tokens, minimum: 16)
        let count = Double(tokens * experts)
        /// One value per head: the sum of `term` over the rows of its logits.
        func sums(_ term: (UnsafePointer<Float>, Int) -> Double) -> [Double] {
            var partial = [Double](repeating: 0, count: ranges * heads)
            partial.withUnsafeMutableBufferPointer { partial in
                // Every range writes the sums at its own index.
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
        return RouterStatistics(
            mean: Tensor(mean, shape: [heads]), variance: Tensor(variance, shape: [heads]))
    }

    public func route(_ logits: Tensor, rule: RouterSelectionRule) throws -> Tensor {
        try requireFloat32(logits, "route")
        guard logits.shape.count == 3 else {
            throw ComputeError.shapeMismatch(
                operation: "route", expected: "[tokens, heads, experts]", found: "\(logits.shape)")
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let rule = try HostRule(rule, heads: heads, self)
        let inverse = (0..<heads).map { 1 / (rule.variance[$0] + rule.epsilon).squareRoot() }
        let probabilities = Tensor(uninitialized: logits.shape)
        pool.forEachRange(of: tokens, minimum: 2) { range, _ in
            for token in range {
                for head in 0..<heads {
                    let row = (token * heads + head) * experts
                    kernels.route(
                        probabilities.pointer + row, logits.pointer + row, rule.mean[head],
                        inverse[head], rule.threshold, experts)
                }
            }
        }
        return probabilities
    }

    public func routeGradient(
        _ probabilityGradient: Tensor, probabilities: Tensor, into logitGradient: Tensor
    ) throws {
        let experts = probabilities.columnCount
        try requireFloat32(
            [probabilities, probabilityGradient, logitGradient], probabilities.shape, "route's gradient")
        pool.forEachRange(of: probabilities.rowCount, minimum: 64) { range, _ in
            withScratch(experts) { line in
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

    public func routerObjective(
        logits: Tensor, probabilities: Tensor, uniformity: UniformitySource
    ) throws -> RouterObjective {
        try requireFloat32(logits, "router objective")
        try requireFloat32([probabilities], logits.shape, "router objective")
        guard logits.shape.count == 3 else {
            throw ComputeError.shapeMismatch(
                operation: "router objective", expected: "[tokens, heads, experts]", found: "\(logits.shape)")
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let rowWidth = heads * experts
        let ranges = pool.rangeCount(of: tokens, minimum: 16)
        let sums = Tensor(zeros: [ranges, rowWidth])
        let used = Tensor(zeros: [ranges, rowWidth])
        var ambiguity = [Double](repeating: 0, count: ranges)
        ambiguity.withUnsafeMutableBufferPointer { ambiguity in
            // Every range writes the sum at its own index.
            nonisolated(unsafe) let ambiguity = ambiguity
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
        let total = Tensor(zeros: [rowWidth])
        addColumnSums(of: sums, into: total)
        let totalUsed = Tensor(zeros: [rowWidth])
        addColumnSums(of: used, into: totalUsed)
        let mean = total
        var logs = 0.0
        for place in 0..<rowWidth {
            mean.pointer[place] /= Float(max(1, tokens))
            logs += log(Double(max(mean.pointer[place], RouterObjective.smallestProbability)))
        }
        let rows = Double(max(1, tokens * heads))
        return RouterObjective(
            losses: Tensor(
                [Float(-logs / Double(2 * rowWidth)), Float(ambiguity.reduce(0, +) / rows / 2)], shape: [2]),
            meanProbability: mean.reshaped([heads, experts]),
            selectionCounts: totalUsed.reshaped([heads, experts]), tokens: tokens)
    }

    public func routerObjectiveGradient(
        _ objective: RouterObjective, logits: Tensor, probabilities: Tensor, uniformity: UniformitySource,
        uniformityWeight: Float, ambiguityWeight: Float, into probabilityGradient: Tensor,
        logitGradient: Tensor
    ) throws {
        guard logits.shape.count == 3 else {
            throw ComputeError.shapeMismatch(
                operation: "router objective's gradient", expected: "[tokens, heads, experts]",
                found: "\(logits.shape)")
        }
        let (tokens, heads, experts) = (logits.shape[0], logits.shape[1], logits.shape[2])
        let rowWidth = heads * experts
        try requireFloat32(
            [logits, probabilities, probabilityGradient, logitGradient], logits.shape,
            "router objective's gradient")
        guard objective.meanProbability.count == rowWidth else {
            throw ComputeError.shapeMismatch(
                operation: "router objective's gradient", expected: "\(rowWidth) means",
                found: "\(objective.meanProbability.shape)")
        }
        guard tokens > 0 else { return }
        // d(loss)/d(p of a token): the mean over tokens divides by their number.
        try requireFloat32(objective.meanProbability, "router objective's gradient")
        let dMean = Tensor(uninitialized: [rowWidth])
        for place in 0..<rowWidth {
            let mean = objective.meanProbability.pointer[place]
            dMean.pointer[place] =
                mean > RouterObjective.smallestProbability
                ? -uniformityWeight / (Float(2 * rowWidth) * mean * Float(tokens)) : 0
        }
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

/// A selection rule whose statistics are in host memory.
struct HostRule {
    let mean: UnsafePointer<Float>
    let variance: UnsafePointer<Float>
    let epsilon: Float
    let threshold: Float
    private let owner: RouterStatistics

    init(_ rule: RouterSelectionRule, heads: Int, _ backend: CPUBackend) throws {
        try backend.requireShape(rule.statistics.mean, [heads], "router statistics")
        try backend.requireShape(rule.statistics.variance, [heads], "router statistics")
        owner = rule.statistics
        mean = UnsafePointer(owner.mean.pointer)
        variance = UnsafePointer(owner.variance.pointer)
        epsilon = rule.epsilon
        threshold = rule.threshold
    }
}
