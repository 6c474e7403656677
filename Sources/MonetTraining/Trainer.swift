import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText

/// The progress of a training run.
public struct TrainingProgress: Sendable {
    public let step: Int
    public let steps: Int
    public let losses: TrainingLosses
    public let learningRate: Double
    public let gradientNorm: Double
    /// Tokens seen since the start of the run.
    public let tokens: Int
    public let tokensPerSecond: Double
    /// Share of the machine's measured peak, counting the operations of selected experts only.
    public let peakShare: Double
    public let secondsLeft: Double
}

/// Trains a model in a run folder.
public final class Trainer {
    /// What happens during a run.
    public enum Event: Sendable {
        case started(parameters: Int, step: Int)
        /// What this process will take of the machine's memory.
        case forecast(MemoryForecast)
        case progress(TrainingProgress)
        case evaluated(step: Int, HeldOutEvaluation)
        case saved(step: Int, path: String)
    }

    /// How a run ended.
    public enum Outcome: Sendable, Equatable {
        case finished(checkpoint: String)
        /// The run was asked to stop, and can be resumed from the checkpoint.
        case interrupted(step: Int, checkpoint: String)
    }

    /// The settings.
    public let configuration: RunConfiguration
    /// The model in training.
    public let model: MonetLanguageModel
    private let directory: RunDirectory
    private let text: TrainingText
    private let backend: any Backend
    private let communicator: any Communicator
    private let optimizer: AdamW
    private var state: RunDirectory.State
    private var savedStep: Int?
    /// A folder whose tokenizer settings, chat template and other files the next checkpoint takes over.
    private var companions: String?
    /// The model that the run starts from, if routers stay as they are.
    private var tunedFrom: TunedOrigin?
    /// Whether the run's folder is still to be made.
    private var isNew = false
    /// Held as long as the trainer lives, by the process that writes.
    private let lock: FileLock?

    /// Starts a new run, or continues the one in `directory`.
    ///
    /// - `communicator`: the processes that share the work, which all do this together. Only the first one writes.
    /// - Throws: `TrainingError`, `ModelError`, `TextError`, `FileError`, `ProcessError`.
    public init(
        _ configuration: RunConfiguration, directory: RunDirectory, resuming: Bool,
        backend: any Backend = CPUBackend(), communicator: any Communicator = SingleProcess()
    ) throws {
        try configuration.validate(source: "run")
        try configuration.requireShares(communicator.count)
        self.communicator = communicator
        try MemoryLimits.require(
            configuration.leastMemory(
                processes: communicator.count, onThisMachine: communicator.processesOnThisMachine),
            for: "training \(configuration.model.parameterCount.grouped) parameters on "
                + "\((configuration.sequenceLength * configuration.batchSize).grouped) tokens at a time")
        let text = try TrainingText(configuration)
        guard text.vocabularySize <= configuration.model.vocabularySize else {
            throw TrainingError.invalidSetting(
                source: "run", key: "model.vocab_size", found: "\(configuration.model.vocabularySize)",
                expected: "at least the \(text.vocabularySize) of \(text.tokens)")
        }
        self.configuration = configuration
        self.directory = directory
        self.text = text
        self.backend = backend
        let settings = AdamW.Settings(
            beta1: configuration.beta1, beta2: configuration.beta2, epsilon: configuration.epsilon,
            weightDecay: configuration.weightDecay, decaysEverything: configuration.decaysEverything)
        if resuming {
            guard directory.exists else {
                throw TrainingError.cannotResume(folder: directory.path, reason: "there is no run")
            }
            lock = communicator.isFirst ? try directory.lock() : nil
            guard let newest = directory.checkpoints().last else {
                // The run was killed before its first checkpoint: it is resumed from the beginning.
                companions = configuration.initialCheckpoint
                model = try Self.initialModel(configuration).moved(to: backend)
                optimizer = try AdamW(
                    Self.trained(model, configuration), settings: settings, on: backend,
                    communicator: communicator)
                state = RunDirectory.State(step: 0)
                tunedFrom = try origin()
                guard communicator.isFirst else { return }
                try directory.truncateMetrics(after: nil)
                try directory.removeEvents()
                try directory.store(configuration)
                return
            }
            companions = newest.path
            guard newest.step <= configuration.steps else {
                throw TrainingError.cannotResume(
                    folder: directory.path,
                    reason: "\(newest.path) is beyond the last step, \(configuration.steps)")
            }
            let saved: (model: MonetLanguageModel, optimizer: SafetensorsFile, state: RunDirectory.State)
            do { saved = try directory.load(newest.path) } catch let error as ModelError {
                guard case .foreignBase = error else { throw error }
                throw TrainingError.cannotResume(folder: directory.path, reason: "\(error)")
            }
            guard saved.model.configuration.shapes() == configuration.model.shapes() else {
                throw TrainingError.cannotResume(
                    folder: directory.path, reason: "\(newest.path) holds a model of other sizes")
            }
            try Self.requireSameKind(configuration, saved.model, newest.path, directory)
            model = try saved.model.moved(to: backend)
            optimizer = try AdamW(
                Self.trained(model, configuration), settings: settings, on: backend,
                communicator: communicator)
            try optimizer.restore(saved.optimizer, step: saved.state.step)
            state = saved.state
            if let known = state.text, known != text.source.fingerprint {
                throw TrainingError.cannotResume(
                    folder: directory.path,
                    reason: "\(text.name): what it reads is not what the run has read so far"
                        + (configuration.readsConversations
                            ? ": other files, or another template, seed, sequence_length or validation_share"
                            : ""))
            }
            // What was measured of a checkpoint does not hold for those after it.
            tunedFrom = model.tunedFrom.map { TunedOrigin(fingerprints: $0.fingerprints) }
            guard communicator.isFirst else { return }
            try requireSameStart(newest.path)
            try directory.truncateMetrics(after: state)
            try directory.linkNewest(best: state.bestStep)
            try directory.store(configuration)
        } else {
            // Before any process makes the folder, all look whether it is there.
            let exists = directory.exists
            try communicator.barrier()
            guard !exists else { throw TrainingError.runExists(folder: directory.path) }
            try text.checkTokenizer(of: configuration)
            companions = configuration.initialCheckpoint
            model = try Self.initialModel(configuration).moved(to: backend)
            optimizer = try AdamW(
                Self.trained(model, configuration), settings: settings, on: backend,
                communicator: communicator)
            state = RunDirectory.State(step: 0)
            lock = communicator.isFirst ? try directory.lock() : nil
            tunedFrom = try origin()
            isNew = true
        }
    }

    /// What a tuned model keeps of the one that the run starts from.
    private func origin() throws -> TunedOrigin? {
        guard configuration.freezesRouters, communicator.isFirst, let start = configuration.initialCheckpoint
        else {
            return nil
        }
        let model = try MonetLanguageModel.load(start, for: .conversion)
        let own = model.fingerprint
        return TunedOrigin(fingerprints: [own] + (model.tunedFrom?.fingerprints ?? []))
    }

    /// Checks what a run cannot change when it goes on: adapters, and experts reserved for labels.
    private static func requireSameKind(
        _ configuration: RunConfiguration, _ model: MonetLanguageModel, _ checkpoint: String,
        _ directory: RunDirectory
    ) throws {
        guard try configuration.adapters() == model.adapters else {
            throw TrainingError.cannotResume(
                folder: directory.path,
                reason:
                    "\(checkpoint) has \(model.adapters.map { "adapters of rank \($0.rank), alpha \($0.alpha)" } ?? "no adapters"), which a run keeps"
            )
        }
        let reserved = try configuration.reservedExperts()
        if model.adapters == nil, try ReservedExperts(folder: checkpoint) != reserved {
            throw TrainingError.cannotResume(
                folder: directory.path,
                reason: "\(checkpoint) reserves other experts than experts_of says, which a run keeps")
        }
    }

    /// Checks that the model that preference pairs refer to is the one of the run's start; adapters check their base.
    private func requireSameStart(_ checkpoint: String) throws {
        guard !configuration.preferences.isEmpty,
            let known = tunedFrom?.fingerprints.first, let found = try origin()?.fingerprints.first,
            known != found
        else { return }
        throw TrainingError.cannotResume(
            folder: directory.path,
            reason:
                "\(configuration.initialCheckpoint ?? "") is another model now (fingerprint \(found)) than when "
                + "the run began (\(known))")
    }

    /// The parameters that the run changes.
    private static func trained(_ model: MonetLanguageModel, _ configuration: RunConfiguration) -> [Parameter]
    {
        model.parameters.trainable.filter {
            model.adapters == nil
                ? !configuration.freezesRouters || !$0.isRouters : $0.role == .adapter
        }
    }

    private static func initialModel(_ configuration: RunConfiguration) throws -> MonetLanguageModel {
        if let path = configuration.initialCheckpoint {
            let model = try MonetLanguageModel.load(path, for: .training).merged()
            guard model.configuration.shapes() == configuration.model.shapes() else {
                throw TrainingError.invalidSetting(
                    source: "run", key: "init_from", found: path,
                    expected: "a checkpoint of the sizes under \"model\"")
            }
            return try configuration.adapters().map { try model.with($0, seed: configuration.seed) }
                ?? model
        }
        return try MonetLanguageModel.random(configuration.model, seed: configuration.seed)
    }

    /// Trains to the last step.
    ///
    /// - Parameters:
    ///   - shouldStop: called after every step; true saves and returns.
    ///   - report: called with every event.
    /// - Throws: `TrainingError.diverged`, and errors of files and computations.
    public func run(shouldStop: () -> Bool = { false }, report: (Event) throws -> Void) throws -> Outcome {
        let schedule = LearningRateSchedule(configuration)
        var objective = TrainingObjective(
            uniformity: configuration.uniformity,
            uniformityWeight: configuration.freezesRouters ? 0 : configuration.uniformityWeight,
            ambiguityWeight: configuration.freezesRouters ? 0 : configuration.ambiguityWeight,
            momentum: configuration.routerMomentum)
        objective.freezesRouters = configuration.freezesRouters
        objective.recomputesActivations = configuration.recomputesActivations
        objective.preferences = try preferences()
        let gradient = GradientStep(
            model: model, shards: optimizer.shards, objective: objective,
            reserved: try configuration.reservedExperts(), backend: backend, communicator: communicator,
            format: configuration.gradientFormat)
        try requireEqualStarts()
        let forecast = try MemoryForecast(
            configuration, gradientBytes: optimizer.shards.parameters.reduce(0) { $0 + 4 * $1.tensor.count },
            communicator: communicator
        ) { try gradient.rehearse($0) }
        // Only now, so that a start that fails leaves no run.
        if isNew, communicator.isFirst { try directory.create(configuration) }
        isNew = false
        let logs = communicator.isFirst ? try Logs(directory, state) : nil
        var sequences =
            state.sequences ?? state.step * configuration.accumulation * configuration.batchSize
        var tokens = state.tokens ?? state.step * configuration.tokensPerStep
        let validation = text.source.validationBatches(limit: configuration.evaluationBatches)
        // Of all processes together.
        let peak = try communicator.gather([MachinePeak.operationsPerSecond(on: backend)])
            .joined().reduce(0, +)
        try report(.started(parameters: model.configuration.parameterCount, step: state.step))
        try report(.forecast(forecast))
        var watch = DivergenceWatch(threshold: configuration.divergenceThreshold)
        var meter = SpeedMeter()

        func evaluate() throws {
            guard !validation.isEmpty else { return }
            let result = try HeldOutEvaluation(
                model: model, batches: validation, preferences: objective.preferences, backend: backend,
                communicator: communicator)
            var members: [(String, JSONValue)] = [
                ("step", .integer(state.step)), ("eval_loss", .number(result.loss)),
                ("eval_perplexity", .number(result.perplexity)),
            ]
            var scalars = [("eval/loss", result.loss), ("eval/perplexity", result.perplexity)]
            if let pairs = result.preferences {
                members += [
                    ("eval_margin", .number(pairs.margin)), ("eval_accuracy", .number(pairs.accuracy)),
                ]
                scalars += [("eval/margin", pairs.margin), ("eval/accuracy", pairs.accuracy)]
            }
            if !result.aliveShares.isEmpty {
                members += [
                    ("eval_alive_experts", .number(result.smallestAliveShare)),
                    ("eval_selected_per_head", .number(result.selectedPerHead)),
                ]
                scalars += [
                    ("eval/alive_experts", result.smallestAliveShare),
                    ("eval/selected_per_head", result.selectedPerHead),
                ]
            }
            try logs?.write(members.map { .init($0.0, $0.1) }, scalars, step: state.step)
            if result.loss < state.bestLoss ?? .infinity, state.step > 0 {
                state.bestLoss = result.loss
                state.bestStep = state.step
                // `best` links to a regular checkpoint, which must be saved now to exist.
                try save(logs, report)
            }
            try report(.evaluated(step: state.step, result))
        }

        if state.step == 0 { try evaluate() }
        while state.step < configuration.steps {
            let step = state.step + 1
            meter.begin()
            let (result, norm) = try trainStep(
                step, from: sequences, gradient: gradient, learningRate: schedule.rate(at: step),
                watch: &watch)
            let losses = result.losses
            sequences += configuration.accumulation * configuration.batchSize
            tokens += result.tokens
            (state.step, state.sequences, state.tokens) = (step, sequences, tokens)
            meter.end(tokens: result.tokens)
            if step % configuration.logEvery == 0 || step == configuration.steps || step == 1 {
                let rate = meter.tokensPerSecond
                let progress = TrainingProgress(
                    step: step, steps: configuration.steps, losses: losses,
                    learningRate: schedule.rate(at: step),
                    gradientNorm: norm, tokens: tokens, tokensPerSecond: rate,
                    peakShare: rate * operationsPerToken(losses) / peak,
                    secondsLeft: Double((configuration.steps - step) * result.tokens) / rate)
                try logs?.write(progress, exchange: result.cost, configuration)
                try report(.progress(progress))
            }
            let isLast = step == configuration.steps
            // A process that is asked to stop stops all of them.
            let stops =
                try !isLast && communicator.gather([shouldStop() ? 1.0 : 0]).contains { $0.contains(1) }
            if step % configuration.evaluateEvery == 0 || isLast { try evaluate() }
            if step % configuration.saveEvery == 0 || isLast || stops { try save(logs, report) }
            if stops { return .interrupted(step: step, checkpoint: directory.checkpointPath(step: step)) }
        }
        try logs?.metrics.finish()
        return .finished(checkpoint: directory.checkpoints().last?.path ?? directory.path)
    }

    /// The objective of preference pairs, with the model as it was before the run as their reference.
    private func preferences() throws -> PreferenceObjective? {
        guard !configuration.preferences.isEmpty else { return nil }
        var start = configuration
        start.adapterRank = 0
        return PreferenceObjective(
            beta: configuration.beta, reference: try Self.initialModel(start).moved(to: backend))
    }

    /// One optimizer step over all its micro-batches.
    private func trainStep(
        _ step: Int, from first: Int, gradient: GradientStep, learningRate: Double,
        watch: inout DivergenceWatch
    ) throws -> (result: GradientStep.Result, norm: Double) {
        var result: GradientStep.Result
        do {
            result = try gradient(microBatches: configuration.accumulation) {
                text.source.batch(from: first + $0 * configuration.batchSize)
            }
        } catch let error as ModelError {
            guard case .notFinite = error else { throw error }
            throw TrainingError.diverged(
                step: step, reason: "\(error)", lastCheckpoint: directory.checkpoints().last?.path)
        }
        let norm = try optimizer.gradientNorm(result.gradients, on: backend)
        if let reason = watch.problem(loss: result.losses.total, gradientNorm: norm) {
            throw TrainingError.diverged(
                step: step, reason: reason, lastCheckpoint: directory.checkpoints().last?.path)
        }
        let clip = configuration.gradientClip
        let scale = clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1
        try optimizer.update(result.gradients, learningRate: learningRate, gradientScale: scale, on: backend)
        (result.cost.parameterBytes, result.cost.parameterSeconds) = optimizer.parameterCost
        return (result, norm)
    }

    /// Checks that every process begins where the first one does and reads what it reads: folders of several machines
    /// can differ.
    ///
    /// - Throws: `TrainingError.cannotResume`.
    private func requireEqualStarts() throws {
        let batch = text.source.batch(from: state.step)
        let text = UInt64(text.source.fingerprint, radix: 16) ?? 0
        let own =
            [state.step, state.sequences ?? 0, state.bestStep ?? 0].map(Double.init)
            + [text >> 32, text & 0xffff_ffff].map(Double.init) + batch.inputs.joined().map(Double.init)
        let all = try communicator.gather(own)
        guard let place = all.firstIndex(where: { $0 != all[0] }) else { return }
        throw TrainingError.cannotResume(
            folder: directory.path,
            reason: all[place].first != all[0].first
                ? "process \(place) begins after step \(Int(all[place].first ?? 0)), process 0 after "
                    + "\(Int(all[0].first ?? 0)): do all see the same folder?"
                : "process \(place) reads another text than process 0: do all see the same files?")
    }

    private func save(_ logs: Logs?, _ report: (Event) throws -> Void) throws {
        // A step that is both the best and the last is saved once; its state already names it as the best.
        guard savedStep != state.step else { return }
        savedStep = state.step
        let moments = try optimizer.state()
        if let logs {
            try logs.metrics.synchronize()
            state.text = text.source.fingerprint
            state.metricsBytes = logs.metrics.size
            state.events = try logs.board.position()
            companions = try directory.save(
                model: model, moments: moments, state: state, configuration: configuration,
                companions: companions, tunedFrom: configuration.freezesRouters ? tunedFrom : nil,
                tokenizerPath: text.tokenizerPath, keepLast: configuration.keepLast)
        }
        // The others wait: a run that ends here must not leave a checkpoint behind that is not whole.
        try communicator.barrier()
        try report(.saved(step: state.step, path: directory.checkpointPath(step: state.step)))
    }

    /// Operations per token, forward and backward. Only the experts that a token needs are
    /// counted.
    private func operationsPerToken(_ losses: TrainingLosses) -> Double {
        let model = configuration.model
        let embedding = model.tieWordEmbeddings ? 0 : model.vocabularySize * model.hiddenSize
        let attention =
            2 * model.layerCount * configuration.sequenceLength * model.attentionHeads * model.headWidth
        var products = Double(model.parameterCount - embedding)
        let experts = model.shapes().filter { $0.role == .expert }.reduce(0) { $0 + $1.count }
        products -=
            Double(experts) * (1 - model.feedForward.activeShare(selectedPerHead: losses.selectedPerHead))
        return 6 * products + 3 * Double(attention)
    }
}
