import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct SteerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "steer",
        abstract: "Find experts to steer with, and measure what steering does.",
        subcommands: [SteerFindCommand.self, SteerSweepCommand.self])
}

/// Two sets of texts that differ in what is to be steered.
struct ContrastOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "A file with a JSON object per line: positive and negative, two texts that differ in what is sought.",
            valueName: "path"))
    var pairs: String?
    @Option(help: ArgumentHelp("A text, or @FILE with it, that has what is sought.", valueName: "text"))
    var positive: String?
    @Option(help: ArgumentHelp("A text, or @FILE with it, that does not.", valueName: "text"))
    var negative: String?

    func validate() throws {
        if (positive == nil) != (negative == nil) {
            throw ValidationError("--positive and --negative belong together.")
        }
        if pairs != nil, positive != nil {
            throw ValidationError("Give --pairs, or --positive and --negative.")
        }
    }

    /// Whether there are texts.
    var isGiven: Bool { pairs != nil || positive != nil }

    /// The positive and the negative texts.
    func texts(_ tokenizer: Tokenizer) throws -> (positive: [[Int32]], negative: [[Int32]]) {
        func ids(_ text: String) throws -> [Int32] {
            try tokenizer.encode(text, addBegin: tokenizer.addsBegin)
        }
        guard let pairs else {
            func read(_ argument: String?) throws -> [[Int32]] {
                let argument = argument ?? ""
                return [
                    try ids(
                        argument.hasPrefix("@")
                            ? TextFile.read(String(argument.dropFirst()), readsStreams: true) : argument)
                ]
            }
            return (try read(positive), try read(negative))
        }
        var texts: (positive: [[Int32]], negative: [[Int32]]) = ([], [])
        let lines = try TextFile.read(pairs, readsStreams: true).lines
        for (number, line) in lines.enumerated() where !line.allSatisfy(\.isWhitespace) {
            let source = "\(pairs), line \(number + 1)"
            let json = try JSONValue(parsing: String(line), source: source)
            guard let positive = json["positive"]?.stringValue, let negative = json["negative"]?.stringValue
            else {
                throw CommandError.malformedInput(
                    source: source, reason: "expected an object with the texts \"positive\" and \"negative\"")
            }
            texts.positive.append(try ids(positive))
            texts.negative.append(try ids(negative))
        }
        guard !texts.positive.isEmpty else {
            throw CommandError.malformedInput(source: pairs, reason: "it has no pairs")
        }
        return texts
    }

    /// What differs between them.
    func contrast(
        _ model: MonetLanguageModel, _ tokenizer: Tokenizer, hooks: [HookPoint] = [], _ backend: CPUBackend,
        isQuiet: Bool
    ) throws -> UnitContrast {
        let (positive, negative) = try texts(tokenizer)
        let total = (positive + negative).reduce(0) { $0 + $1.count }
        var line = ProgressLine(isQuiet: isQuiet)
        defer { line.clear() }
        do {
            return try UnitContrast(
                positive: positive, negative: negative, model: model,
                firstPosition: tokenizer.addsBegin ? 1 : 0, hooks: hooks, backend: backend
            ) {
                line.show("\($0.grouped) of \(total.grouped) tokens")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
    }
}

struct SteerFindCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "find",
        abstract: "Find experts that fire more on some texts than on others.",
        discussion: """
            EXAMPLES
              monet steer find --model checkpoints/demo --pairs pairs.jsonl
              monet steer find --model checkpoints/demo --positive @psalms.txt --negative @kings.txt --out psalms.mask
              monet steer find --model checkpoints/demo --pairs pairs.jsonl --hook blocks.2.hook_resid_post \
            --vector direction.safetensors

            Experts are sorted by the risk difference, the share of tokens on which they fire in the positive texts less that in \
            the negative ones (SteerMoE, arXiv 2509.09660). --out writes them as a mask, --vector the difference of mean values at \
            --hook, for --steer.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var contrast: ContrastOptions
    @Option(help: "Experts shown and written.")
    var top = 20
    @Option(help: "Only experts of this router group.")
    var group: Int?
    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("Write a mask of the experts.", valueName: "path"))
    var out: String?
    @Option(help: "The mask's strength: 0 removes the experts, above 1 amplifies them.")
    var strength: Float = 0
    @Option(help: ArgumentHelp("Where the difference of means is taken.", valueName: "hook"))
    var hook: String?
    @Option(help: ArgumentHelp("Write the difference of means.", valueName: "path"))
    var vector: String?
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !contrast.isGiven { throw ValidationError("Give --pairs, or --positive and --negative.") }
        if !(1...1_000_000).contains(top) { throw ValidationError("--top is \(top), expected 1 to 1000000") }
        if (hook == nil) != (vector == nil) { throw ValidationError("--hook and --vector belong together.") }
        if !strength.isFinite || strength < 0 || strength == 1 {
            throw ValidationError("--strength is \(strength), expected 0 or more, and not 1")
        }
    }

    func run() throws {
        try overwriting.check(out)
        try overwriting.check(vector)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "a text")
        }
        let hooks = try hook.map { [try Self.hookPoint($0, "--hook")] } ?? []
        if let group, !(0..<model.units.groups).contains(group) {
            throw InsightError.invalidSetting(
                name: "--group", found: "\(group)", expected: "0 to \(model.units.groups - 1)")
        }
        Interruption.install()
        let contrast = try contrast.contrast(
            model, tokenizer, hooks: hooks, try compute.backend(), isQuiet: common.quiet)
        let found = contrast.strongest(top, group: group)
        guard !found.isEmpty else {
            throw CommandError.malformedInput(
                source: "the texts",
                reason: "no expert fires more on the positive ones than on the negative ones")
        }
        if let vector, let point = hooks.first {
            let values = contrast.directions[point] ?? []
            try SafetensorsWriter.write(
                [("vector", Tensor(values, shape: [values.count]))], metadata: ["hook": "\(point)"],
                to: vector)
            if !common.quiet {
                StandardError.write("wrote \(vector); --steer \(vector):1@\(point) adds it\n")
            }
        }
        if let out {
            var mask = UnitMask(model.units)
            for (group, chosen) in Dictionary(grouping: found.map(\.unit), by: \.group) {
                mask.set(chosen.map { (index: $0.index, strength: strength) }, group: group)
            }
            try MaskFile(
                mask: mask, model: model.fingerprint,
                recipe: [
                    "kind": "risk_difference", "experts": .integer(found.count),
                    "positive_tokens": .integer(contrast.positiveTokens),
                    "negative_tokens": .integer(contrast.negativeTokens),
                ]
            ).write(to: out, units: model.units, isQuiet: common.quiet)
        }
        if json {
            return try StandardOutput.write([
                "positive_tokens": .integer(contrast.positiveTokens),
                "negative_tokens": .integer(contrast.negativeTokens),
                "experts": .array(
                    found.map {
                        [
                            "expert": .string($0.unit.description),
                            "risk_difference": .number($0.riskDifference),
                            "positive_rate": .number($0.positiveRate),
                            "negative_rate": .number($0.negativeRate),
                            "positive_mean": .number($0.positiveMean),
                            "negative_mean": .number($0.negativeMean),
                            "mean_where_firing": .number($0.meanWhereFiring),
                        ]
                    }),
            ])
        }
        let rows = found.map { unit in
            [
                "\(unit.unit)", unit.riskDifference.text(4), unit.positiveRate.text(4),
                unit.negativeRate.text(4),
                unit.meanWhereFiring.significant,
            ]
        }
        try StandardOutput.write(
            alignedTable([["expert", "difference", "positive", "negative", "mean score"]] + rows)
                + "\n\(contrast.positiveTokens.grouped) and \(contrast.negativeTokens.grouped) tokens\n")
    }

    /// - Throws: `CommandError.malformedInput` for a name of another form.
    static func hookPoint(_ name: String, _ option: String) throws -> HookPoint {
        guard let point = HookPoint(name) else {
            throw CommandError.malformedInput(
                source: option,
                reason: "'\(name)' is no hook point, expected one like blocks.0.hook_resid_post")
        }
        guard ![.pattern, .g1, .g2].contains(point.kind) else {
            throw CommandError.malformedInput(
                source: option, reason: "\(point) holds probabilities, to which no difference can be added")
        }
        return point
    }
}
