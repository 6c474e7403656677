import Foundation
import MonetCompute
import MonetFoundation
import MonetText

/// One setting of a run file: its key, how it is read with a check of its range, and how it is written. Run
/// files, `--set` and `run.json` share the list of all settings.
public struct RunSetting: Sendable {
    /// The name in run files.
    public let key: String
    let read: @Sendable (RunConfiguration) -> JSONValue
    /// Sets a value; returns what was expected if it is invalid.
    let write: @Sendable (inout RunConfiguration, JSONValue) -> String?

    /// All settings except the model's, in the order of files.
    public static let all: [RunSetting] = [
        RunSetting("corpus") {
            .string($0.corpus)
        } write: { run, value in
            guard let text = value.stringValue else { return "a path" }
            run.corpus = text
            return nil
        },
        files("data", of: "conversations", \.conversations),
        files("preferences", of: "preference pairs", \.preferences),
        number("beta", \.beta, 1e-6...1e3),
        number("validation_share", \.validationShare, 0...0.9),
        RunSetting("chat_template") {
            $0.chatTemplate.map { .string($0) } ?? .null
        } write: { run, value in
            if !value.isNull, value.stringValue?.isEmpty ?? true { return "the text of a template" }
            run.chatTemplate = value.stringValue
            return nil
        },
        RunSetting("template_date") {
            $0.templateDate.map { .string($0.ISO8601Format()) } ?? .null
        } write: { run, value in
            let date = value.stringValue.flatMap { try? Date($0, strategy: .iso8601) }
            if !value.isNull, date == nil { return "a time such as 2026-11-30T12:00:00Z" }
            run.templateDate = date
            return nil
        },
        flag("skip_unusable", \.skipsUnusable),
        flag("freeze_routers", \.freezesRouters),
        integer("lora_rank", \.adapterRank, 0...1 << 16),
        number("lora_alpha", \.adapterAlpha, 0...1e6),
        RunSetting("experts_of") {
            .object($0.expertsOf.map { .init($0.label, .number($0.share)) })
        } write: { run, value in
            let expected = "a mapping of labels to shares of the experts, above 0 and at most 0.5"
            guard let members = value.isNull ? [] : value.members else { return expected }
            var shares: [RunConfiguration.ReservedShare] = []
            for member in members {
                guard let share = member.value.doubleValue, share > 0, share <= 0.5, !member.key.isEmpty,
                    !shares.contains(where: { $0.label == member.key })
                else { return expected }
                shares.append(.init(label: member.key, share: share))
            }
            run.expertsOf = shares
            return nil
        },
        RunSetting("init_from") {
            $0.initialCheckpoint.map { .string($0) } ?? .null
        } write: { run, value in
            if !value.isNull, value.stringValue?.isEmpty ?? true { return "a path" }
            run.initialCheckpoint = value.stringValue
            return nil
        },
        integer("sequence_length", \.sequenceLength, 1...1 << 20),
        integer("batch_size", \.batchSize, 1...1 << 16),
        integer("accumulation", \.accumulation, 1...1 << 16),
        integer("steps", \.steps, 1...1 << 40),
        number("learning_rate", \.learningRate, 0...10),
        number("final_learning_rate_share", \.finalLearningRateShare, 0...1),
        choice("schedule", \.schedule),
        integer("warmup_steps", \.warmupSteps, 0...1 << 40),
        number("decay_share", \.decayShare, 0...1),
        number("weight_decay", \.weightDecay, 0...10),
        flag("decay_everything", \.decaysEverything),
        number("beta1", \.beta1, 0...0.999999),
        number("beta2", \.beta2, 0...0.9999999),
        number("epsilon", \.epsilon, 1e-30...1),
        number("gradient_clip", \.gradientClip, 0...1e9),
        choice("uniformity", \.uniformity),
        number("uniformity_weight", \.uniformityWeight, 0...1e3),
        number("ambiguity_weight", \.ambiguityWeight, 0...1e3),
        number("router_momentum", \.routerMomentum, 0...1),
        choice("precision", \.precision),
        flag("activation_checkpointing", \.recomputesActivations),
        choice("gradient_exchange", \.gradientFormat),
        integer("shares", \.shares, 1...1024),
        RunSetting("seed") {
            .integer(Int(truncatingIfNeeded: $0.seed))
        } write: { run, value in
            guard let seed = value.intValue, seed >= 0 else { return "an integer from 0 to \(Int.max)" }
            run.seed = UInt64(seed)
            return nil
        },
        integer("log_every", \.logEvery, 1...1 << 40),
        integer("eval_every", \.evaluateEvery, 1...1 << 40),
        integer("eval_batches", \.evaluationBatches, 1...1 << 20),
        integer("save_every", \.saveEvery, 1...1 << 40),
        integer("keep_last", \.keepLast, 1...1 << 20),
        number("divergence_threshold", \.divergenceThreshold, 0.1...1e6),
    ]

    private init(
        _ key: String, read: @escaping @Sendable (RunConfiguration) -> JSONValue,
        write: @escaping @Sendable (inout RunConfiguration, JSONValue) -> String?
    ) {
        self.key = key
        self.read = read
        self.write = write
    }

    private typealias Path<Value> = WritableKeyPath<RunConfiguration, Value> & Sendable

    /// Files with the weight of each.
    private static func files(
        _ key: String, of content: String, _ path: Path<[ConversationStream.Part]>
    ) -> RunSetting {
        RunSetting(key) {
            .object($0[keyPath: path].map { .init($0.path, .number($0.weight)) })
        } write: { run, value in
            let expected = "a file of \(content), a list of them, or a mapping of files to weights above 0"
            var parts: [ConversationStream.Part] = []
            if let file = value.stringValue {
                parts = [.init(path: file)]
            } else if let files = value.arrayValue {
                for file in files {
                    guard let file = file.stringValue else { return expected }
                    parts.append(.init(path: file))
                }
            } else if let members = value.members {
                for member in members {
                    guard let weight = member.value.doubleValue, weight > 0, weight <= 1000 else {
                        return expected
                    }
                    parts.append(.init(path: member.key, weight: weight))
                }
            } else if !value.isNull {
                return expected
            }
            guard parts.allSatisfy({ !$0.path.isEmpty }) else { return expected }
            run[keyPath: path] = parts
            return nil
        }
    }

    private static func flag(_ key: String, _ path: Path<Bool>) -> RunSetting {
        RunSetting(key) {
            .bool($0[keyPath: path])
        } write: { run, value in
            guard let flag = value.boolValue else { return "true or false" }
            run[keyPath: path] = flag
            return nil
        }
    }

    private static func integer(_ key: String, _ path: Path<Int>, _ range: ClosedRange<Int>) -> RunSetting {
        RunSetting(key) {
            .integer($0[keyPath: path])
        } write: { run, value in
            guard let number = value.intValue, range.contains(number) else {
                return "an integer from \(range.lowerBound) to \(range.upperBound)"
            }
            run[keyPath: path] = number
            return nil
        }
    }

    private static func number(_ key: String, _ path: Path<Double>, _ range: ClosedRange<Double>)
        -> RunSetting
    {
        RunSetting(key) {
            .number($0[keyPath: path])
        } write: { run, value in
            guard let number = value.doubleValue, number.isFinite, range.contains(number) else {
                return "a number from \(range.lowerBound) to \(range.upperBound)"
            }
            run[keyPath: path] = number
            return nil
        }
    }

    private static func choice<Choice: RawRepresentable & CaseIterable & Sendable>(
        _ key: String, _ path: Path<Choice>
    ) -> RunSetting where Choice.RawValue == String {
        RunSetting(key) {
            .string($0[keyPath: path].rawValue)
        } write: { run, value in
            guard let choice = value.stringValue.flatMap({ Choice(rawValue: $0) }) else {
                return Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: " or ")
            }
            run[keyPath: path] = choice
            return nil
        }
    }
}
