import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
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
    private let corpus: Corpus
    private let stream: BatchStream
    private let backend: any Backend
    private let optimizer: AdamW
    private var state: RunDirectory.State
    private var savedStep: Int?
    /// A folder whose tokenizer settings, chat template and other files the next checkpoint takes over.
    private var companions: String?
    /// Held as long as the trainer lives.
    private let lock: FileLock

    /// Starts a new run, or continues the one in `directory`.
    ///
    /// - Throws: `TrainingError`, `ModelError`, `TextError`, `FileError`.
    public init(
        _ configuration: RunConfiguration, directory: RunDirectory, resuming: Bool,
        backend: any Backend = CPUBackend()
    ) throws {
        try configuration.validate(source: "run")
        try MemoryLimits.require(
            configuration.leastMemory,
            for: "training \(configuration.model.parameterCount.grouped) parameters on "
                + "\((configuration.sequenceLength * configuration.batchSize).grouped) tokens at a time")
        let corpus = try Corpus(folder: configuration.corpus)
        guard corpus.vocabularySize <= configuration.model.vocabularySize else {
            throw TrainingError.invalidSetting(
                source: "run", key: "model.vocab_size", found: "\(configuration.model.vocabularySize)",
                expected: "at least the corpus's \(corpus.vocabularySize)")
        }
        self.configuration = configuration
        self.directory = directory
        self.corpus = corpus
        self.backend = backend
        stream = try BatchStream(
            corpus: corpus, length: configuration.sequenceLength, batchSize: configuration.batchSize,
            seed: configuration.seed)
        let settings = AdamW.Settings(
            beta1: configuration.beta1, beta2: configuration.beta2, epsilon: configuration.epsilon,
            weightDecay: configuration.weightDecay, decaysEverything: configuration.decaysEverything)
        if resuming {
            guard directory.exists else {
                throw TrainingError.cannotResume(folder: directory.path, reason: "there is no run")
            }
            lock = try directory.lock()
            guard let newest = directory.checkpoints().last else {
                // The run was killed before its first checkpoint: it is resumed from the beginning.
                companions = configuration.initialCheckpoint
                model = try Self.initialModel(configuration).moved(to: backend)
                optimizer = try AdamW(model.parameters.trainable, settings: settings, on: backend)
                state = RunDirectory.State(step: 0)
                try directory.truncateMetrics(after: nil)
                try directory.removeEvents()
                return
            }
            companions = newest.path
            let saved = try directory.load(newest.path)
            guard saved.model.configuration.shapes() == configuration.model.shapes() else {
                throw TrainingError.cannotResume(
                    folder: directory.path, reason: "\(newest.path) holds a model of other sizes")
            }
            model = try saved.model.moved(to: backend)
            optimizer = try AdamW(model.parameters.trainable, settings: settings, on: backend)
            try optimizer.restore(saved.optimizer, step: saved.state.step)
            state = saved.state
            try directory.truncateMetrics(after: state)
            try directory.linkNewest(best: state.bestStep)
            try directory.store(configuration)
        } else {
            guard !directory.exists else { throw TrainingError.runExists(folder: directory.path) }
            try Self.checkTokenizer(of: configuration, corpus)
            companions = configuration.initialCheckpoint
            model = try Self.initialModel(configuration).moved(to: backend)
            optimizer = try AdamW(model.parameters.trainable, settings: settings, on: backend)
            state = RunDirectory.State(step: 0)
            // Last, so that a start that fails leaves no run.
            lock = try directory.lock()
            try directory.create(configuration)
        }
    }

    /// Checks that the corpus speaks the tokens of the checkpoint to start from.
    private static func checkTokenizer(of configuration: RunConfiguration, _ corpus: Corpus) throws {
        guard let start = configuration.initialCheckpoint else { return }
        let (own, starting) = (corpus.folder + "/tokenizer.model", start + "/tokenizer.model")
        guard FileManager.default.fileExists(atPath: own), FileManager.default.fileExists(atPath: starting),
            !FileManager.default.contentsEqual(atPath: own, andPath: starting)
        else { return }
        throw TrainingError.invalidSetting(
            source: "run", key: "corpus", found: corpus.folder,
            expected: "a corpus encoded with the tokenizer of \(start)")
    }

    private static func initialModel(_ configuration: RunConfiguration) throws -> MonetLanguageModel {
        if let path = configuration.initialCheckpoint {
            let model = try MonetLanguageModel.load(path, for: .training)
            guard model.configuration.shapes() == configuration.model.shapes() else {
                throw TrainingError.invalidSetting(
                    source: "run", key: "init_from", found: path,
                    expected: "a checkpoint of the sizes under \"model\"")
            }
            return model
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
        let objective = TrainingObjective(
            uniformity: configuration.uniformity, uniformityWeight: configuration.uniformityWeight,
            ambiguityWeight: configuration.ambiguityWeight, momentum: configuration.routerMomentum)
        let metrics = try FileWriter(path: directory.metricsPath, appending: true)
        let board = try TensorBoardWriter(
            folder: directory.path, continuing: state.events, step: state.step)
        var sequences =
            state.sequences ?? state.step * configuration.accumulation * configuration.batchSize
        var tokens = state.tokens ?? state.step * configuration.tokensPerStep
        let validation = stream.validationBatches(limit: configuration.evaluationBatches)
        let peak = try MachinePeak.operationsPerSecond(on: backend)
        try report(.started(parameters: model.configuration.parameterCount, step: state.step))
        var watch = DivergenceWatch(threshold: configuration.divergenceThreshold)
        var meter = SpeedMeter()

        func evaluate() throws {
            guard !validation.isEmpty else { return }
            let result = try HeldOutEvaluation(model: model, batches: validation, backend: backend)
            var members: [(String, JSONValue)] = [
                ("step", .integer(state.step)), ("eval_loss", .number(result.loss)),
                ("eval_perplexity", .number(result.perplexity)),
            ]
            var scalars = [("eval/loss", result.loss), ("eval/perplexity", result.perplexity)]
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
            try metrics.write(JSONValue.object(members.map { .init($0.0, $0.1) }).serialized() + "\n")
            try metrics.flush()
            try board.write(scalars, step: state.step)
            if result.loss < state.bestLoss ?? .infinity, state.step > 0 {
                state.bestLoss = result.loss
                state.bestStep = state.step
                // `best` links to a regular checkpoint, which must be saved now to exist.
                try save(metrics, board, report)
            }
            try report(.evaluated(step: state.step, result))
        }

        if state.step == 0 { try evaluate() }
        while state.step < configuration.steps {
            let step = state.step + 1
            meter.begin()
            let (losses, norm) = try trainStep(
                step, from: sequences, objective: objective, learningRate: schedule.rate(at: step),
                watch: &watch)
            sequences += configuration.accumulation * configuration.batchSize
            tokens += configuration.tokensPerStep
            (state.step, state.sequences, state.tokens) = (step, sequences, tokens)
            meter.end(tokens: configuration.tokensPerStep)
            if step % configuration.logEvery == 0 || step == configuration.steps || step == 1 {
                let rate = meter.tokensPerSecond
                let progress = TrainingProgress(
                    step: step, steps: configuration.steps, losses: losses,
                    learningRate: schedule.rate(at: step),
                    gradientNorm: norm, tokens: tokens, tokensPerSecond: rate,
                    peakShare: rate * operationsPerToken(losses) / peak,
                    secondsLeft: Double((configuration.steps - step) * configuration.tokensPerStep) / rate)
                try record(progress, metrics, board)
                try report(.progress(progress))
            }
            let isLast = step == configuration.steps
            let stops = !isLast && shouldStop()
            if step % configuration.evaluateEvery == 0 || isLast { try evaluate() }
            if step % configuration.saveEvery == 0 || isLast || stops { try save(metrics, board, report) }
            if stops, let newest = directory.checkpoints().last {
                return .interrupted(step: step, checkpoint: newest.path)
            }
        }
        try metrics.finish()
        return .finished(checkpoint: directory.checkpoints().last?.path ?? directory.path)
    }

    /// One optimizer step over all its micro-batches.
    private func trainStep(
        _ step: Int, from first: Int, objective: TrainingObjective, learningRate: Double,
        watch: inout DivergenceWatch
    ) throws -> (TrainingLosses, Double) {
        let variables = ParameterVariables()
        let share = 1 / Double(configuration.accumulation)
        var mean = TrainingLosses()
        for micro in 0..<configuration.accumulation {
            let batch = stream.batch(from: first + micro * configuration.batchSize)
            do {
                let losses = try objective.addGradient(
                    model: model, inputs: batch.inputs, targets: batch.targets, share: share,
                    backend: backend, variables: variables)
                mean.add(losses, share: share)
            } catch let error as ModelError {
                guard case .notFinite = error else { throw error }
                throw TrainingError.diverged(
                    step: step, reason: "\(error)", lastCheckpoint: directory.checkpoints().last?.path)
            }
        }
        let norm = try optimizer.gradientNorm(variables, on: backend)
        if let reason = watch.problem(loss: mean.total, gradientNorm: norm) {
            throw TrainingError.diverged(
                step: step, reason: reason, lastCheckpoint: directory.checkpoints().last?.path)
        }
        let clip = configuration.gradientClip
        let scale = clip > 0 && norm > clip ? clip / (norm + 1e-6) : 1
        try optimizer.update(variables, learningRate: learningRate, gradientScale: scale, on: backend)
        return (mean, norm)
    }

    private func save(
        _ metrics: FileWriter, _ board: TensorBoardWriter, _ report: (Event) throws -> Void
    ) throws {
        // A step that is both the best and the last is saved once; its state already names it as the best.
        guard savedStep != state.step else { return }
        savedStep = state.step
        try metrics.synchronize()
        state.metricsBytes = metrics.size
        state.events = try board.position()
        let path = try directory.save(
            model: model, optimizer: optimizer, state: state, companions: companions,
            tokenizerPath: corpus.folder + "/tokenizer.model", keepLast: configuration.keepLast)
        companions = path
        try report(.saved(step: state.step, path: path))
    }

    private func record(_ progress: TrainingProgress, _ metrics: FileWriter, _ board: TensorBoardWriter)
        throws
    {
        let losses = progress.losses
        var scalars: [(String, Double)] = [
            ("loss", losses.languageModel), ("lr", progress.learningRate),
            ("grad_norm", progress.gradientNorm),
            ("tokens_per_second", progress.tokensPerSecond), ("peak_share", progress.peakShare),
        ]
        if !configuration.model.routerLayers.isEmpty {
            scalars += [
                ("total_loss", losses.total), ("uniformity", losses.uniformity),
                ("ambiguity", losses.ambiguity),
                ("selected_per_head", losses.selectedPerHead), ("unselected_experts", losses.unselectedShare),
            ]
        }
        let members =
            [JSONValue.Member("step", .integer(progress.step)), .init("tokens", .integer(progress.tokens))]
            + scalars.map { .init($0.0, .number($0.1)) }
        try metrics.write(JSONValue.object(members).serialized() + "\n")
        try metrics.flush()
        try board.write(scalars.map { ("train/" + $0.0, $0.1) }, step: progress.step)
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

extension TrainingLosses {
    fileprivate mutating func add(_ other: TrainingLosses, share: Double) {
        languageModel += share * other.languageModel
        uniformity += share * other.uniformity
        ambiguity += share * other.ambiguity
        total += share * other.total
        selectedPerHead += share * other.selectedPerHead
        unselectedShare += share * other.unselectedShare
    }
}

/// Detects a loss that is not finite or diverges.
private struct DivergenceWatch {
    let threshold: Double
    private var smoothed: Double?
    private var lowest = Double.infinity

    init(threshold: Double) {
        self.threshold = threshold
    }

    mutating func problem(loss: Double, gradientNorm: Double) -> String? {
        if !loss.isFinite { return "the loss is \(loss)" }
        if !gradientNorm.isFinite { return "the gradient's norm is \(gradientNorm)" }
        let value = smoothed.map { 0.9 * $0 + 0.1 * loss } ?? loss
        smoothed = value
        lowest = min(lowest, value)
        return value > lowest + threshold
            ? String(format: "the loss diverges: %.3f after a low of %.3f (smoothed)", value, lowest) : nil
    }
}

/// Tokens per second over recent steps, without evaluation and saving.
private struct SpeedMeter {
    private var recent: [(tokens: Int, seconds: Double)] = []
    private var start = ContinuousClock.now

    mutating func begin() { start = ContinuousClock.now }

    mutating func end(tokens: Int) {
        recent.append((tokens, (ContinuousClock.now - start).seconds))
        if recent.count > 20 { recent.removeFirst() }
    }

    var tokensPerSecond: Double {
        let seconds = recent.reduce(0) { $0 + $1.seconds }
        return seconds > 0 ? Double(recent.reduce(0) { $0 + $1.tokens }) / seconds : 0
    }
}
