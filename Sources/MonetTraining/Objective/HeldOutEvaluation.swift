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
    /// The smallest of the shares; 1 for a model without experts.
    public var smallestAliveShare: Double { aliveShares.min() ?? 1 }

    /// Runs `batches` through the model.
    public init(model: MonetLanguageModel, batches: [BatchStream.Batch], backend: any Backend = CPUBackend())
        throws
    {
        var sum = 0.0
        var alive: [Set<Int>] = []
        var selected = 0.0
        var experts = 1
        for batch in batches {
            var input = ForwardInput(batch.inputs)
            input.objective = RouterObjectiveSettings()
            let output = try model.forward(input, on: backend)
            let losses = try model.crossEntropy(output, targets: batch.targets).floats()
            sum += losses.reduce(0.0) { $0 + Double($1) }
            tokens += batch.targets.count { $0 >= 0 }
            let sides = output.routings.flatMap(\.objectives)
            if alive.isEmpty { alive = Array(repeating: [], count: sides.count) }
            for (index, side) in sides.enumerated() {
                let usage = RouterUsage(side)
                alive[index].formUnion(usage.selected)
                experts = side.selectionCounts.columnCount
                selected += usage.selectedPerHead / Double(sides.count * batches.count)
            }
        }
        loss = tokens > 0 ? sum / Double(tokens) : .nan
        aliveShares = alive.map { Double($0.count) / Double(experts) }
        selectedPerHead = selected
    }
}
