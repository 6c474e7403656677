import ArgumentParser
import Foundation
import MonetCompute
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
              monet tune --model checkpoints/base --data chat.jsonl --lora-rank 16 --merge --out runs/lora
              monet tune --model runs/chat/latest --preferences pairs.jsonl --out runs/preferred
              monet tune --resume --out runs/chat

            Conversations are JSONL, or one list in JSON: "messages" of "role" and "content", ShareGPT's "conversations", or Alpaca's \
            "instruction", "input" and "output". FILE=0.5 uses half of a file, FILE=2 all of it twice. The \
            checkpoint's chat template writes them as text; the loss counts what the assistant says. Rows of about \
            equal length hold several conversations, of which none attends to another.

            Routers and their statistics are frozen, so that experts keep their meaning and an expert index of the \
            model stays valid as far as the same experts are selected, which the command reports. Learning rate, \
            warm-up and batch are those of MonetLLM's chat models unless flags say otherwise (--set \
            freeze_routers=false trains routers too).

            --preferences learns from pairs of answers by direct preference optimization, usually as the second \
            stage: "prompt", "chosen" and "rejected", each a text or a list of messages. Of both answers, the \
            model is compared with what it was before the run; --beta says how much a difference counts.

            --lora-rank trains adapters of attention alone. Checkpoints then hold these in peft's layout, with the \
            name of the model that they change; every command reads them. --merge also writes the whole model to \
            OUT/merged.
            """)

    @Option(
        name: [.customShort("m"), .long], help: ArgumentHelp("The model to tune.", valueName: "checkpoint"))
    var model: String?
    @Option(
        help: ArgumentHelp("A file of conversations; may be repeated.", valueName: "file[=weight]"))
    var data: [String] = []
    @Option(
        help: ArgumentHelp("A file of preference pairs; may be repeated.", valueName: "file[=weight]"))
    var preferences: [String] = []
    @Option(help: "Preferences: how much a difference of log-probabilities counts. (default: 0.1)")
    var beta: Double?
    @Option(
        help: ArgumentHelp(
            "A Jinja template for a model that has none, or another one; the tuned model keeps it.",
            valueName: "file"))
    var chatTemplate: String?
    @Option(help: "Train adapters of this rank instead of the model.")
    var loraRank: Int?
    @Option(help: "The adapters' alpha. (default: twice the rank)")
    var loraAlpha: Double?
    @Flag(help: "Adapters: also write the model with them to OUT/merged.")
    var merge = false
    @Flag(
        help: "Leave out conversations and pairs that cannot be learned, and count them, instead of stopping."
    )
    var skipUnusable = false
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The run's folder.", valueName: "dir"))
    var out: String
    @Flag(help: "Continue the run in the folder from its last checkpoint.")
    var resume = false
    @Option(
        help: "How often all conversations are used, unless --steps says how many steps to take. (default: 1)"
    )
    var epochs: Int?
    @OptionGroup var settings: RunSettingOptions
    @OptionGroup var processes: ProcessOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if let epochs, !(1...1000).contains(epochs) {
            throw ValidationError("--epochs is \(epochs), expected 1 to 1000")
        }
        if resume,
            model != nil || !data.isEmpty || !preferences.isEmpty || chatTemplate != nil || epochs != nil
        {
            throw ValidationError(
                "A run that is resumed keeps its model and its data; --resume takes neither. To train longer, give --steps instead of --epochs."
            )
        }
        for (key, _) in try settings.values() {
            guard let option = Self.sources[key] else { continue }
            throw ValidationError(
                "tune takes no \(key)"
                    + (resume ? ": a run that is resumed keeps it" : ", expected \(option)"))
        }
        if !resume, model == nil || data.isEmpty && preferences.isEmpty {
            throw ValidationError("--model and --data or --preferences are needed, or --resume")
        }
        if !data.isEmpty, !preferences.isEmpty {
            throw ValidationError("--data and --preferences are two stages, each a run of its own")
        }
        if beta != nil, !resume, preferences.isEmpty {
            throw ValidationError("--beta needs --preferences: it says how much their differences count")
        }
        if loraAlpha != nil, !resume, loraRank ?? 0 == 0 {
            throw ValidationError("--lora-alpha needs --lora-rank: there are no adapters without a rank")
        }
        if merge, !resume, loraRank ?? 0 == 0 {
            throw ValidationError("--merge needs --lora-rank: without adapters there is nothing to merge")
        }
    }

    /// Settings that name models and texts, with the options that do so here.
    private static let sources = [
        "corpus": "--data or --preferences", "data": "--data", "preferences": "--preferences",
        "init_from": "--model", "model": "--model", "chat_template": "--chat-template",
    ]

    func run() throws {
        try processes.run(resumeCommand: resumeCommand) { try tune($0) }
    }

    private var resumeCommand: String { "monet tune --resume --out \(out)" }

    private func tune(_ communicator: any Communicator) throws {
        let directory = RunDirectory(path: out)
        let configuration = try resume ? resumed(directory) : newConfiguration(directory, communicator)
        let job = TrainingJob(
            directory: directory, resuming: resume, threads: processes.threads, isQuiet: common.quiet,
            resumeCommand: resumeCommand)
        guard let checkpoint = try job.run(configuration, communicator), communicator.isFirst else { return }
        if let routing = try TunedRouting(configuration, checkpoint, threads: processes.threads) {
            try routing.write(to: out)
            try routing.note(in: checkpoint)
            if !common.quiet { StandardError.write(routing.text) }
        }
        // The best checkpoint, by loss on what is held out, may be an earlier one.
        let best = (out + "/best").withoutLink
        if best.lastPathName != checkpoint.lastPathName, FileManager.default.fileExists(atPath: best) {
            try TunedRouting(configuration, best, threads: processes.threads)?.note(in: best)
        }
        if merge, configuration.adapterRank > 0 { try writeMerged(checkpoint) }
        try StandardOutput.write(checkpoint + "\n")
    }

    /// Writes the model with its adapters as a checkpoint of its own, and replaces that of an earlier end of the run.
    private func writeMerged(_ checkpoint: String) throws {
        let model = try MonetLanguageModel.load(checkpoint, for: .conversion)
        let type = model.parameters.trainable.first?.tensor.dtype ?? .float32
        try AtomicFile.writeFolder(out + "/merged", replacing: Checkpoint.folder) { folder in
            try Checkpoint.copyCompanions(from: checkpoint, to: folder)
            try Checkpoint.write(model, dtype: type, to: folder)
        }
        if !common.quiet { StandardError.write("wrote the model with its adapters to \(out)/merged\n") }
    }

    private func resumed(_ directory: RunDirectory) throws -> RunConfiguration {
        var configuration = try directory.configuration()
        guard configuration.readsConversations else {
            throw TrainingError.cannotResume(
                folder: out, reason: "it learns from a corpus; go on with monet train --resume --out \(out)")
        }
        try apply(to: &configuration)
        guard !merge || configuration.adapterRank > 0 else {
            throw TrainingError.cannotResume(
                folder: out, reason: "the run has no adapters, so that there is nothing to merge")
        }
        return configuration
    }

    private func newConfiguration(
        _ directory: RunDirectory, _ communicator: any Communicator
    ) throws -> RunConfiguration {
        // What is quickly refused comes before long reading.
        guard !directory.exists else { throw TrainingError.runExists(folder: out) }
        var configuration = RunConfiguration()
        let folder = try HubCache().resolve(model ?? "").withoutLink
        configuration.initialCheckpoint = folder
        configuration.model = try Checkpoint.configuration(folder)
        configuration.conversations = try data.map { try Self.part("--data", $0) }
        configuration.preferences = try preferences.map { try Self.part("--preferences", $0) }
        configuration.chatTemplate = try chatTemplate.map { try TextFile.read($0) }
        configuration.sequenceLength = RunConfiguration.tuningLength(configuration.model)
        configuration.freezesRouters = true
        try apply(to: &configuration)
        try configuration.validate(source: "command line")
        let given = Set(try settingValues().map(\.0))
        let tokenizer = try Tokenizer(folder: folder)
        guard configuration.chatTemplate != nil || tokenizer.chatTemplate != nil else {
            throw CommandError.malformedInput(
                source: tokenizer.chatTemplatePath,
                reason: "no chat_template; a base model needs one, given with --chat-template")
        }
        configuration.fitTemplateDate()
        var text: String
        let (truncated, skipped, files, unusable): (Int, Int, [UsedFile], UnusableEntries)
        if preferences.isEmpty {
            let stream = try ConversationStream(configuration, tokenizer, batchSize: 1)
            configuration.fitTuning(
                except: given, epochs: epochs ?? 1, rows: stream.rowCount, processes: communicator.count)
            text =
                "\(stream.conversationCount.grouped) conversations in \(stream.rowCount.grouped) rows, "
                + "\(stream.targetCount.grouped) tokens of the assistant"
            (truncated, skipped, files, unusable) = (
                stream.truncated, stream.skipped, stream.files, stream.unusable
            )
        } else {
            let stream = try PreferenceStream(configuration, tokenizer, batchSize: 1)
            configuration.fitPreferences(
                except: given, epochs: epochs ?? 1, pairs: stream.pairCount, processes: communicator.count)
            text = "\(stream.pairCount.grouped) preference pairs"
            (truncated, skipped, files, unusable) = (
                stream.truncated, stream.skipped, stream.files, stream.unusable
            )
        }
        if truncated > 0 { text += "; \(truncated.grouped) cut to \(configuration.sequenceLength) tokens" }
        if skipped > 0 {
            text +=
                "; \(skipped.grouped) left out, with no token of the assistant within \(configuration.sequenceLength)"
        }
        if let first = unusable.first {
            text += "; \(unusable.count.grouped) left out that cannot be learned, the first: \(first)"
        }
        text +=
            "; \(configuration.steps.grouped) steps of "
            + "\((configuration.batchSize * configuration.accumulation).grouped) "
            + (preferences.isEmpty ? "rows" : "pairs")
        if !common.quiet, communicator.isFirst {
            if files.count > 1 {
                for file in files {
                    StandardError.write(
                        "\(file.path): \(file.used.grouped) an epoch, \(file.heldOut.grouped) held out\n")
                }
            }
            StandardError.write(text + "\n")
        }
        return configuration
    }

    /// The settings that flags give.
    private func settingValues() throws -> [(String, JSONValue)] {
        var values = try settings.values()
        if let beta { values.append(("beta", .number(beta))) }
        if skipUnusable { values.append(("skip_unusable", .bool(true))) }
        if let loraRank { values.append(("lora_rank", .integer(loraRank))) }
        if let loraAlpha { values.append(("lora_alpha", .number(loraAlpha))) }
        return values
    }

    private func apply(to configuration: inout RunConfiguration) throws {
        for (key, value) in try settingValues() {
            try configuration.set(key, to: value, source: "command line")
        }
    }

    /// A file, with its weight after the last equals sign if a number stands there.
    private static func part(_ option: String, _ argument: String) throws -> ConversationStream.Part {
        guard let place = argument.lastIndex(of: "="),
            let weight = Double(argument[argument.index(after: place)...])
        else { return .init(path: argument) }
        guard weight > 0, weight <= 1000 else {
            throw ValidationError(
                "\(option) \(argument): the weight is \(weight), expected more than 0, at most 1000")
        }
        return .init(path: String(argument[..<place]), weight: weight)
    }
}
