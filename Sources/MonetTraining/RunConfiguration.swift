import Foundation
import MonetCompute
import MonetFoundation
import MonetModel

/// Everything that decides a training run; a run file holds it as YAML or JSON.
public struct RunConfiguration: Sendable, Equatable {
    public var model = MonetConfiguration()
    /// The corpus folder.
    public var corpus = ""
    /// A checkpoint to start from instead of random weights.
    public var initialCheckpoint: String?
    public var sequenceLength = 256
    /// Sequences of one micro-batch.
    public var batchSize = 8
    /// Micro-batches of one step.
    public var accumulation = 1
    public var steps = 1000
    public var learningRate = 5e-4
    /// The schedule's last learning rate, as a share of the largest.
    public var finalLearningRateShare = 0.1
    public var schedule = LearningRateSchedule.Kind.cosine
    public var warmupSteps = 100
    /// WSD: the share of steps over which the rate falls at the end.
    public var decayShare = 0.2
    public var weightDecay = 0.1
    /// Whether norms and biases decay too.
    public var decaysEverything = false
    public var beta1 = 0.9
    public var beta2 = 0.95
    public var epsilon = 1e-8
    /// Largest gradient norm; 0 for no limit.
    public var gradientClip = 1.0
    public var uniformity = UniformitySource.full
    public var uniformityWeight = 1e-3
    public var ambiguityWeight = 1e-3
    public var routerMomentum = 0.1
    public var precision = ComputePrecision.bfloat16
    public var seed: UInt64 = 0
    public var logEvery = 10
    public var evaluateEvery = 100
    public var evaluationBatches = 16
    public var saveEvery = 200
    public var keepLast = 3
    /// How far the smoothed loss may rise above its lowest value.
    public var divergenceThreshold = 3.0

    /// Defaults for everything.
    public init() {}

    /// Tokens of one step.
    public var tokensPerStep: Int { sequenceLength * batchSize * accumulation }

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

    /// Names of all settings but the model's.
    public static let keys = [
        "corpus", "init_from", "sequence_length", "batch_size", "accumulation", "steps", "learning_rate",
        "final_learning_rate_share", "schedule", "warmup_steps", "decay_share", "weight_decay",
        "decay_everything",
        "beta1", "beta2", "epsilon", "gradient_clip", "uniformity", "uniformity_weight", "ambiguity_weight",
        "router_momentum", "precision", "seed", "log_every", "eval_every", "eval_batches", "save_every",
        "keep_last",
        "divergence_threshold",
    ]

    /// Changes one setting.
    public mutating func set(_ key: String, to value: JSONValue, source: String) throws {
        func fail(_ expected: String) -> TrainingError {
            .invalidSetting(source: source, key: key, found: value.serialized(), expected: expected)
        }
        func integer(_ range: ClosedRange<Int>) throws -> Int {
            guard let number = value.intValue, range.contains(number) else {
                throw fail("an integer from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        func number(_ range: ClosedRange<Double>) throws -> Double {
            guard let number = value.doubleValue, number.isFinite, range.contains(number) else {
                throw fail("a number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        func choice<Choice: RawRepresentable & CaseIterable>(_ type: Choice.Type) throws -> Choice
        where Choice.RawValue == String {
            guard let text = value.stringValue, let choice = Choice(rawValue: text) else {
                throw fail(Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or "))
            }
            return choice
        }
        func text() throws -> String {
            guard let text = value.stringValue, !text.isEmpty else { throw fail("a path") }
            return text
        }
        switch key {
        case Self.modelKey: model = try Self.model(value, source: source)
        case "corpus": corpus = try text()
        case "init_from": initialCheckpoint = value.isNull ? nil : try text()
        case "sequence_length": sequenceLength = try integer(1...1 << 20)
        case "batch_size": batchSize = try integer(1...1 << 16)
        case "accumulation": accumulation = try integer(1...1 << 16)
        case "steps": steps = try integer(1...1 << 40)
        case "learning_rate": learningRate = try number(0...10)
        case "final_learning_rate_share": finalLearningRateShare = try number(0...1)
        case "schedule": schedule = try choice(LearningRateSchedule.Kind.self)
        case "warmup_steps": warmupSteps = try integer(0...1 << 40)
        case "decay_share": decayShare = try number(0...1)
        case "weight_decay": weightDecay = try number(0...10)
        case "decay_everything":
            guard let flag = value.boolValue else { throw fail("true or false") }
            decaysEverything = flag
        case "beta1": beta1 = try number(0...0.999999)
        case "beta2": beta2 = try number(0...0.9999999)
        case "epsilon": epsilon = try number(1e-30...1)
        case "gradient_clip": gradientClip = try number(0...1e9)
        case "uniformity": uniformity = try choice(UniformitySource.self)
        case "uniformity_weight": uniformityWeight = try number(0...1e3)
        case "ambiguity_weight": ambiguityWeight = try number(0...1e3)
        case "router_momentum": routerMomentum = try number(0...1)
        case "precision": precision = try choice(ComputePrecision.self)
        case "seed": seed = UInt64(try integer(0...Int.max))
        case "log_every": logEvery = try integer(1...1 << 40)
        case "eval_every": evaluateEvery = try integer(1...1 << 40)
        case "eval_batches": evaluationBatches = try integer(1...1 << 20)
        case "save_every": saveEvery = try integer(1...1 << 40)
        case "keep_last": keepLast = try integer(1...1 << 20)
        case "divergence_threshold": divergenceThreshold = try number(0.1...1e6)
        default:
            throw TrainingError.invalidSetting(
                source: source, key: key, found: "not a setting",
                expected: "one of model, \(Self.keys.joined(separator: ", "))")
        }
    }

    /// A preset's name, or a mapping of `preset` and keys of `config.json` that change it.
    private static func model(_ value: JSONValue, source: String) throws -> MonetConfiguration {
        if let name = value.stringValue { return try MonetConfiguration.preset(name) }
        guard let members = value.members else {
            throw TrainingError.invalidSetting(
                source: source, key: modelKey, found: value.serialized(), expected: "a preset or a mapping")
        }
        let base =
            try value["preset"]?.stringValue.map { try MonetConfiguration.preset($0) } ?? MonetConfiguration()
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
        return try MonetConfiguration(json: .object(merged), file: source)
    }

    /// Checks that the settings fit together.
    public func validate(source: String) throws {
        func require(_ condition: Bool, _ key: String, _ found: String, _ expected: String) throws {
            if !condition {
                throw TrainingError.invalidSetting(source: source, key: key, found: found, expected: expected)
            }
        }
        try model.validate(file: source)
        try require(!corpus.isEmpty, "corpus", "absent", "a corpus folder")
        try require(
            sequenceLength <= model.contextLength, "sequence_length", "\(sequenceLength)",
            "at most the model's context of \(model.contextLength)")
    }

    /// The settings as a run file holds them.
    public func json() -> JSONValue {
        .object(
            ([
                ("model", model.json()), ("corpus", .string(corpus)),
                ("init_from", initialCheckpoint.map { .string($0) } ?? .null),
                ("sequence_length", .integer(sequenceLength)), ("batch_size", .integer(batchSize)),
                ("accumulation", .integer(accumulation)), ("steps", .integer(steps)),
                ("learning_rate", .number(learningRate)),
                ("final_learning_rate_share", .number(finalLearningRateShare)),
                ("schedule", .string(schedule.rawValue)), ("warmup_steps", .integer(warmupSteps)),
                ("decay_share", .number(decayShare)), ("weight_decay", .number(weightDecay)),
                ("decay_everything", .bool(decaysEverything)), ("beta1", .number(beta1)),
                ("beta2", .number(beta2)),
                ("epsilon", .number(epsilon)), ("gradient_clip", .number(gradientClip)),
                ("uniformity", .string(uniformity.rawValue)),
                ("uniformity_weight", .number(uniformityWeight)),
                ("ambiguity_weight", .number(ambiguityWeight)), ("router_momentum", .number(routerMomentum)),
                ("precision", .string(precision.rawValue)), ("seed", .integer(Int(truncatingIfNeeded: seed))),
                ("log_every", .integer(logEvery)), ("eval_every", .integer(evaluateEvery)),
                ("eval_batches", .integer(evaluationBatches)), ("save_every", .integer(saveEvery)),
                ("keep_last", .integer(keepLast)), ("divergence_threshold", .number(divergenceThreshold)),
            ] as [(String, JSONValue)]).map { .init($0.0, $0.1) })
    }
}
