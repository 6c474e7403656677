import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct MaskCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mask",
        abstract: "Choose experts to remove, weaken or amplify.",
        discussion: """
            A mask file is safetensors: int64 lists removed.{g} of the experts i·E + j of router group g, and \
            scaled.{g}.index with float32 scaled.{g}.strength; its metadata names the model and the recipe. \
            Give it to --mask of generate, chat, trace, forward, perplexity and bench.
            """,
        subcommands: [
            MaskLabelCommand.self, MaskCorrelationCommand.self, MaskEffectCommand.self, MaskListCommand.self,
            MaskRandomCommand.self, MaskCombineCommand.self, MaskInfoCommand.self,
        ])
}

/// Where a mask goes and how strong it is.
struct MaskOutput: ParsableArguments {
    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The mask file to write.", valueName: "path"))
    var out: String
    @Option(help: "Strength of the chosen experts: 0 removes them, above 1 amplifies.")
    var strength: Float = 0

    func validate() throws {
        if !strength.isFinite || strength < 0 || strength == 1 {
            throw ValidationError("--strength is \(strength), expected 0 or more, and not 1")
        }
    }

    /// Writes a mask of some experts and says how many they are.
    func write(
        _ experts: [ExpertID], model: String, expertsPerSide: Int, groups: Int, recipe: [JSONValue.Member],
        isQuiet: Bool
    ) throws {
        var mask = ExpertMask(experts: expertsPerSide)
        for group in 0..<groups {
            let chosen = experts.filter { $0.group == group }
            if !chosen.isEmpty {
                mask.set(chosen.map { (index: $0.index, strength: strength) }, group: group)
            }
        }
        try MaskFile(mask: mask, model: model, recipe: .object(recipe))
            .write(to: out, groups: groups, isQuiet: isQuiet)
    }
}

extension MaskFile {
    /// Writes the mask and says how many experts it names.
    func write(to path: String, groups: Int, isQuiet: Bool) throws {
        try write(to: path)
        if isQuiet { return }
        let total = groups * mask.experts * mask.experts
        let counts = (0..<groups).map { "\(mask.count(group: $0).grouped)" }.joined(separator: " ")
        StandardError.write(
            "wrote \(path): \(mask.count.grouped) of \(total.grouped) experts, "
                + "\((100 * Double(mask.count) / Double(total)).text(2))%; by group \(counts)\n")
        if mask.count == 0 { StandardError.write("warning: the mask is empty\n") }
    }
}

struct MaskLabelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "label",
        abstract: "The specialists of a label.",
        discussion: """
            An expert is a label's specialist if its mean score on the label's tokens is at least --ratio \
            times that on any other label's (section 5 of the paper, where the ratio is 2).

            EXAMPLES
              monet mask label --index demo.sqlite --label scripture --out scripture.mask
            """)

    @OptionGroup var indexOptions: IndexOptions
    @Option(help: "The label.")
    var label: String
    @Option(help: "The label set, if several have the label.")
    var set: String?
    @Option(help: "Mean score in the label over that in the next, at least.")
    var ratio = 2.0
    @Option(help: "Share of tokens that an expert fires on at least.")
    var minFrequency = 0.0
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(ratio >= 1) { throw ValidationError("--ratio is \(ratio), expected 1 or more") }
    }

    func run() throws {
        let index = try ExpertIndex(path: indexOptions.index)
        let experts = try index.specialists(
            of: index.label(label, set: set), ratio: ratio, minimumFrequency: minFrequency)
        try output.write(
            experts, model: index.modelFingerprint, expertsPerSide: index.expertsPerSide,
            groups: index.groups,
            recipe: [
                .init("kind", "label"), .init("label", .string(label)), .init("ratio", .number(ratio)),
                .init("minimum_frequency", .number(minFrequency)), .init("corpus", .string(index.corpus)),
            ], isQuiet: common.quiet)
    }
}

struct MaskCorrelationCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "correlation",
        abstract: "Experts whose score correlates with a number in the data.",
        discussion: """
            EXAMPLES
              monet mask correlation --model checkpoints/demo --corpus comments.jsonl --number toxicity \\
                  --threshold 0.1 --out toxic.mask

            The column holds a number for the document, or a list with one for every token.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "JSONL column with the number.")
    var number: String
    @Option(help: "Observations: token or document.")
    var level: ScoreCorrelation.Level = .token
    @Option(help: "Pearson correlation above which an expert is chosen.")
    var threshold = 0.1
    @OptionGroup var output: MaskOutput
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func run() throws {
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: .train, numberKey: number)
        var progress = TokenProgress(total: documents.tokenCount, isQuiet: common.quiet)
        let correlation = try ScoreCorrelation(
            of: documents, level: level, model: model, backend: try compute.backend()
        ) { progress.show($0) }
        try progress.finish()
        try output.write(
            correlation.experts(above: threshold), model: model.fingerprint,
            expertsPerSide: model.configuration.expertsPerSide, groups: correlation.values.count,
            recipe: [
                .init("kind", "correlation"), .init("number", .string(number)),
                .init("level", .string(level.rawValue)), .init("threshold", .number(threshold)),
                .init("observations", .integer(correlation.count)),
                .init("corpus", .string(documents.origin)),
            ], isQuiet: common.quiet)
    }
}

struct MaskEffectCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "effect",
        abstract: "Experts whose removal changes the loss on a text most, to first order.",
        discussion: """
            One backward pass gives the effect of removing each expert: −∂L/∂s for a factor s on its terms.

            EXAMPLES
              monet mask effect --model checkpoints/demo --corpus runs/demo/corpus --labels law \\
                  --limit 20000 --count 500 --out law.mask
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split: CorpusSplit = .train
    @Option(help: "Experts to choose.")
    var count: Int
    @Flag(help: "Choose those whose removal lowers the loss instead.")
    var lowering = false
    @OptionGroup var output: MaskOutput
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if count < 1 { throw ValidationError("--count is \(count), expected 1 or more") }
    }

    func run() throws {
        let (model, tokenizer) = try modelOptions.load(common.logger, for: .training)
        let documents = try documentOptions.documents(
            tokenizer: tokenizer, modelFolder: modelOptions.model, split: split)
        var progress = TokenProgress(total: documents.tokenCount, isQuiet: common.quiet)
        let effects = try ExpertEffects(of: documents, model: model, backend: try compute.backend()) {
            progress.show($0)
        }
        try progress.finish()
        try output.write(
            effects.strongest(count, raising: !lowering), model: model.fingerprint,
            expertsPerSide: model.configuration.expertsPerSide, groups: effects.values.count,
            recipe: [
                .init("kind", "effect"), .init("count", .integer(count)), .init("lowering", .bool(lowering)),
                .init("tokens", .integer(effects.tokens)), .init("corpus", .string(documents.origin)),
            ], isQuiet: common.quiet)
    }
}

struct MaskListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Experts by name.",
        discussion: """
            EXAMPLES
              monet mask list 0/1777 1/698 --model checkpoints/demo --out two.mask
            """)

    @Argument(help: ArgumentHelp("Experts, as 0/1777.", valueName: "group/index"))
    var experts: [String]
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let c = model.configuration
        guard c.feedForward != .dense else { throw InsightError.noExperts }
        let ids = try experts.map {
            try ExpertID(parsing: $0, groups: c.routerLayers.count, expertsPerSide: c.expertsPerSide)
        }
        try output.write(
            ids, model: model.fingerprint, expertsPerSide: c.expertsPerSide, groups: c.routerLayers.count,
            recipe: [.init("kind", "list")], isQuiet: common.quiet)
    }
}

struct MaskRandomCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "random",
        abstract: "As many experts of every group as another mask names, at random: what it is compared with."
    )

    @Option(help: ArgumentHelp("The mask whose size to take.", valueName: "path"))
    var like: String
    @Option(help: "Decides the experts.")
    var seed: UInt64 = 0
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var output: MaskOutput
    @OptionGroup var common: CommonOptions

    func run() throws {
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let mask = try MaskOptions.read(like, for: model, common.logger).mask
        try MaskFile(
            mask: mask.randomOfEqualSize(seed: seed).applied(strength: output.strength),
            model: model.fingerprint,
            recipe: [
                "kind": "random", "like": .string(like), "seed": .integer(Int(truncatingIfNeeded: seed)),
            ]
        ).write(
            to: output.out, groups: model.configuration.routerLayers.count, isQuiet: common.quiet)
    }
}

struct MaskCombineCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "combine",
        abstract: "Union, intersection or difference of masks.",
        discussion: """
            EXAMPLES
              monet mask combine law.mask music.mask --model checkpoints/demo --out both.mask
              monet mask combine law.mask music.mask --operation difference --model checkpoints/demo --out only.mask

            In a union the strengths of an expert multiply; the others keep the first mask's.
            """)

    enum Operation: String, ExpressibleByArgument, CaseIterable {
        case union, intersection, difference
    }

    @Argument(help: ArgumentHelp("Mask files, two or more.", valueName: "path"))
    var masks: [String]
    @Option(help: "union, intersection or difference (what the first has and no other).")
    var operation: Operation = .union
    @OptionGroup var modelOptions: ModelOptions
    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The mask file to write.", valueName: "path"))
    var out: String
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if masks.count < 2 { throw ValidationError("Give two masks or more.") }
    }

    func run() throws {
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let files = try masks.map { try MaskOptions.read($0, for: model, common.logger) }
        var result = files[0].mask
        for file in files.dropFirst() {
            switch operation {
            case .union: result = result.union(file.mask)
            case .intersection: result = result.intersection(file.mask)
            case .difference: result = result.subtracting(file.mask)
            }
        }
        try MaskFile(
            mask: result, model: model.fingerprint,
            recipe: [
                "kind": .string(operation.rawValue),
                "of": .array(zip(masks, files).map { ["mask": .string($0), "recipe": $1.recipe] }),
            ]
        ).write(to: out, groups: model.configuration.routerLayers.count, isQuiet: common.quiet)
    }
}

struct MaskInfoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "info", abstract: "Show a mask's origin and size.")

    @Argument(help: ArgumentHelp("The mask file.", valueName: "path"))
    var mask: String
    @Flag(help: "JSON instead of lines.")
    var json = false
    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var common: CommonOptions

    func run() throws {
        let model = try modelOptions.load(common.logger, for: .conversion).model
        let file = try MaskFile(contentsOfFile: mask, configuration: model.configuration)
        let fits = file.model.map { $0 == model.fingerprint } ?? true
        if json {
            return StandardOutput.write([
                "mask": .string(mask), "model": file.model.map { .string($0) } ?? .null,
                "fits_this_model": .bool(fits), "experts": .integer(file.mask.count),
                "by_group": .object(
                    file.mask.groups.map { .init("\($0)", .integer(file.mask.count(group: $0))) }),
                "recipe": file.recipe,
            ])
        }
        let groups = file.mask.groups.map { "group \($0): \(file.mask.count(group: $0).grouped)" }
        let origin = file.model.map { $0 + (fits ? ", this model" : ", another model") } ?? "not said"
        StandardOutput.write(
            "experts  \(file.mask.count.grouped) (\(groups.joined(separator: ", ")))\nmade for \(origin)\n"
                + "recipe   \(file.recipe.serialized())\n")
    }
}

extension ScoreCorrelation.Level: ExpressibleByArgument {}

/// Progress of reading tokens; Ctrl-C stops it.
struct TokenProgress {
    private let total: Int
    private var line: ProgressLine
    private let start = ContinuousClock.now

    init(total: Int, isQuiet: Bool) {
        self.total = total
        line = ProgressLine(isQuiet: isQuiet)
        Interruption.install()
    }

    /// Shows how far it is; false once the user wants to stop.
    mutating func show(_ tokens: Int) -> Bool {
        let rate = Double(tokens) / (ContinuousClock.now - start).seconds
        let left = (Double(total - tokens) / rate).durationText
        let text = "\(tokens.grouped) of \(total.grouped) tokens  \(rate.text(0)) tokens/s  \(left) left"
        line.show(text)
        return !Interruption.isRequested
    }

    /// Removes the line; ends the command if the user stopped it, before a result is written.
    mutating func finish() throws {
        line.clear()
        if Interruption.isRequested {
            StandardError.write("stopped; nothing was written\n")
            throw ExitCode(1)
        }
    }
}
