import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct PairsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pairs",
        abstract: "Test whether experts mean more than their halves.",
        discussion: """
            EXAMPLES
              monet pairs --index experts.sqlite --corpus runs/demo/corpus --limit 200000
              monet pairs --index experts.sqlite --corpus pages.jsonl --pairs 50 --json

            An expert is a pair of halves (i, j), which fires where a head selects both. The test counts how often it does, \
            and what that says of the label and the next token, against permutations that keep what each half does.
            """)

    @OptionGroup var indexOptions: IndexOptions
    @OptionGroup var reading: DocumentOptions
    @Option(help: "Split of a corpus folder to read: train or validation.")
    var split = CorpusSplit.train
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Option(
        help: "Pairs of each group, evenly in the order of how often independent halves would fire together.")
    var pairs = 200
    @Option(help: "Tokens of the corpus on which independent halves would have to fire together.")
    var minExpected = 50.0
    @Option(help: "Permutations; a p-value is at least 1 / (permutations + 1).")
    var permutations = 19
    @Option(help: "Seed of the permutations.")
    var seed: UInt64 = 0
    @Option(help: "Pairs shown, those that say most of the label beyond their halves.")
    var top = 10
    @Flag(help: "All pairs as JSON instead of tables.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        for (name, value, range) in [
            ("pairs", pairs, 1...100_000),
            ("permutations", permutations, 1...10_000), ("top", top, 0...100_000),
        ] where !range.contains(value) {
            throw ValidationError(
                "--\(name) is \(value), expected \(range.lowerBound) to \(range.upperBound)")
        }
        if !(minExpected >= 0 && minExpected.isFinite) {
            throw ValidationError("--min-expected is \(minExpected), expected 0 or more")
        }
    }

    func run() throws {
        let index = try ExpertIndex(path: indexOptions.index)
        let folder = try HubCache().resolve(model ?? index.modelPath)
        let model = try MonetLanguageModel.load(folder)
        try model.accept(index, common.logger)
        let documents = try reading.documents(
            tokenizer: try? Tokenizer(folder: folder), modelFolder: folder, split: split)
        var settings = PairTest.Settings()
        (settings.permutations, settings.seed) = (permutations, seed)
        (settings.pairsPerGroup, settings.minimumExpected) = (pairs, minExpected)
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        let start = ContinuousClock.now
        let test: PairTest
        do {
            test = try PairTest(
                on: documents, model: model, backend: try compute.backend(), settings: settings
            ) { tokens, done in
                let seconds = max((ContinuousClock.now - start).seconds, 1e-9)
                line.show(
                    done == 0
                        ? "\(tokens.grouped) of \(documents.tokenCount.grouped) tokens  "
                            + "\((Double(tokens) / seconds).text(0)) tokens/s"
                        : "\(done.grouped) pairs")
                return !Interruption.isRequested
            }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
        line.clear()
        guard !test.pairs.isEmpty else {
            throw InsightError.invalidSetting(
                name: "\(documents.origin): the pairs to test", found: "none",
                expected: "some whose halves would fire together on \(minExpected.significant) of its "
                    + "\(test.tokens.grouped) tokens; read more, or lower --min-expected")
        }
        if json { return try StandardOutput.write(test.json()) }
        try StandardOutput.write(Self.text(test, top: top))
    }

    private static func text(_ test: PairTest, top: Int) -> String {
        var rows = [["group", "pairs", "measure", "observed", "permuted", "beyond all permutations"]]
        for (name, summary) in test.groups.map({ ("\($0)", test.summary(group: $0)) }) + [
            ("all", test.summary())
        ] {
            guard let summary else { continue }
            for (place, measure) in summary.measures.enumerated() {
                rows.append([
                    place == 0 ? name : "", place == 0 ? "\(summary.count)" : "",
                    measure.name.replacingOccurrences(of: "_", with: " "), measure.observed.significant,
                    measure.permuted.significant, "\((100 * measure.significant).text(1))%",
                ])
            }
        }
        var text = alignedTable(rows, textColumns: [2])
        text +=
            "\n\(test.tokens.grouped) tokens, \(test.heads) heads, \(test.permutations) permutations; tokens for joint "
            + "firing, bits for the rest. By chance, \((100 / Double(test.permutations + 1)).text(1))% are beyond all.\n"
        let strongest = test.pairs.filter { $0.labels != nil }
            .sorted { ($1.labels?.excess ?? 0) < ($0.labels?.excess ?? 0) }.prefix(top)
        guard !strongest.isEmpty else { return text }
        let list =
            [["expert", "left", "right", "both", "independent", "given label", "bits", "permuted"]]
            + strongest.map { pair in
                [
                    "\(pair.expert)", "\(pair.leftCount)", "\(pair.rightCount)", "\(pair.count)",
                    pair.joint.mean.text(1), pair.jointGivenLabel.map { $0.mean.text(1) } ?? "",
                    (pair.labels?.observed ?? 0).significant, (pair.labels?.mean ?? 0).significant,
                ]
            }
        return text + "\nMost about the label beyond their halves:\n" + alignedTable(list)
    }
}
