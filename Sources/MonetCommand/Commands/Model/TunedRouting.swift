import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining

/// How many of the experts that a model selected before tuning are still selected.
struct TunedRouting {
    private let stability: RoutingStability
    private let tokens: Int
    /// Whether the texts were held out of training.
    private let isHeldOut: Bool
    private let areRoutersFrozen: Bool

    /// Compares the model that a run started from with its checkpoint, on held-out texts of the run or, without any, on
    /// those learned; nil for a model without experts.
    init?(_ run: RunConfiguration, _ checkpoint: String, threads: Int?) throws {
        guard let start = run.initialCheckpoint, run.model.experts != nil else { return nil }
        let tokenizer = try Tokenizer(folder: start)
        let source: any BatchSource =
            run.preferences.isEmpty
            ? try ConversationStream(run, tokenizer, batchSize: 1)
            : try PreferenceStream(run, tokenizer, batchSize: 1)
        let held = source.validationBatches(limit: 16)
        let sequences = Set(
            (held.isEmpty ? (0..<16).map { source.batch(from: $0) } : held).flatMap(\.inputs))
        let backend = try ComputeOptions.backend(threads: threads)
        func subject(_ path: String) throws -> UnlearningSubject {
            UnlearningSubject(
                name: path, model: try MonetLanguageModel.load(path, on: backend), tokenizer: tokenizer,
                backend: backend)
        }
        guard
            let stability = try RoutingStability(
                of: sequences.sorted { $0.lexicographicallyPrecedes($1) }, before: subject(start),
                after: subject(checkpoint), step: {})
        else { return nil }
        self.stability = stability
        tokens = sequences.reduce(0) { $0 + $1.count }
        isHeldOut = !held.isEmpty
        areRoutersFrozen = run.freezesRouters
    }

    /// Notes it in the run's folder.
    func write(to run: String) throws {
        try AtomicFile.write(
            JSONValue.object([
                .init("tokens", .integer(tokens)), .init("selected_as_before", .number(stability.mean)),
                .init("by_router", .array(stability.routers.map { .number($0) })),
            ]).serialized(pretty: true) + "\n", to: run + "/routing.json")
    }

    /// Notes it in the checkpoint, for whoever uses an index of the model with it.
    func note(in checkpoint: String) throws {
        guard var origin = try TunedOrigin(folder: checkpoint) else { return }
        origin.selectedAsBefore = stability.mean
        try origin.write(to: checkpoint)
    }

    var text: String {
        "\((100 * stability.mean).text(1))% of the experts that the model selected before are selected as before "
            + "(\(isHeldOut ? "held-out conversations" : "conversations learned")); "
            + (areRoutersFrozen
                ? "an expert index of the model is valid for the tuned one to that degree\n"
                : "routers were trained, so that the tuned model needs an index and masks of its own\n")
    }
}
