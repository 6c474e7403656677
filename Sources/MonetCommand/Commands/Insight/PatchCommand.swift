import ArgumentParser
import Foundation
import MonetCompute
import MonetEvaluation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct PatchCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "patch",
        abstract:
            "Put values of a clean run into a corrupted one, place by place, and see what restores the clean answer.",
        discussion: """
            EXAMPLES
              monet patch --model checkpoints/demo --clean "And God said unto" --corrupted "And man said unto" \
            --metric "logit( him)-logit( the)"
              monet patch --model checkpoints/demo --clean "a fish" --corrupted "a ship" --metric "logit( of)" \
            --over heads --svg heads.svg

            A cell is (patched − corrupted) / (clean − corrupted) of the metric: 1 where the patch restores the clean \
            value. --over residual patches the residual stream before each layer, experts and attention what these add, \
            all by position; heads patches each head's output at all positions.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: "The clean prompt.")
    var clean: String
    @Option(help: "The corrupted prompt, with as many tokens.")
    var corrupted: String
    @Option(help: ArgumentHelp("A sum of logits, as \"logit( x)-logit( y)\".", valueName: "metric"))
    var metric: String
    @Option(help: "What is patched: residual, heads, experts or attention.")
    var over = ActivationPatching.Places.residual
    @Option(help: ArgumentHelp("Write the heat map.", valueName: "path"))
    var svg: String?
    @Flag(help: "Print JSON.")
    var json = false
    @OptionGroup var masking: MaskOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func run() throws {
        try overwriting.check(svg)
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "a text")
        }
        func ids(_ text: String) throws -> [Int32] {
            try tokenizer.encode(text, addBegin: tokenizer.addsBegin)
        }
        let (cleanIDs, corruptedIDs) = (try ids(clean), try ids(corrupted))
        let patching = try ActivationPatching(
            clean: cleanIDs, corrupted: corruptedIDs,
            target: AttributionTarget(metric: metric, tokenizer: tokenizer), model: model,
            mask: try masking.load(for: model, common.logger), backend: try compute.backend())
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let table: ActivationPatching.Table
        do {
            table = try patching.run(over: over) { done in
                line.show("\((100 * done).text(0))% of the patches")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
        line.clear()
        let columns =
            over == .heads
            ? (0..<model.configuration.attentionHeads).map { "head \($0)" }
            : try zip(cleanIDs, corruptedIDs).map { own, other in
                let (own, other) = (try tokenizer.displayText(own), try tokenizer.displayText(other))
                return own == other ? own : "\(own)/\(other)"
            }
        let rows = table.shares.indices.map { "layer \($0)" }
        if let svg {
            let picture = GridMap(
                title: "\(metric), restored by clean \(over.rawValue)", rows: rows, columns: columns,
                values: table.shares)
            try AtomicFile.write(picture.svg(), to: svg)
            if !common.quiet { StandardError.write("wrote \(svg)\n") }
        }
        if json {
            try StandardOutput.write([
                "metric": .string(metric), "over": .string(over.rawValue), "clean": .number(table.clean),
                "corrupted": .number(table.corrupted), "columns": .array(columns.map { .string($0) }),
                "shares": .array(table.shares.map { .array($0.map { .number($0) }) }),
            ])
        } else {
            let cells = zip(rows, table.shares).map { [$0] + $1.map { $0.text(2) } }
            try StandardOutput.write(
                alignedTable([[""] + columns] + cells)
                    + "\nclean \(table.clean.text(4)), corrupted \(table.corrupted.text(4))\n")
        }
    }
}

extension ActivationPatching.Places: ExpressibleByArgument {}
