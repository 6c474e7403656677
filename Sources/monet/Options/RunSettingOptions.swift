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
    @Option(help: "Tokens of a sequence.")
    var sequenceLength: Int?
    @Option(help: "Sequences of a micro-batch.")
    var batchSize: Int?
    @Option(help: "Micro-batches of a step.")
    var accumulation: Int?
    @Option(help: "Steps in all.")
    var steps: Int?
    @Option(name: [.customLong("learning-rate"), .customLong("lr")], help: "The largest learning rate.")
    var learningRate: Double?
    @Option(help: "cosine, wsd or constant.")
    var schedule: LearningRateSchedule.Kind?
    @Option(help: "Steps of the warm-up.")
    var warmupSteps: Int?
    @Option(help: "Decoupled decay, on matrices only.")
    var weightDecay: Double?
    @Option(help: "Largest gradient norm; 0 for no limit.")
    var gradientClip: Double?
    @Option(help: "Weight of the uniformity loss.")
    var uniformityWeight: Double?
    @Option(help: "Weight of the ambiguity loss.")
    var ambiguityWeight: Double?
    @Option(help: "Precision of dense products: float32 or bfloat16.")
    var dtype: String?
    @Option(help: "Decides weights and order of batches.")
    var seed: Int?
    @Option(help: "Steps between lines of the log.")
    var logEvery: Int?
    @Option(help: "Steps between evaluations.")
    var evalEvery: Int?
    @Option(help: "Steps between checkpoints.")
    var saveEvery: Int?
    @Option(help: "Checkpoints kept, beside the best.")
    var keepLast: Int?
    @Option(
        name: .customLong("set"),
        help: ArgumentHelp("Any setting, as beta2=0.99; may be repeated.", valueName: "key=value"))
    var assignments: [String] = []

    /// The settings given, by their names in run files.
    func values() throws -> [(String, JSONValue)] {
        func integer(_ value: Int?) -> JSONValue? { value.map { .integer($0) } }
        func number(_ value: Double?) -> JSONValue? { value.map { .number($0) } }
        func text(_ value: String?) -> JSONValue? { value.map { .string($0) } }
        let named: [(String, JSONValue?)] = [
            ("corpus", text(corpus)), ("init_from", text(initFrom)),
            ("sequence_length", integer(sequenceLength)),
            ("batch_size", integer(batchSize)), ("accumulation", integer(accumulation)),
            ("steps", integer(steps)),
            ("learning_rate", number(learningRate)), ("schedule", text(schedule?.rawValue)),
            ("warmup_steps", integer(warmupSteps)), ("weight_decay", number(weightDecay)),
            ("gradient_clip", number(gradientClip)), ("uniformity_weight", number(uniformityWeight)),
            ("ambiguity_weight", number(ambiguityWeight)), ("precision", text(dtype)),
            ("seed", integer(seed)),
            ("log_every", integer(logEvery)), ("eval_every", integer(evalEvery)),
            ("save_every", integer(saveEvery)),
            ("keep_last", integer(keepLast)),
        ]
        return named.compactMap { key, value in value.map { (key, $0) } } + (try assignments.map(Self.parse))
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
