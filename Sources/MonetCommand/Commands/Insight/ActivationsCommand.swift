import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetProcesses
import MonetText

struct ActivationsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "activations",
        abstract: "Write the scores of experts and hidden values on every token, for NumPy and others.",
        discussion: """
            EXAMPLES
              monet activations --model checkpoints/demo --corpus runs/demo/corpus --units all --limit 20000 --out acts
              monet activations --model checkpoints/demo --corpus pages.jsonl --units 1/223,0/457 \
            --hooks blocks.3.hook_resid_post,blocks.0.attn.hook_z --format npz --out acts
              monet activations --model checkpoints/demo --prompts prompts.jsonl --units all --out acts

            The folder holds shards of documents and a manifest. A shard has tokens, documents and offsets; scores as \
            lists of coordinates (scores.token, .group, .unit, .score); and a tensor [tokens, …] for each hook point, \
            under its TransformerLens name. Ctrl-C stops with all whole shards kept; the same command goes on.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var reading: DocumentOptions
    @Option(
        help: ArgumentHelp(
            "Instead of a corpus: a JSON object with prompt, token_ids or messages per line.",
            valueName: "path"))
    var prompts: String?
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split = CorpusSplit.train
    @Option(help: ArgumentHelp("Experts as GROUP/EXPERT separated by commas, or all.", valueName: "list"))
    var units: String?
    @Option(help: ArgumentHelp("Hook points separated by commas.", valueName: "list"))
    var hooks: String?
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The folder to write.", valueName: "dir"))
    var out: String
    @Option(help: "How shards are stored: safetensors or npz.")
    var format = ActivationExport.Format.safetensors
    @Option(help: "Type of the values at hook points: float32, float16 or bfloat16.")
    var hookDtype = "float32"
    @Option(help: "Megabytes from which a shard is written.")
    var shardMegabytes = 128
    @Option(help: "Tokens per window of a document; by default the model's context, at most 512.")
    var context: Int?
    @Option(help: "Tokens per batch, from several documents.")
    var batchTokens = 512
    @OptionGroup var masking: MaskOptions
    @OptionGroup var steering: SteeringOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var workers: WorkerOptions
    @Flag(help: "Replace an existing export, and discard an unfinished one.")
    var overwrite = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if reading.corpus.isEmpty == (prompts == nil) { throw ValidationError("Give --corpus or --prompts.") }
        if units == nil, hooks == nil { throw ValidationError("Give --units, --hooks, or both.") }
        if !(1...2048).contains(shardMegabytes) {
            throw ValidationError("--shard-megabytes is \(shardMegabytes), expected 1 to 2048")
        }
        if !(1...1_000_000).contains(batchTokens) {
            throw ValidationError("--batch-tokens is \(batchTokens), expected 1 to 1000000")
        }
    }

    private func selection(_ model: MonetLanguageModel) throws -> ActivationSelection {
        func list(_ text: String) -> [String] {
            text.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
        }
        for (name, text) in [("--units", units), ("--hooks", hooks)] {
            if let text, list(text).isEmpty {
                throw CommandError.malformedInput(source: name, reason: "it is empty, expected a list")
            }
        }
        var selection = ActivationSelection()
        if let units {
            selection.units =
                units == "all"
                ? .all : .these(try list(units).map { try UnitID(parsing: $0, in: model.units) })
        }
        selection.hooks = try list(hooks ?? "").map { name in
            guard let point = HookPoint(name) else {
                throw CommandError.malformedInput(
                    source: "--hooks",
                    reason: "'\(name)' is no hook point, expected one like blocks.0.hook_resid_post")
            }
            return point
        }
        return selection
    }

    /// The corpus, or the prompts.
    private func documents(_ model: MonetLanguageModel, _ tokenizer: Tokenizer?, _ folder: String) throws
        -> LabelledDocuments
    {
        guard let prompts else {
            return try reading.documents(tokenizer: tokenizer, modelFolder: folder, split: split)
        }
        let defaults = PromptLine.Defaults(settings: GenerationSettings()) { name in
            throw CommandError.malformedInput(
                source: prompts, reason: "masks such as '\(name)' are given with --mask here")
        }
        let lines = try TextFile.read(prompts, readsStreams: true).lines.enumerated()
            .filter { !$0.element.allSatisfy(\.isWhitespace) }
        let tokens = try lines.map { index, line in
            let json = try JSONValue(parsing: String(line), source: "\(prompts), line \(index + 1)")
            let read = try PromptLine(
                json, index: index, source: prompts, model: model, tokenizer: tokenizer, defaults)
            guard read.request.generation.mask == nil, read.request.generation.steering == nil else {
                throw CommandError.malformedInput(
                    source: "\(prompts), line \(index + 1)",
                    reason: "strengths and steering are given with --mask and --steer here, for all lines")
            }
            return read.request.generation.tokens
        }
        guard !tokens.isEmpty else {
            throw CommandError.malformedInput(source: prompts, reason: "it has no prompts")
        }
        return LabelledDocuments(tokens: tokens, origin: prompts)
    }

    func run() throws {
        try workers.run(resumeCommand: "the same command") { try write($0) }
    }

    private func write(_ communicator: any Communicator) throws {
        let isQuiet = common.quiet || !communicator.isFirst
        let folder = try modelOptions.folder()
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let dtype = DType(userName: hookDtype) else {
            throw CommandError.malformedInput(
                source: "--hook-dtype",
                reason: "'\(hookDtype)' is no type, expected float32, float16 or bfloat16")
        }
        let selection = try selection(model)
        let documents = try documents(model, tokenizer, folder)
        guard documents.tokenCount > 0 else {
            throw CommandError.malformedInput(source: documents.origin, reason: "it has no tokens")
        }
        let backend = try compute.backend(communicator)
        let reader = try ActivationReader(
            model: model, documents: documents, selection, mask: try masking.load(for: model, common.logger),
            steering: try steering.load(for: model, tokenizer, on: backend), window: context,
            batchTokens: batchTokens, backend: backend)
        let tokenizerPath = folder + "/tokenizer.model"
        let export = try ActivationExport(
            reader, format: format, dtype: dtype, shardBytes: shardMegabytes << 20, modelPath: folder,
            tokenizer: FileManager.default.fileExists(atPath: tokenizerPath) ? tokenizerPath : nil)
        if !isQuiet {
            StandardError.write(
                "\(documents.tokenCount.grouped) tokens of \(documents.count.grouped) documents; shards take up to "
                    + "\((2 * shardMegabytes << 20).byteText) of memory, or what the longest document needs\n"
            )
        }
        Interruption.install(hangUp: communicator.isShared, termination: communicator.isShared)
        var line = ProgressLine(isQuiet: isQuiet)
        var rate = 0.0
        let isComplete = try export.write(
            to: out, replacing: overwrite, communicator: communicator
        ) { progress in
            rate = Double(progress.newTokens) / max(progress.seconds, 1e-9)
            let left = Double(progress.totalTokens - progress.tokens) / max(rate, 1e-9)
            line.show(
                "\(progress.tokens.grouped) of \(progress.totalTokens.grouped) tokens  \(rate.text(0)) tokens/s  "
                    + "\(left.durationText) left")
            return true
        } isCancelled: {
            Interruption.isRequested
        }
        line.clear()
        guard isComplete else {
            if communicator.isFirst {
                StandardError.write("stopped; the same command goes on with \(out)\n")
            }
            throw Interruption.exitCode
        }
        if !isQuiet { StandardError.write("wrote \(out) (\(rate.text(0)) tokens/s)\n") }
    }
}

extension ActivationExport.Format: ExpressibleByArgument {}
