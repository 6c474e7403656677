import ArgumentParser
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText
import MonetTraining

struct TuneCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tune",
        abstract: "Tune a model on conversations, with routers that stay as they are.",
        discussion: """
            EXAMPLES
              monet tune --model checkpoints/base --data chat.jsonl --out runs/chat
              monet tune --model checkpoints/base --data chat.jsonl --data code.jsonl=0.5 --epochs 2 --out runs/chat
              monet tune --resume --out runs/chat

            Conversations are JSONL: "messages" of "role" and "content", ShareGPT's "conversations", or Alpaca's \
            "instruction", "input" and "output". FILE=0.5 uses half of a file, FILE=2 all of it twice. The \
            checkpoint's chat template writes them as text; the loss counts what the assistant says. Rows of about \
            equal length hold several conversations, of which none attends to another.

            Routers and their statistics are frozen, so that experts keep their meaning and an expert index of the \
            model stays valid as far as the same experts are selected, which the command reports. Learning rate, \
            warm-up and batch are those of MonetLLM's chat models unless flags say otherwise (--set \
            freeze_routers=false trains routers too).
            """)

    @Option(
        name: [.customShort("m"), .long], help: ArgumentHelp("The model to tune.", valueName: "checkpoint"))
    var model: String?
    @Option(
        help: ArgumentHelp("A file of conversations; may be repeated.", valueName: "file[=weight]"))
    var data: [String] = []
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The run's folder.", valueName: "dir"))
    var out: String
    @Flag(help: "Continue the run in the folder from its last checkpoint.")
    var resume = false
    @Option(help: "How often all conversations are used, unless --steps says how many steps to take.")
    var epochs = 1
    @OptionGroup var settings: RunSettingOptions
    @OptionGroup var processes: ProcessOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(1...1000).contains(epochs) { throw ValidationError("--epochs is \(epochs), expected 1 to 1000") }
        if resume, model != nil || !data.isEmpty {
            throw ValidationError(
                "A run that is resumed keeps its model and its data; --resume takes neither.")
        }
        if !resume, model == nil || data.isEmpty {
            throw ValidationError("--model and --data are needed, or --resume")
        }
    }

    func run() throws {
        try processes.run(resumeCommand: resumeCommand) { try tune($0) }
    }

    private var resumeCommand: String { "monet tune --resume --out \(out)" }

    private func tune(_ communicator: any Communicator) throws {
        let directory = RunDirectory(path: out)
        var configuration = try resume ? directory.configuration() : newConfiguration()
        if resume { try apply(to: &configuration) }
        let job = TrainingJob(
            directory: directory, resuming: resume, threads: processes.threads, isQuiet: common.quiet,
            resumeCommand: resumeCommand)
        guard let checkpoint = try job.run(configuration, communicator), communicator.isFirst else { return }
        try reportRouting(configuration, checkpoint)
        try StandardOutput.write(checkpoint + "\n")
    }

    private func newConfiguration() throws -> RunConfiguration {
        var configuration = RunConfiguration()
        let folder = try HubCache().resolve(model ?? "")
        configuration.initialCheckpoint = folder
        configuration.model = try Checkpoint.configuration(folder)
        configuration.conversations = try data.map(Self.part)
        configuration.sequenceLength = RunConfiguration.tuningLength(configuration.model)
        try apply(to: &configuration)
        let stream = try ConversationStream(
            configuration.conversations, encoder: ConversationEncoder(Tokenizer(folder: folder)),
            length: configuration.sequenceLength, batchSize: 1,
            validationShare: configuration.validationShare,
            seed: configuration.seed)
        configuration.fitTuning(
            except: Set(try settings.values().map(\.0)), epochs: epochs, rows: stream.rowCount)
        if !common.quiet {
            var text =
                "\(stream.conversationCount.grouped) conversations in \(stream.rowCount.grouped) rows, "
                + "\(stream.targetCount.grouped) tokens of the assistant"
            if stream.truncated > 0 {
                text += "; \(stream.truncated.grouped) cut to \(configuration.sequenceLength) tokens"
            }
            if stream.skipped > 0 { text += "; \(stream.skipped.grouped) left out, too long" }
            StandardError.write(text + "\n")
        }
        return configuration
    }

    private func apply(to configuration: inout RunConfiguration) throws {
        for (key, value) in try settings.values() {
            try configuration.set(key, to: value, source: "--\(key)")
        }
    }

    /// A file, with its weight after the last equals sign if a number stands there.
    private static func part(_ argument: String) throws -> ConversationStream.Part {
        guard let place = argument.lastIndex(of: "="),
            let weight = Double(argument[argument.index(after: place)...])
        else { return .init(path: argument) }
        guard weight > 0, weight <= 1000 else {
            throw ValidationError(
                "--data \(argument): the weight is \(weight), expected more than 0, at most 1000")
        }
        return .init(path: String(argument[..<place]), weight: weight)
    }

    /// Says how many of the experts that the model selected before are still selected, on held-out conversations or,
    /// without any, on those learned.
    private func reportRouting(_ configuration: RunConfiguration, _ checkpoint: String) throws {
        guard let start = configuration.initialCheckpoint, configuration.model.experts != nil else { return }
        let stream = try ConversationStream(
            configuration.conversations, encoder: ConversationEncoder(Tokenizer(folder: start)),
            length: configuration.sequenceLength, batchSize: 1,
            validationShare: configuration.validationShare,
            seed: configuration.seed)
        let held = stream.validationBatches(limit: 16)
        let sequences = (held.isEmpty ? (0..<min(16, stream.rowCount)).map { stream.batch(from: $0) } : held)
            .flatMap(\.inputs)
        let backend = try ComputeOptions.backend(threads: processes.threads)
        func subject(_ path: String) throws -> UnlearningSubject {
            UnlearningSubject(
                name: path, model: try MonetLanguageModel.load(path, on: backend),
                tokenizer: try Tokenizer(folder: start), backend: backend)
        }
        guard
            let stability = try RoutingStability(
                of: sequences, before: subject(start), after: subject(checkpoint), step: {})
        else { return }
        try AtomicFile.write(
            JSONValue.object([
                .init("tokens", .integer(sequences.reduce(0) { $0 + $1.count })),
                .init("selected_as_before", .number(stability.mean)),
                .init("by_router", .array(stability.routers.map { .number($0) })),
            ]).serialized(pretty: true) + "\n", to: out + "/routing.json")
        if !common.quiet {
            StandardError.write(
                "\((100 * stability.mean).text(1))% of the experts that the model selected before are selected as "
                    + "before (\(held.isEmpty ? "conversations learned" : "held-out conversations")); an expert "
                    + "index of the model is valid for the tuned one to that degree\n")
        }
    }
}
