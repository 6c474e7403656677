import Foundation
import MonetCompute
import MonetModel
import MonetProcesses

/// What the forward pass of a micro-batch says about its routers: all that a step needs of other micro-batches.
struct BatchStatistics: Sendable {
    struct Side: Sendable {
        /// Normalization statistics, `[heads]` each.
        var mean: [Double]
        var variance: [Double]
        /// Mean probability of each expert, `[heads · experts]`.
        var probability: [Double]
    }

    struct Router: Sendable {
        let layer: Int
        /// Logits per head.
        let count: Int
        var sides: [Side]
    }

    private(set) var routers: [Router]
    private let heads: Int
    private let experts: Int

    init(_ output: ForwardOutput) {
        let objectives = Dictionary(
            output.routings.map { ($0.layer, $0.objectives) }, uniquingKeysWith: { first, _ in first })
        let shape = output.routings.first?.left.value.shape ?? [0, 0, 0]
        (heads, experts) = (shape[1], shape[2])
        routers = output.routerStatistics.map { statistics in
            Router(
                layer: statistics.layer, count: statistics.count,
                sides: zip(statistics.sides, objectives[statistics.layer] ?? []).map { side, objective in
                    Side(
                        mean: side.mean.floats().map(Double.init),
                        variance: side.variance.floats().map(Double.init),
                        probability: objective.meanProbability.floats().map(Double.init))
                })
        }
    }

    private var numbers: [Double] {
        routers.flatMap { router in
            [Double(router.count)] + router.sides.flatMap { $0.mean + $0.variance + $0.probability }
        }
    }

    private mutating func set(_ numbers: ArraySlice<Double>) {
        var rest = numbers
        func take(_ count: Int) -> [Double] {
            defer { rest = rest.dropFirst(count) }
            return Array(rest.prefix(count))
        }
        routers = routers.map { router in
            let count = Int(take(1).first ?? 0)
            return Router(
                layer: router.layer, count: count,
                sides: router.sides.map { _ in
                    Side(mean: take(heads), variance: take(heads), probability: take(heads * experts))
                })
        }
    }

    /// The statistics of all processes' micro-batches, in the order of micro-batches.
    ///
    /// - Throws: `ProcessError`.
    static func gather(_ own: [BatchStatistics], _ communicator: any Communicator) throws -> [BatchStatistics]
    {
        guard communicator.isShared, let first = own.first else { return own }
        let size = first.numbers.count
        let all = try communicator.gather(own.flatMap(\.numbers))
        return try all.enumerated().flatMap { rank, numbers in
            guard numbers.count == size * own.count else {
                throw ProcessError.unexpectedAnswer(
                    rank: rank, expected: "\(size * own.count) numbers of \(own.count) micro-batches",
                    found: "\(numbers.count)")
            }
            return own.indices.map { place in
                var statistics = first
                statistics.set(numbers[(place * size)..<((place + 1) * size)])
                return statistics
            }
        }
    }

    /// The statistics of the batch that some micro-batches make up, in which every token weighs the same. Variances are
    /// those around the common mean.
    init(of parts: [BatchStatistics]) {
        self = parts[0]
        guard parts.count > 1 else { return }
        for index in routers.indices {
            let count = parts.reduce(0) { $0 + $1.routers[index].count }
            let shares = parts.map { Double($0.routers[index].count) / Double(max(1, count)) }
            routers[index] = Router(
                layer: routers[index].layer, count: count,
                sides: routers[index].sides.indices.map { side in
                    let sides = parts.map { $0.routers[index].sides[side] }
                    func average(_ values: [[Double]]) -> [Double] {
                        (values.first ?? []).indices.map { place in
                            zip(values, shares).reduce(0) { $0 + $1.0[place] * $1.1 }
                        }
                    }
                    let mean = average(sides.map(\.mean))
                    let variance = average(
                        sides.map { side in
                            zip(side.variance, zip(side.mean, mean)).map {
                                $0 + ($1.0 - $1.1) * ($1.0 - $1.1)
                            }
                        })
                    return Side(
                        mean: mean, variance: variance, probability: average(sides.map(\.probability)))
                })
        }
    }

    /// Mean probabilities in the form of the objective.
    func means(on backend: any Backend) throws -> [Int: [Tensor]] {
        try Dictionary(
            routers.map { router in
                (
                    router.layer,
                    try router.sides.map {
                        try backend.tensor(Tensor($0.probability.map(Float.init), shape: [heads, experts]))
                    }
                )
            }, uniquingKeysWith: { first, _ in first })
    }

    /// Equation 16 of the whole batch, averaged over the routers.
    var uniformity: Double {
        let sum = routers.reduce(0.0) { sum, router in
            router.sides.reduce(sum) { sum, side in
                side.probability.reduce(sum) {
                    $0 - log(max($1, Double(RouterObjective.smallestProbability)))
                        / Double(2 * heads * experts)
                }
            }
        }
        return sum / Double(max(1, routers.count))
    }

    /// What the running statistics move towards.
    func runningStatistics(on backend: any Backend) throws -> [RouterBatchStatistics] {
        try routers.map { router in
            RouterBatchStatistics(
                layer: router.layer,
                sides: try router.sides.map {
                    RouterStatistics(
                        mean: try backend.tensor(Tensor($0.mean.map(Float.init), shape: [heads])),
                        variance: try backend.tensor(Tensor($0.variance.map(Float.init), shape: [heads])))
                }, count: router.count)
        }
    }
}
