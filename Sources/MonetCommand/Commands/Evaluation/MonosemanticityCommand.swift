import ArgumentParser
import Foundation
import MonetCompute
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct MonosemanticityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "monosemanticity",
        abstract: "Measure how few concepts experts stand for, compared with neurons of a dense model.",
        discussion: """
            EXAMPLES
              monet monosemanticity --model checkpoints/demo --corpus runs/demo/corpus --limit 300000
              monet monosemanticity --model runs/vertical/best --dense runs/dense/best --corpus tokens

            Each measure is shown next to a baseline, for which labels are assigned at random to blocks of \
            64 tokens.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var documentOptions: DocumentOptions
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split: CorpusSplit = .train
    @Option(help: ArgumentHelp("A dense Llama trained on the same data, to compare with.", valueName: "dir"))
    var dense: String?
    @Option(help: "Minimum number of tokens on which an expert or neuron must score to be counted.")
    var minCount = 50
    @Option(help: "Seed of the shuffled labels.")
    var seed: UInt64 = 0
    @Flag(help: "JSON instead of a table.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if minCount < 1 { throw ValidationError("--min-count is \(minCount), expected 1 or more") }
    }

    func run() throws {
        let folders = [try modelOptions.folder()] + (try dense.map { [try HubCache().resolve($0)] } ?? [])
        let backend = try compute.backend()
        let results = try folders.map { folder in
            let model = try MonetLanguageModel.load(folder)
            let documents = try documentOptions.documents(
                tokenizer: try? Tokenizer(folder: folder), modelFolder: folder, split: split)
            var progress = TokenProgress(total: documents.tokenCount, isQuiet: common.quiet)
            let result = try Monosemanticity(
                of: documents, model: model, backend: backend, minimumCount: minCount, seed: seed
            ) { progress.show($0) }
            try progress.finish()
            return result
        }
        if json { return try StandardOutput.write(.array(results.map { $0.json() })) }
        var rows = [[""] + results.flatMap { [$0.unit.rawValue, "shuffled"] }]
        func add(_ name: String, _ value: (Monosemanticity.LabelMeasures) -> String) {
            rows.append([name] + results.flatMap { [value($0.measured), value($0.shuffled)] })
        }
        rows.append(
            ["units that score"]
                + results.flatMap { ["\($0.activeUnits.grouped) of \($0.units.grouped)", ""] })
        add("label entropy, bits") { $0.entropy.text(3) }
        add("specialists") { (100 * $0.specialists).text(2) + "%" }
        add("specialists by group") {
            $0.specialistsByGroup.map { (100 * $0).text(1) + "%" }.joined(separator: " ")
        }
        add("overlap of labels") { $0.overlap.text(4) }
        rows.append(["token concentration"] + results.flatMap { [$0.tokenConcentration.text(3), ""] })
        try StandardOutput.write(alignedTable(rows))
        if let labels = results.first?.labels {
            try StandardOutput.write(
                "\n\(labels) labels: an entropy of \(log2(Double(labels)).text(3)) bits would ignore them\n")
        }
    }
}
