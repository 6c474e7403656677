import Foundation
import MonetCompute
import MonetModel
import MonetProcesses
import MonetText

/// Loss and expert usage on held-out text, with the routers' running statistics.
public struct HeldOutEvaluation: Sendable, Equatable {
    /// Mean next-token cross entropy; of preference pairs, their mean loss.
    public var loss = 0.0
    /// Tokens scored.
    public var tokens = 0
    /// Of preference pairs: the mean margin, and the share of pairs in which it is positive; nil of other text.
    public var preferences: (margin: Double, accuracy: Double)? {
        pairs > 0 ? (margin / Double(pairs), correct / Double(pairs)) : nil
    }
    private var margin = 0.0
    private var correct = 0.0
    private var pairs = 0
    /// Share of experts selected at least once, for each router's left and right side.
    public var aliveShares: [Double] = []
    /// Experts that a head selects for a token, on average.
    public var selectedPerHead = 0.0

    /// exp(loss).
    public var perplexity: Double { exp(loss) }
    /// The smallest of the shares; 1 for a model without experts.
    public var smallestAliveShare: Double { aliveShares.min() ?? 1 }

    /// Runs `batches` through the model, each on one of the processes; all get the same result.
    public init(
        model: MonetLanguageModel, batches: [BatchStream.Batch], backend: any Backend = CPUBackend(),
        communicator: any Communicator = SingleProcess()
    ) throws {
        try self.init(
            model: model, batches: batches, preferences: nil, backend: backend, communicator: communicator)
    }

    init(
        model: MonetLanguageModel, batches: [BatchStream.Batch], preferences: PreferenceObjective?,
        backend: any Backend, communicator: any Communicator
    ) throws {
        var own: [Double] = []
        for (number, batch) in batches.enumerated() where number % communicator.count == communicator.rank {
            own += try Part(model: model, batch: batch, preferences: preferences, backend: backend).numbers
        }
        var left = try communicator.gather(own).map { $0[...] }
        var alive: [Set<Int>] = []
        var experts = 1
        var sum = 0.0
        for number in batches.indices {
            let part = try Part(&left[number % communicator.count], rank: number % communicator.count)
            sum += part.loss
            tokens += part.tokens
            margin += part.pairs.margin
            correct += part.pairs.correct
            pairs += part.pairs.pairs
            if alive.isEmpty { alive = Array(repeating: [], count: part.sides.count) }
            for (index, side) in part.sides.enumerated() {
                alive[index].formUnion(side.selected)
                experts = side.experts
                selectedPerHead += side.selectedPerHead / Double(part.sides.count * batches.count)
            }
        }
        let count = pairs > 0 ? pairs : tokens
        loss = count > 0 ? sum / Double(count) : .nan
        aliveShares = alive.map { Double($0.count) / Double(experts) }
    }

    /// What one batch contributes.
    private struct Part {
        struct Side {
            let experts: Int
            let selectedPerHead: Double
            let selected: [Int]
        }

        let loss: Double
        let tokens: Int
        var pairs = PreferenceObjective.Result()
        let sides: [Side]

        init(
            model: MonetLanguageModel, batch: BatchStream.Batch, preferences: PreferenceObjective?,
            backend: any Backend
        ) throws {
            var input = ForwardInput(batch.inputs)
            input.objective = RouterObjectiveSettings()
            let output = try model.forward(input, on: backend)
            if let preferences {
                pairs = try preferences(output, model: model, batch: batch, share: 1, backend: backend)
                loss = pairs.loss
            } else {
                let losses = try model.crossEntropy(output, targets: batch.targets).floats()
                loss = losses.reduce(0.0) { $0 + Double($1) }
            }
            tokens = batch.targets.count { $0 >= 0 }
            sides = output.routings.flatMap(\.objectives).map { side in
                let usage = RouterUsage(side)
                return Side(
                    experts: side.selectionCounts.columnCount, selectedPerHead: usage.selectedPerHead,
                    selected: usage.selected.sorted())
            }
        }

        /// The same as numbers, for other processes.
        var numbers: [Double] {
            var result = [
                loss, Double(tokens), pairs.margin, pairs.correct, Double(pairs.pairs), Double(sides.count),
            ]
            for side in sides {
                result += [Double(side.experts), side.selectedPerHead, Double(side.selected.count)]
                result += side.selected.map(Double.init)
            }
            return result
        }

        /// Takes the first part from the numbers of a process.
        init(_ numbers: inout ArraySlice<Double>, rank: Int) throws {
            func take() throws -> Double {
                guard let number = numbers.popFirst() else {
                    throw ProcessError.unexpectedAnswer(
                        rank: rank, expected: "the losses of its batches", found: "fewer numbers")
                }
                return number
            }
            func count() throws -> Int { max(0, Int(exactly: try take()) ?? 0) }
            loss = try take()
            tokens = try count()
            pairs.margin = try take()
            pairs.correct = try take()
            pairs.pairs = try count()
            sides = try (0..<count()).map { _ in
                let (experts, perHead) = (try count(), try take())
                return Side(
                    experts: experts, selectedPerHead: perHead,
                    selected: try (0..<count()).map { _ in try count() })
            }
        }
    }
}
