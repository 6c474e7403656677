import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText

/// Everything that determines a training run; a run file stores it as YAML or JSON.
public struct RunConfiguration: Sendable, Equatable {
    public var model = MonetConfiguration()
    /// The corpus folder; empty for a run on conversations.
    public var corpus = ""
    /// Files of conversations to learn from instead of a corpus.
    public var conversations: [ConversationStream.Part] = []
    /// Files of preference pairs to learn from instead of a corpus.
    public var preferences: [ConversationStream.Part] = []
    /// β of direct preference optimization: how much a difference of log-probabilities counts.
    public var beta = 0.1
    /// How many of the conversations or pairs are held out.
    public var validationShare = 0.05
    /// Whether routers and their statistics stay as they are, so that experts keep their meaning.
    public var freezesRouters = false
    /// The share of experts that documents of a label teach, and no others: gradients of these documents reach the
    /// feed-forward layers only through them.
    public var expertsOf: [ReservedShare] = []
    /// The chat template of conversations, in place of the checkpoint's own.
    public var chatTemplate: String?
    /// What a template that writes the date takes for now, so that a run that goes on later reads the same.
    public var templateDate: Date?
    /// Whether conversations and pairs that cannot be learned are left out, instead of ending the run.
    public var skipsUnusable = false
    /// The rank of adapters of attention, which are then all that is trained; 0 to train the model itself.
    public var adapterRank = 0
    /// α of the adapters, whose change is multiplied by α / rank; 0 for twice the rank.
    public var adapterAlpha = 0.0
    /// A checkpoint to start from instead of random weights.
    public var initialCheckpoint: String?
    public var sequenceLength = 256
    /// Sequences per micro-batch.
    public var batchSize = 8
    /// Micro-batches per step.
    public var accumulation = 1
    public var steps = 1000
    public var learningRate = 5e-4
    /// The schedule's final learning rate, as a share of the peak.
    public var finalLearningRateShare = 0.1
    public var schedule = LearningRateSchedule.Kind.cosine
    public var warmupSteps = 100
    /// WSD: the share of steps over which the rate decays at the end.
    public var decayShare = 0.2
    public var weightDecay = 0.1
    /// Whether weight decay applies to norms and biases too.
    public var decaysEverything = false
    public var beta1 = 0.9
    public var beta2 = 0.95
    public var epsilon = 1e-8
    /// Norm to which gradients are clipped; 0 for no clipping.
    public var gradientClip = 1.0
    public var uniformity = UniformitySource.full
    public var uniformityWeight = 1e-3
    public var ambiguityWeight = 1e-3
    public var routerMomentum = 0.1
    public var precision = ComputePrecision.bfloat16
    /// Whether activations are computed twice instead of being kept, for a third more work.
    public var recomputesActivations = false
    /// In which form processes send each other gradients.
    public var gradientFormat = GradientFormat.float32
    /// The number of threads for which sums are divided; fewer or more threads give the same bits.
    public var shares = 4
    public var seed: UInt64 = 0
    public var logEvery = 10
    public var evaluateEvery = 100
    public var evaluationBatches = 16
    public var saveEvery = 200
    public var keepLast = 3
    /// How far the smoothed loss may rise above its lowest value.
    public var divergenceThreshold = 3.0

    /// The experts of a label.
    public struct ReservedShare: Sendable, Equatable {
        public var label: String
        /// Of all experts of a router.
        public var share: Double

        /// Joins both.
        public init(label: String, share: Double) { (self.label, self.share) = (label, share) }
    }

    /// Defaults for everything.
    public init() {}

    /// Fits settings that were not chosen to the model and the number of steps.
    ///
    /// - Sequences are as long as the model's context, 512 tokens at most.
    /// - The learning rate falls with the width d as 5e-4 · (2048 / d)^¾, from 4e-3 for 128, which suits the
    ///   published models and the small ones of this package.
    /// - A tenth of the steps warm up; a hundredth lies between reports, a tenth between evaluations, a fifth
    ///   between checkpoints, each within limits.
    ///
    /// - Processes that share a step divide its sequences into four micro-batches at least, as far as `batchSize` can be
    ///   divided, so that 1, 2 and 4 of them compute the same; otherwise each gets one. As many sequences are held out as
    ///   without them.
    ///
    /// - `given`: the keys of settings that were chosen.
    /// - `processes`: those that share a step's sequences, which may be one; nil where nobody asked for any.
    public mutating func fitDefaults(except given: Set<String>, processes: Int? = nil) {
        var fitted = self
        if let processes, !given.contains("accumulation") {
            var parts = processes
            while parts < 4 { parts *= 2 }
            if given.contains("batch_size") {
                if batchSize % parts != 0 { parts = batchSize % processes == 0 ? processes : 1 }
                (fitted.batchSize, fitted.accumulation) = (batchSize / parts, parts)
            } else {
                (fitted.batchSize, fitted.accumulation) = (max(1, batchSize / parts), parts)
            }
            // At most what a run file may say.
            fitted.evaluationBatches = min(
                1 << 20, (evaluationBatches * batchSize + fitted.batchSize - 1) / fitted.batchSize)
        }
        func fit<Value>(_ key: String, _ path: WritableKeyPath<RunConfiguration, Value>, _ value: Value) {
            if !given.contains(key) { fitted[keyPath: path] = value }
        }
        func part(_ divisor: Int, _ range: ClosedRange<Int>) -> Int {
            min(range.upperBound, max(range.lowerBound, steps / divisor))
        }
        fit("sequence_length", \.sequenceLength, min(model.contextLength, 512))
        let rate = 5e-4 * pow(2048 / Double(max(1, model.hiddenSize)), 0.75)
        // Two digits, as people write rates.
        let digits = pow(10, floor(log10(rate)) - 1)
        fit("learning_rate", \.learningRate, min(4e-3, max(3e-4, (rate / digits).rounded() * digits)))
        fit("warmup_steps", \.warmupSteps, part(10, 0...2000))
        // As many as the machine has processors, so that one process or several use all of them.
        fit("shares", \.shares, min(256, max(4, ProcessInfo.processInfo.processorCount)))
        fit("log_every", \.logEvery, part(100, 1...10))
        fit("eval_every", \.evaluateEvery, part(10, 1...1000))
        fit("save_every", \.saveEvery, part(5, 1...1000))
        self = fitted
    }

    /// Fits settings that were not chosen to the instruction tuning of a published model: the recipe of MonetLLM's chat
    /// models, one epoch of 128 packed rows of 2,048 tokens a step, and routers that stay as they are. Of little data, a
    /// step takes fewer rows, so that there are eight steps at least.
    ///
    /// - `given`: the keys of settings that were chosen.
    /// - `rows`: the packed rows of an epoch, for the number of steps.
    /// - `processes`: those that share a step's rows.
    public mutating func fitTuning(except given: Set<String>, epochs: Int, rows: Int, processes: Int = 1) {
        fitTuning(
            except: given, epochs: epochs, rows: rows, processes: processes, rowsPerStep: 128, batchSize: 4)
    }

    private mutating func fitTuning(
        except given: Set<String>, epochs: Int, rows: Int, processes: Int, rowsPerStep most: Int,
        batchSize: Int
    ) {
        var fitted = self
        func fit<Value>(_ key: String, _ path: WritableKeyPath<RunConfiguration, Value>, _ value: Value) {
            if !given.contains(key) { fitted[keyPath: path] = value }
        }
        let wanted = given.contains("steps") ? most : min(most, max(1, epochs * rows / 8))
        /// At most so many micro-batches of rows that each process gets an equal part, a power of two.
        func microBatches(of rows: Int) -> Int {
            let each = max(1, wanted / rows / processes)
            return processes << (Int.bitWidth - 1 - each.leadingZeroBitCount)
        }
        fit("batch_size", \.batchSize, wanted / batchSize >= max(4, processes) ? batchSize : 1)
        fit("accumulation", \.accumulation, microBatches(of: fitted.batchSize))
        let rowsPerStep = fitted.batchSize * fitted.accumulation
        fit("steps", \.steps, max(1, (epochs * rows + rowsPerStep - 1) / rowsPerStep))
        fit("learning_rate", \.learningRate, 3e-4)
        fit("final_learning_rate_share", \.finalLearningRateShare, 0)
        fit("warmup_steps", \.warmupSteps, fitted.steps / 10)
        fit("weight_decay", \.weightDecay, 0)
        fit("beta2", \.beta2, 0.999)
        fit("freeze_routers", \.freezesRouters, true)
        fitted.fitDefaults(
            except: given.union(["sequence_length", "learning_rate", "warmup_steps", "accumulation"]))
        self = fitted
    }

    /// Notes the time for templates that write it, unless it is noted, so that the run reads the same whenever it goes on.
    public mutating func fitTemplateDate() {
        guard readsConversations, templateDate == nil else { return }
        templateDate = Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded(.down))
    }

    /// The length of rows in the recipe, or of the model's context.
    public static func tuningLength(_ model: MonetConfiguration) -> Int { min(2048, model.contextLength) }

    /// Whether the run reads conversations or pairs of them instead of a corpus.
    public var readsConversations: Bool { !conversations.isEmpty || !preferences.isEmpty }

    /// Fits settings that were not chosen to direct preference optimization: a small learning rate, as `trl` has it, and
    /// routers that stay as they are.
    ///
    /// - `given`: the keys of settings that were chosen.
    /// - `pairs`: the pairs of an epoch, for the number of steps.
    /// - `processes`: those that share a step's pairs.
    public mutating func fitPreferences(
        except given: Set<String>, epochs: Int, pairs: Int, processes: Int = 1
    ) {
        if !given.contains("learning_rate") { learningRate = 1e-6 }
        fitTuning(
            except: given.union(["learning_rate"]), epochs: epochs, rows: pairs, processes: processes,
            rowsPerStep: 64, batchSize: 2
        )
    }

    /// Tokens per step.
    public var tokensPerStep: Int { sequenceLength * batchSize * accumulation }

    /// Bytes that the processes of a run on one machine cannot do without: weights, gradients, sums of gradients of
    /// micro-batches and moments of the optimizer in float32, and for every token of a micro-batch the values that a
    /// layer keeps for its gradient, eight of its width at least, or one if they are computed again.
    func leastMemory(processes: Int, onThisMachine neighbours: Int) -> Int {
        let own = max(1, accumulation / processes)
        let sums = Int.bitWidth - 1 - own.leadingZeroBitCount
        // Moments are divided among all processes; the first one puts them together for a checkpoint.
        let perTrained = 4 * (1 + sums) + (processes == 1 ? 8 : 8 / processes)
        let (weights, isTooMuch) = MemoryLimits.product(model.parameterCount, 4 * neighbours)
            .addingReportingOverflow(
                MemoryLimits.product(
                    trainedParameterCount, perTrained * neighbours + (processes == 1 ? 0 : 8)))
        let parameters = isTooMuch ? Int.max : weights
        let values = MemoryLimits.product(
            sequenceLength, batchSize, model.layerCount, model.hiddenSize,
            (recomputesActivations ? 1 : 8) * 4, neighbours)
        let (sum, overflow) = parameters.addingReportingOverflow(values)
        return overflow ? .max : sum
    }

    private static let modelKey = "model"

    /// Reads a parsed run file; `source` names it in errors.
    ///
    /// - Throws: `TrainingError.invalidSetting`, `ModelError`.
    public init(json: JSONValue, source: String) throws {
        guard let members = json.members else {
            throw TrainingError.invalidSetting(
                source: source, key: "", found: json.kind, expected: "a mapping")
        }
        for member in members { try set(member.key, to: member.value, source: source) }
        try validate(source: source)
    }

    /// Reads settings in the form that `json()` gives. Their model is whole, with whatever else its checkpoint's
    /// `config.json` says.
    ///
    /// - Throws: `TrainingError.invalidSetting`, `ModelError`.
    public init(stored json: JSONValue, source: String) throws {
        guard let members = json.members else {
            throw TrainingError.invalidSetting(
                source: source, key: "", found: json.kind, expected: "a mapping")
        }
        for member in members {
            if member.key == Self.modelKey, member.value.members != nil {
                model = try MonetConfiguration(json: member.value, file: source)
            } else {
                try set(member.key, to: member.value, source: source)
            }
        }
        try validate(source: source)
    }

    /// Changes one setting.
    ///
    /// - Throws: `TrainingError.invalidSetting`, `ModelError`.
    public mutating func set(_ key: String, to value: JSONValue, source: String) throws {
        if key == Self.modelKey {
            model = try Self.model(value, source: source)
            return
        }
        guard let setting = RunSetting.all.first(where: { $0.key == key }) else {
            throw TrainingError.invalidSetting(
                source: source, key: key, found: "not a setting",
                expected: "one of model, \(RunSetting.all.map(\.key).joined(separator: ", "))")
        }
        if let expected = setting.write(&self, value) {
            // JSON has no text for NaN and infinities, which YAML can hold.
            var found = value.serialized()
            if case .number(let number) = value, !number.isFinite { found = "\(number)" }
            throw TrainingError.invalidSetting(source: source, key: key, found: found, expected: expected)
        }
    }

    /// A preset's name, or a mapping of `preset` and the keys of `config.json` to change.
    private static func model(_ value: JSONValue, source: String) throws -> MonetConfiguration {
        if let name = value.stringValue { return try MonetConfiguration.preset(name) }
        guard let members = value.members else {
            throw TrainingError.invalidSetting(
                source: source, key: modelKey, found: value.serialized(), expected: "a preset or a mapping")
        }
        var base = MonetConfiguration()
        if let preset = value["preset"] {
            guard let name = preset.stringValue else {
                throw TrainingError.invalidSetting(
                    source: source, key: modelKey + ".preset", found: preset.serialized(),
                    expected: "one of \(MonetConfiguration.presetNames.joined(separator: ", "))")
            }
            base = try MonetConfiguration.preset(name)
        } else if members.isEmpty {
            throw TrainingError.invalidSetting(
                source: source, key: modelKey, found: "an empty mapping", expected: "a preset or sizes")
        }
        var merged = base.json().members ?? []
        for member in members where member.key != "preset" {
            if let index = merged.firstIndex(where: { $0.key == member.key }) {
                merged[index] = member
            } else {
                guard member.key == "head_dim" else {
                    throw TrainingError.invalidSetting(
                        source: source, key: "model.\(member.key)",
                        found: "not a key of config.json for this model",
                        expected: "one of \(merged.map(\.key).joined(separator: ", "))")
                }
                merged.append(member)
            }
        }
        var result = try MonetConfiguration(json: .object(merged), file: source)
        // Keys of the model that the mapping began with, which another family does not have.
        result.otherMembers.removeAll { other in !members.contains { $0.key == other.key } }
        return result
    }

    /// Checks that the settings fit together.
    public func validate(source: String) throws {
        func require(_ condition: Bool, _ key: String, _ found: String, _ expected: String) throws {
            if !condition {
                throw TrainingError.invalidSetting(source: source, key: key, found: found, expected: expected)
            }
        }
        try model.validate(file: source)
        try require(
            corpus.isEmpty || !readsConversations, "corpus", corpus,
            "none: \"\(conversations.isEmpty ? "preferences" : "data")\" names what to learn")
        try require(!corpus.isEmpty || readsConversations, "corpus", "absent", "a corpus folder")
        try require(
            conversations.isEmpty || preferences.isEmpty, "preferences", "\(preferences.map(\.path))",
            "none beside \"data\": pairs are learned after conversations, in a run of their own")
        for (key, parts) in [("data", conversations), ("preferences", preferences)] {
            // Under whatever names: a file in two places is held out of one and learned in the other.
            let files = parts.map { URL(fileURLWithPath: $0.path).resolvingSymlinksInPath().path }
            if let twice = files.indices.first(where: { files[..<$0].contains(files[$0]) }) {
                try require(
                    false, key, parts[twice].path, "each file once; its weight says how often it is used")
            }
        }
        try require(
            !readsConversations || initialCheckpoint != nil, "init_from", "absent",
            "the chat model's checkpoint, whose template conversations need")
        try require(
            adapterRank == 0 || initialCheckpoint != nil, "lora_rank", "\(adapterRank)",
            "0 without a checkpoint to start from, whose attention adapters change")
        try require(
            adapterRank == 0 || expertsOf.isEmpty, "lora_rank", "\(adapterRank)",
            "0 with \"experts_of\": experts stay as they are")
        // Their checkpoints have no routers, and of pairs both models are compared with the same statistics.
        for (key, isSet) in [("lora_rank", adapterRank > 0), ("preferences", !preferences.isEmpty)] {
            try require(!isSet || freezesRouters, "freeze_routers", "false", "true with \"\(key)\"")
        }
        if let chatTemplate {
            try require(
                readsConversations, "chat_template", "a template", "none: a corpus has no conversations")
            do { _ = try ChatTemplate(chatTemplate) } catch let error as TextError {
                try require(false, "chat_template", "\(error)", "a Jinja template")
            }
        }
        try require(
            expertsOf.isEmpty || model.experts != nil, "experts_of", "\(expertsOf.map(\.label))",
            "none: this model has no experts")
        try require(
            expertsOf.isEmpty || !readsConversations, "experts_of", "\(expertsOf.map(\.label))",
            "none: conversations have no labels")
        do { _ = try reservedExperts() } catch let error as ModelError {
            try require(false, "experts_of", "\(expertsOf.map(\.label))", "fewer: \(error)")
        }
        try require(
            sequenceLength <= model.contextLength, "sequence_length", "\(sequenceLength)",
            "at most the model's context of \(model.contextLength)")
    }

    /// The adapters that the run trains; nil if it trains the model itself.
    public func adapters() throws -> LowRankAdapters? {
        guard adapterRank > 0 else { return nil }
        return try LowRankAdapters(
            rank: adapterRank, alpha: adapterAlpha > 0 ? adapterAlpha : 2 * Double(adapterRank))
    }

    /// Parameters that the run changes, and routers that it may not.
    var trainedParameterCount: Int {
        (try? adapters()).flatMap { $0 }.map { $0.parameterCount(model) } ?? model.parameterCount
    }

    /// The experts of each label that has some; nil if none has.
    ///
    /// - Throws: `ModelError.invalidInput` if there are too few.
    public func reservedExperts() throws -> ReservedExperts? {
        guard !expertsOf.isEmpty, let experts = model.experts else { return nil }
        return try ReservedExperts(
            shares: expertsOf.map { ($0.label, $0.share) }, perSide: experts.perSide)
    }

    /// Checks that processes can share the micro-batches of a step so that the sum of gradients does not depend on
    /// their number.
    ///
    /// - Throws: `TrainingError.invalidSetting`.
    func requireShares(_ processes: Int) throws {
        guard !SummationTree.divides(accumulation, among: processes) else { return }
        throw TrainingError.invalidSetting(
            source: "run", key: "accumulation", found: "\(accumulation) micro-batches a step",
            expected:
                "\(processes) processes times a power of two, such as \(processes) or \(2 * processes), with a "
                + "batch_size that is as much smaller (now \(batchSize))")
    }

    /// The settings in the form of a run file.
    public func json() -> JSONValue {
        .object(
            [.init(Self.modelKey, model.json())] + RunSetting.all.map { .init($0.key, $0.read(self)) })
    }
}
