import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetText
import MonetTraining

struct UnlearnRMUCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rmu",
        abstract: "Unlearn by representation misdirection (RMU), the usual baseline; write a checkpoint.",
        discussion: """
            EXAMPLES
              monet unlearn rmu --model checkpoints/demo --corpus runs/demo/corpus --forget scripture \\
                  --layer 3 --layers 1,2,3 --lr 1e-3 --out checkpoints/rmu
              monet unlearn rmu --model M --corpus forget=bio-forget-corpus.jsonl \\
                  --corpus retain=wikitext.jsonl --forget forget --alpha 1200 --steering 6.5 --out rmu

            At one layer, the residual stream of texts to forget is pushed to a random direction and that of \
            texts to keep held in place; the down-projections of a few layers are trained (arXiv 2403.03218). The \
            defaults are those of the authors' code, for 7B models with 32 layers.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var forgetting: ForgetOptions
    @Option(help: ArgumentHelp("The new checkpoint.", valueName: "dir"))
    var out: String
    @Option(help: "The layer whose output is compared.")
    var layer = RepresentationMisdirection.Settings().layer
    @Option(help: ArgumentHelp("The layers that are trained, separated by commas.", valueName: "list"))
    var layers = "5,6,7"
    @Option(help: "The length of the random direction.")
    var steering = RepresentationMisdirection.Settings().steering
    @Option(help: "The weight of what is kept.")
    var alpha = RepresentationMisdirection.Settings().retainWeight
    @Option(help: "The learning rate.")
    var lr = RepresentationMisdirection.Settings().learningRate
    @Option(help: "Optimizer steps.")
    var steps = RepresentationMisdirection.Settings().steps
    @Option(help: "Texts of either kind in a step.")
    var batchSize = RepresentationMisdirection.Settings().batchSize
    @Option(help: "Tokens of a text; by default 512, or the model's context.")
    var length: Int?
    @Option(help: "Seed of the direction and of the order of texts.")
    var seed = RepresentationMisdirection.Settings().seed
    @Option(name: [.customShort("t"), .long], help: "Number of threads; by default all usable processors.")
    var threads: Int?
    @Flag(help: "Replace an existing checkpoint folder.")
    var overwrite = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard !(try layerList()).isEmpty else { throw ValidationError("--layers names no layer") }
        for (name, value) in [("steps", steps), ("batch-size", batchSize), ("length", length ?? 1)]
        where !(1...1 << 28).contains(value) {
            throw ValidationError("--\(name) is \(value), expected 1 to \(1 << 28)")
        }
        for (name, value) in [("lr", lr), ("alpha", alpha), ("steering", steering)]
        where !(value >= 0 && value.isFinite) {
            throw ValidationError("--\(name) is \(value), expected 0 or more")
        }
    }

    private func layerList() throws -> [Int] {
        try layers.split(separator: ",").map {
            guard let layer = Int($0.trimmingCharacters(in: .whitespaces)) else {
                throw ValidationError("--layers: '\($0)' is not a number")
            }
            return layer
        }
    }

    func run() throws {
        try OverwriteOption.check([out], overwrite: overwrite, isFolder: true)
        let folder = try modelOptions.folder()
        let (model, tokenizer) = try modelOptions.load(common.logger, for: .training)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "text")
        }
        var settings = RepresentationMisdirection.Settings()
        settings.layer = layer
        settings.trainedLayers = try layerList()
        (settings.steering, settings.retainWeight, settings.learningRate) = (steering, alpha, lr)
        (settings.steps, settings.batchSize, settings.seed) = (steps, batchSize, seed)
        settings.length = length ?? min(settings.length, model.configuration.contextLength)
        let backend = try ComputeOptions.backend(threads: threads)
        let unlearning = try RepresentationMisdirection(
            settings, model: model, original: try MonetLanguageModel.load(folder), backend: backend)
        let texts = try forgetting.read(tokenizer, folder: folder, split: .train)
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let start = Date()
        let isComplete = try unlearning.run(forget: texts.forget, retain: texts.retain) { progress in
            let seconds = Date().timeIntervalSince(start)
            let left = (seconds / Double(progress.step) * Double(progress.steps - progress.step)).durationText
            line.show(
                "step \(progress.step) of \(progress.steps)  forget \(progress.forgetLoss.text(4))  retain "
                    + "\(progress.retainLoss.text(6))  \(left) left")
            return !Interruption.isRequested
        }
        line.clear()
        guard isComplete else {
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
        try AtomicFile.writeFolder(out, replacing: overwrite ? Checkpoint.folder : nil) { temporary in
            try Checkpoint.copyCompanions(from: folder, to: temporary)
            try Checkpoint.write(model, dtype: Checkpoint.configuration(folder).dtype, to: temporary)
        }
        if !common.quiet { StandardError.write("wrote \(out)\n") }
    }
}
