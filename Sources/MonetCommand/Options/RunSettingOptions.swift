import ArgumentParser
import Foundation
import MonetFoundation
import MonetTraining

/// Flags that override a run file.
struct RunSettingOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The corpus folder.", valueName: "dir"))
    var corpus: String?
    @Option(help: ArgumentHelp("A checkpoint to start from.", valueName: "dir"))
    var initFrom: String?
    @Option(help: "Tokens per sequence.")
    var sequenceLength: Int?
    @Option(help: "Sequences per micro-batch.")
    var batchSize: Int?
    @Option(help: "Micro-batches per step.")
    var accumulation: Int?
    @Option(help: "Total number of steps.")
    var steps: Int?
    @Option(name: [.customLong("learning-rate"), .customLong("lr")], help: "The peak learning rate.")
    var learningRate: Double?
    @Option(help: "Learning rate schedule: cosine, wsd or constant.")
    var schedule: LearningRateSchedule.Kind?
    @Option(help: "Warm-up steps.")
    var warmupSteps: Int?
    @Option(help: "Decoupled weight decay, on matrices only.")
    var weightDecay: Double?
    @Option(help: "Norm to which gradients are clipped; 0 for no clipping.")
    var gradientClip: Double?
    @Option(help: "Weight of the uniformity loss.")
    var uniformityWeight: Double?
    @Option(help: "Weight of the ambiguity loss.")
    var ambiguityWeight: Double?
    @Option(help: "Precision of dense matrix products: float32 or bfloat16.")
    var dtype: String?
    @Option(help: "Seed of the initial weights and the order of batches.")
    var seed: Int?
    @Option(help: "Steps between log lines.")
    var logEvery: Int?
    @Option(help: "Steps between evaluations.")
    var evalEvery: Int?
    @Option(help: "Steps between checkpoints.")
    var saveEvery: Int?
    @Option(help: "Number of checkpoints to keep in addition to the best.")
    var keepLast: Int?
    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("Any setting, such as beta2=0.99; may be repeated.", valueName: "key=value"))
    var assignments: [String] = []

    /// The settings given, by their names in run files: each option's own, in snake case.
    func values() throws -> [(String, JSONValue)] {
        let named = Mirror(reflecting: self).children.compactMap { child -> (String, JSONValue)? in
            // Stored as `_batchSize`, the wrapper of `batchSize`.
            guard let label = child.label?.dropFirst(), let json = (child.value as? any SettingOption)?.json
            else { return nil }
            let key = label.reduce(into: "") { $0 += $1.isUppercase ? "_" + $1.lowercased() : "\($1)" }
            return (key == "dtype" ? "precision" : key, json)
        }
        return named + (try assignments.map(Self.parse))
    }

    private static func parse(_ assignment: String) throws -> (String, JSONValue) {
        guard let place = assignment.firstIndex(of: "=") else {
            throw ValidationError("--set \(assignment): expected key=value")
        }
        let text = String(assignment[assignment.index(after: place)...])
        // Numbers, booleans and mappings as JSON; anything else is text.
        let value = (try? JSONValue(parsing: text, source: "--set")) ?? .string(text)
        return (String(assignment[..<place]), value)
    }
}

extension LearningRateSchedule.Kind: ExpressibleByArgument {}

/// An option that holds a setting's value, if it was given.
private protocol SettingOption {
    var json: JSONValue? { get }
}

extension Option: SettingOption {
    fileprivate var json: JSONValue? {
        switch wrappedValue as Any {
        case let value as Int: .integer(value)
        case let value as Double: .number(value)
        case let value as String: .string(value)
        case let value as LearningRateSchedule.Kind: .string(value.rawValue)
        default: nil
        }
    }
}
