import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText

/// The gradient of a step's objective over its micro-batches, which processes share: the same bit for bit, whatever
/// process computes which.
///
/// Each process runs its micro-batches forward, then all exchange what the uniformity loss needs of the whole batch,
/// then each runs its micro-batches backward. Forward passes are kept in between as far as memory allows; the others
/// run twice. Gradients are added in the order of `SummationTree`.
package final class GradientStep {
    /// What a step gives.
    package struct Result {
        package var losses: TrainingLosses
        /// In the order of the parameters; with several processes, complete only in the process's own pieces.
        package var gradients: [Tensor?]
        /// Tokens of all processes.
        package var tokens = 0
        var cost = GradientExchange.Cost()
    }

    private let model: MonetLanguageModel
    private let parameters: [Parameter]
    private let indexOfName: [String: Int]
    private let objective: TrainingObjective
    private let backend: any Backend
    private let communicator: any Communicator
    private let exchange: GradientExchange?
    private let reserved: ReservedExperts?
    /// What is done with a parameter's gradient once it is complete, in the last backward pass.
    private var onComplete: ((Int) throws -> Void)?

    init(
        model: MonetLanguageModel, shards: ParameterShards, objective: TrainingObjective,
        reserved: ReservedExperts?, backend: any Backend, communicator: any Communicator,
        format: GradientFormat
    ) {
        self.model = model
        self.reserved = reserved
        parameters = shards.parameters
        indexOfName = Dictionary(
            shards.parameters.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
        self.objective = objective
        self.backend = backend
        self.communicator = communicator
        exchange =
            communicator.isShared
            ? GradientExchange(shards, communicator: communicator, format: format) : nil
    }

    /// The same for one process.
    package convenience init(
        model: MonetLanguageModel, parameters: [Parameter], objective: TrainingObjective,
        reserved: ReservedExperts? = nil, backend: any Backend
    ) {
        self.init(
            model: model, shards: ParameterShards(parameters, rank: 0, processes: 1), objective: objective,
            reserved: reserved, backend: backend, communicator: SingleProcess(), format: .float32)
    }

    deinit { exchange?.stop() }

    /// The gradient of the mean objective of `count` micro-batches, and the routers' running statistics moved.
    ///
    /// - `batch`: a micro-batch by number. Of those of other processes, only the targets are counted.
    /// - Throws: `ModelError.notFinite`, `ProcessError`, `ComputeError`.
    package func callAsFunction(microBatches count: Int, batch: (Int) -> BatchStream.Batch) throws -> Result {
        let first = count * communicator.rank / communicator.count
        let own = first..<(count * (communicator.rank + 1) / communicator.count)
        let share = 1 / Double(count)
        // Every token that counts has the same weight, however many a micro-batch has.
        let sizes = (0..<count).map { index in
            let targets = batch(index).targets
            return (tokens: targets.count, counted: targets.count { $0 >= 0 })
        }
        let counted = max(1, sizes.reduce(0) { $0 + $1.counted })
        let total = max(1, sizes.reduce(0) { $0 + $1.tokens })
        let tokenShares = sizes.map { Double($0.tokens) / Double(total) }
        let variables = ParameterVariables { [indexOfName] in indexOfName[$0] == nil }
        if exchange != nil {
            variables.onGradient = { [unowned self] parameter in
                if let index = indexOfName[parameter.name] { try onComplete?(index) }
            }
        }
        let uniformityBatch = UniformityBatch()
        var passes = Passes(neighbours: communicator.processesOnThisMachine)
        func forward(_ index: Int) throws -> ForwardOutput {
            let output = try objective.forward(
                model: model, sequences: sequences(batch(index)), share: tokenShares[index],
                batch: uniformityBatch, backend: backend, variables: variables)
            passes.note(output, index)
            return output
        }
        // One micro-batch is the whole batch; without the loss that joins them, each goes back at once.
        var whole: BatchStatistics?
        if count > 1, objective.uniformityWeight > 0, !model.configuration.routerLayers.isEmpty {
            for index in own { passes.keep(try forward(index), index) }
            whole = try passes.statistics(of: own, communicator)
            uniformityBatch.means = try whole?.means(on: backend) ?? [:]
        }
        var sum = RunningTreeSum<[Tensor?]> { [backend] in try Self.add($1, to: $0, on: backend) }
        var result = Result(
            losses: TrainingLosses(), gradients: [], tokens: sizes.reduce(0) { $0 + $1.tokens })
        for index in own {
            let output = try passes.take(index) ?? forward(index)
            let read = batch(index)
            if let preferences = objective.preferences {
                let result = try preferences(
                    output, model: model, batch: read, share: 2 * share / Double(read.inputs.count),
                    backend: backend)
                passes.losses[index]?.note(result)
            } else {
                passes.losses[index]?.languageModel = try objective.languageModelLoss(
                    output, model: model, targets: read.targets,
                    share: Double(sizes[index].counted) / Double(counted))
            }
            if index < own.upperBound - 1 {
                try output.backward()
                try sum.append(variables.takeGradients(of: parameters))
            } else {
                (result.gradients, result.cost) = try last(output, sum.sums, variables)
            }
        }
        let statistics = try whole ?? passes.statistics(of: own, communicator)
        try model.updateRouters(
            with: statistics.runningStatistics(on: backend), momentum: Float(objective.momentum))
        // Every counted token weighs the same, or every pair, of which micro-batches have equally many.
        result.losses = try mean(
            own.compactMap { passes.losses[$0] }, tokenShares: tokenShares,
            shares: sizes.map { objective.preferences == nil ? Double($0.counted) / Double(counted) : share })
        if count > 1, !statistics.routers.isEmpty { result.losses.uniformity = statistics.uniformity }
        result.losses.total = objective.total(result.losses)
        return result
    }

    /// Computes the gradient of a micro-batch like those of a step, and throws it away.
    func rehearse(_ batch: BatchStream.Batch) throws {
        let variables = ParameterVariables { [indexOfName] in indexOfName[$0] == nil }
        let output = try objective.forward(
            model: model, sequences: sequences(batch), share: 1, batch: nil, backend: backend,
            variables: variables)
        if let preferences = objective.preferences {
            _ = try preferences(output, model: model, batch: batch, share: 1, backend: backend)
        } else {
            _ = try objective.languageModelLoss(output, model: model, targets: batch.targets, share: 1)
        }
        try output.backward()
    }

    /// How many forward passes of a size may be kept, in half of the memory that is left.
    static func passesKept(bytes: Int, _ neighbours: Int) -> Int {
        1 + max(0, MemoryLimits.available / neighbours / 2 / max(1, bytes))
    }

    private func sequences(_ batch: BatchStream.Batch) -> [ForwardSequence] {
        batch.inputs.enumerated().map { index, tokens in
            var sequence = ForwardSequence(tokens)
            if batch.labels.indices.contains(index) {
                sequence.reserved = reserved?.blocks.first { $0.label == batch.labels[index] }
            }
            return sequence
        }
    }

    /// The forward passes of a step.
    private struct Passes {
        private var kept: [Int: ForwardOutput] = [:]
        private var statistics: [Int: BatchStatistics] = [:]
        var losses: [Int: TrainingLosses] = [:]
        private var room: Int?
        /// Processes that share this machine's memory.
        private let neighbours: Int

        init(neighbours: Int) { self.neighbours = neighbours }

        /// Notes what a pass says of its routers, the first time it runs.
        mutating func note(_ output: ForwardOutput, _ index: Int) {
            guard statistics[index] == nil else { return }
            statistics[index] = BatchStatistics(output)
            losses[index] = RoutingSummary(output.routings).losses
        }

        /// Keeps a pass until it goes back, as long as there is memory for it.
        mutating func keep(_ output: ForwardOutput, _ index: Int) {
            // Operations keep about as much within as the values that they give.
            let most = room ?? GradientStep.passesKept(bytes: 2 * output.recordedBytes, neighbours)
            room = most
            if kept.count < most { kept[index] = output }
        }

        mutating func take(_ index: Int) -> ForwardOutput? { kept.removeValue(forKey: index) }

        func statistics(of own: Range<Int>, _ communicator: any Communicator) throws -> BatchStatistics {
            BatchStatistics(of: try BatchStatistics.gather(own.compactMap { statistics[$0] }, communicator))
        }
    }

    /// The last backward pass of this process: what is complete is added to the sums before it and sent on, while the
    /// pass goes on.
    private func last(
        _ output: ForwardOutput, _ before: [[Tensor?]], _ variables: ParameterVariables
    ) throws -> (gradients: [Tensor?], cost: GradientExchange.Cost) {
        var gradients = [Tensor?](repeating: nil, count: parameters.count)
        var isComplete = [Bool](repeating: false, count: parameters.count)
        func complete(_ index: Int) throws {
            guard !isComplete[index] else { return }
            isComplete[index] = true
            var gradient = variables.gradient(of: parameters[index])
            for earlier in before.reversed() {
                guard let target = earlier[index] else { continue }
                if let gradient { try backend.accumulate(gradient, into: target) }
                gradient = target
            }
            if let exchange {
                let sent = try gradient ?? backend.zeros(parameters[index].tensor.shape, dtype: .float32)
                try exchange.begin(parameter: index, gradient: sent)
                gradient = sent
            }
            gradients[index] = gradient
        }
        try withoutActuallyEscaping(complete) { complete in
            onComplete = complete
            defer { onComplete = nil }
            try output.backward()
        }
        for index in parameters.indices { try complete(index) }
        let cost = try exchange?.finish(gradients.compactMap { $0 }) ?? GradientExchange.Cost()
        return (gradients, cost)
    }

    private static func add(_ gradients: [Tensor?], to target: [Tensor?], on backend: any Backend) throws {
        for (gradient, target) in zip(gradients, target) {
            if let gradient, let target { try backend.accumulate(gradient, into: target) }
        }
    }

    /// The mean of all processes' losses, added in the order of micro-batches.
    ///
    /// - `tokenShares`: the share of each micro-batch in all tokens.
    /// - `shares`: its share in the tokens that count.
    private func mean(_ own: [TrainingLosses], tokenShares: [Double], shares: [Double]) throws
        -> TrainingLosses
    {
        let all = try communicator.gather(own.flatMap(\.numbers))
        let losses = all.flatMap { numbers in
            stride(
                from: 0, to: numbers.count - numbers.count % TrainingLosses.count, by: TrainingLosses.count
            )
            .map { TrainingLosses(Array(numbers[$0..<($0 + TrainingLosses.count)])) }
        }
        var mean = TrainingLosses()
        for (part, share) in zip(losses, objective.preferences == nil ? tokenShares : shares) {
            mean.add(part, share: share)
        }
        mean.languageModel = zip(losses, shares).reduce(0) { $0 + $1.0.languageModel * $1.1 }
        return mean
    }
}

extension TrainingLosses {
    fileprivate static let count = 8

    fileprivate var numbers: [Double] {
        [
            languageModel, uniformity, ambiguity, total, selectedPerHead, unselectedShare, preferenceMargin,
            preferenceAccuracy,
        ]
    }

    fileprivate mutating func note(_ pairs: PreferenceObjective.Result) {
        let count = Double(max(1, pairs.pairs))
        languageModel = pairs.loss / count
        preferenceMargin = pairs.margin / count
        preferenceAccuracy = pairs.correct / count
    }

    fileprivate init(_ numbers: [Double]) {
        languageModel = numbers[0]
        uniformity = numbers[1]
        ambiguity = numbers[2]
        total = numbers[3]
        selectedPerHead = numbers[4]
        unselectedShare = numbers[5]
        preferenceMargin = numbers[6]
        preferenceAccuracy = numbers[7]
    }

    fileprivate mutating func add(_ other: TrainingLosses, share: Double) {
        languageModel += share * other.languageModel
        uniformity += share * other.uniformity
        ambiguity += share * other.ambiguity
        total += share * other.total
        selectedPerHead += share * other.selectedPerHead
        unselectedShare += share * other.unselectedShare
        preferenceMargin += share * other.preferenceMargin
        preferenceAccuracy += share * other.preferenceAccuracy
    }
}
