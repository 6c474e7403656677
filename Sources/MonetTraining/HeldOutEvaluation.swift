import Foundation
import MonetCompute
import MonetModel
import MonetText

/// Loss and expert usage on held-out text, with the routers' running statistics.
public struct HeldOutEvaluation: Sendable, Equatable {
    /// Mean next-token cross entropy.
    public var loss = 0.0
    /// Tokens scored.
    public var tokens = 0
    /// Share of experts selected at least once, for each router's left and right side.
    public var aliveShares: [Double] = []
    /// Experts that a head selects for a token, on average.
    public var selectedPerHead = 0.0

    /// exp(loss).
    public var perplexity: Double { exp(loss) }
    /// The worst side's share; 1 for a model without experts.
    public var smallestAliveShare: Double { aliveShares.min() ?? 1 }

    /// Runs `batches` through the model.
    public init(model: MonetLanguageModel, batches: [BatchStream.Batch], backend: any Backend) throws {
        var sum = 0.0
        var alive: [Set<Int>] = []
        var selected = 0.0
        for batch in batches {
            let context = ForwardContext(inferenceOn: backend)
            context.measuresRouting = true
            let output = try model.forward(batch.inputs, context)
            let losses = try model.crossEntropy(output.hidden, targets: batch.targets, scale: 1, context)
            sum += losses.reduce(0.0) { $0 + Double($1) }
            tokens += batch.targets.count { $0 >= 0 }
            let sides = output.routings.flatMap { [$0.routing.leftObjective, $0.routing.rightObjective] }
                .compactMap { $0 }
            if alive.isEmpty { alive = Array(repeating: [], count: sides.count) }
            for (index, side) in sides.enumerated() {
                alive[index].formUnion(
                    side.selectedExperts(
                        heads: model.configuration.routingHeads, experts: model.configuration.expertsPerSide))
                selected += side.selectedPerHead / Double(sides.count * batches.count)
            }
        }
        loss = tokens > 0 ? sum / Double(tokens) : .nan
        aliveShares = alive.map { Double($0.count) / Double(model.configuration.expertsPerSide) }
        selectedPerHead = selected
    }
}
