import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetProcesses
import MonetText

struct IndexCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "index",
        abstract: "Record what every expert fires on.",
        subcommands: [IndexBuildCommand.self, IndexInfoCommand.self])
}

struct IndexBuildCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "build",
        abstract: "Read a labelled corpus and write an expert index, an SQLite file.",
        discussion: """
            EXAMPLES
              monet index build --model checkpoints/demo --corpus runs/demo/corpus --out demo.sqlite
              monet index build --model checkpoints/demo --corpus pages.jsonl --label-key topic \\
                  --label-key language --out pages.sqlite

            With --workers, or under mpirun or srun, several processes run the model and the first one counts; the \
            index is the same. Ctrl-C stops and saves; running the same command again continues. Query the index with monet \
            experts.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The index to write.", valueName: "path"))
    var out: String
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split: CorpusSplit = .train
    @Option(help: "Number of top activating tokens to keep per expert.")
    var top = 20
    @Option(help: "Tokens per window of a document; by default the model's context, at most 512.")
    var context: Int?
    @Option(help: "Tokens per batch, from several documents.")
    var batchTokens = 512
    @Flag(help: "Replace an existing index, and discard an unfinished one.")
    var overwrite = false
    @Flag(help: "Print the result as JSON.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var workers: WorkerOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(1...1 << 20).contains(batchTokens) {
            throw ValidationError("--batch-tokens is \(batchTokens), expected 1 to \(1 << 20)")
        }
    }

    func run() throws {
        try workers.run(resumeCommand: "the same command") { try build($0) }
    }

    private func build(_ communicator: any Communicator) throws {
        let isQuiet = common.quiet || !communicator.isFirst
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let folder = try modelOptions.folder()
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: folder, split: split)
        var settings = ExpertIndexBuilder.Settings()
        settings.top = top
        settings.window = context
        settings.batchTokens = batchTokens
        let backend = try compute.backend(communicator)
        let builder = try ExpertIndexBuilder(
            model: model, modelPath: folder, tokenizer: tokenizer, documents: documents, settings: settings,
            backend: backend, pool: backend.pool)
        if !isQuiet {
            StandardError.write(
                "\(documents.tokenCount.grouped) tokens of \(documents.count.grouped) documents; "
                    + "statistics take \(builder.memoryBytes.byteText) of memory\n")
        }
        var line = ProgressLine(isQuiet: isQuiet)
        Interruption.install(hangUp: communicator.isShared, termination: communicator.isShared)
        var rate = 0.0
        let isComplete = try builder.build(
            at: out, replacing: overwrite, communicator: communicator
        ) { progress in
            if progress.phase == .writing {
                line.note("writing \(out)")
                return true
            }
            rate = Double(progress.newTokens) / progress.seconds
            let left = Double(progress.totalTokens - progress.tokens) / rate
            line.show(
                "\(progress.tokens.grouped) of \(progress.totalTokens.grouped) tokens  \(rate.text(0)) tokens/s  \(left.durationText) left"
            )
            return true
        } isCancelled: {
            Interruption.isRequested
        }
        line.clear()
        guard isComplete else {
            if communicator.isFirst {
                StandardError.write("stopped; the same command goes on from \(out).partial\n")
            }
            throw Interruption.exitCode
        }
        if !communicator.isFirst { return }
        if json {
            try StandardOutput.write([
                "index": .string(out), "tokens": .integer(documents.tokenCount),
                "documents": .integer(documents.count), "tokens_per_second": .number(rate),
                "memory_bytes": .integer(builder.memoryBytes),
            ])
        } else if !isQuiet {
            StandardError.write("wrote \(out) (\(rate.text(0)) tokens/s)\n")
        }
    }
}

struct IndexInfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show what an index was built from, with its specialists by label.")

    @Argument(help: ArgumentHelp("The index.", valueName: "path"))
    var index: String
    @OptionGroup var specialists: SpecialistOptions
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let index = try ExpertIndex(path: index)
        let experts = index.units.count
        let criterion = specialists.criterion
        let counts = try index.labelSets.map { set in
            try set.labels.map { try index.specialists(of: $0, criterion).count }
        }
        if json {
            try StandardOutput.write([
                "model": .string(index.modelPath), "fingerprint": .string(index.modelFingerprint),
                "corpus": .string(index.corpus), "tokens": .integer(index.tokens),
                "documents": .integer(index.documents), "groups": .integer(index.units.groups),
                "experts": .integer(experts), "ratio": .number(criterion.ratio),
                "minimum_count": .integer(criterion.minimumCount),
                "minimum_frequency": .number(criterion.minimumFrequency),
                "label_sets": .object(
                    zip(index.labelSets, counts).map { set, counts in
                        .init(
                            set.name,
                            .array(
                                zip(set.labels, counts).map { label, count in
                                    [
                                        "label": .string(label.name), "documents": .integer(label.documents),
                                        "tokens": .integer(label.tokens), "specialists": .integer(count),
                                    ]
                                }))
                    }),
            ])
            return
        }
        try StandardOutput.write(
            "model   \(index.modelPath.onOneLine) (\(index.modelFingerprint.onOneLine))\ncorpus  \(index.corpus.onOneLine), \(index.tokens.grouped) tokens of \(index.documents.grouped) documents\n"
                + "experts \(experts.grouped) in \(index.units.groups) groups\n")
        for (set, counts) in zip(index.labelSets, counts) {
            let rows = zip(set.labels, counts).map { label, count in
                [
                    label.name, label.documents.grouped, label.tokens.grouped, count.grouped,
                    (100 * Double(count) / Double(experts)).text(2) + "%",
                ]
            }
            try StandardOutput.write(
                "\n" + alignedTable([[set.name, "documents", "tokens", "specialists", "of all"]] + rows))
        }
    }
}
