import ArgumentParser
import Foundation
import MonetEvaluation
import MonetFoundation
import MonetText

struct ToxicityScoreCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "score",
        abstract: "Score the toxicity of texts.",
        discussion: """
            EXAMPLES
              monet toxicity score "The shark is a large fish."
              monet toxicity score < lines.txt

            Prints a score from 0 to 1 and the text for each argument, or each line of standard input.
            """)

    @Argument(help: "Texts; by default the lines of standard input.")
    var texts: [String] = []
    @OptionGroup var scorerOptions: ScorerOptions
    @Flag(help: "Print a line of JSON for each text.")
    var json = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        let scorer = try scorerOptions.make(isQuiet: common.quiet)
        Interruption.install()
        func write(_ text: String) throws {
            let score = try scorer.scores(of: [text])[0]
            if json {
                let line: JSONValue = ["text": .string(text), "score": .number(score)]
                try StandardOutput.write(line.serialized() + "\n")
            } else {
                try StandardOutput.write("\(score.text(4))  \(text)\n")
            }
        }
        do {
            if texts.isEmpty { try StandardInput.forEachLine(write) } else { try texts.forEach(write) }
        } catch is CancellationError {
            throw Interruption.exitCode
        }
        if !common.quiet { StandardError.write(scorer.summary + "\n") }
    }
}

struct ToxicityTrainScorerCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "train-scorer",
        abstract: "Train the offline scorer on scored texts.",
        discussion: """
            EXAMPLES
              monet toxicity train-scorer corpora/toxicity/comments.jsonl --neutral Corpus --out scorer.json

            Each JSONL line holds a text and a number; a text counts as toxic from 0.5 on. A fifth of the \
            texts is held out, and the area under the ROC curve (AUC) on them is stored with the scorer.
            """)

    @Argument(help: ArgumentHelp("Scored texts.", valueName: "path"))
    var corpus: String
    @Option(help: "JSONL column with the number.")
    var number = "toxicity"
    @Option(help: "JSONL column with the text.")
    var textKey = "text"
    @Option(
        help: ArgumentHelp(
            "Additional non-toxic texts, used only for training: a file or folder. May be repeated.",
            valueName: "path"))
    var neutral: [String] = []
    @Option(help: "Description of the texts, shown with results; by default the file's name.")
    var source: String?
    @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The file to write.", valueName: "path"))
    var out: String
    @OptionGroup var overwriting: OverwriteOption
    @OptionGroup var common: CommonOptions

    func run() throws {
        try overwriting.check(out)
        var examples: [ToxicityClassifier.Example] = []
        try CorpusSource(path: corpus, textKey: textKey).forEachDocument { document in
            guard let value = document.columns?[number]?.doubleValue else {
                throw CommandError.malformedInput(
                    source: corpus, reason: "document \(examples.count + 1) has no number under \"\(number)\""
                )
            }
            examples.append(.init(text: document.text, isToxic: value >= 0.5))
        }
        var neutralTexts: [String] = []
        for path in neutral {
            try CorpusSource(path: path, textKey: textKey).forEachDocument { neutralTexts.append($0.text) }
        }
        Interruption.install()
        var line = ProgressLine(isQuiet: common.quiet)
        do {
            let classifier = try ToxicityClassifier.trained(
                on: examples, neutral: neutralTexts, source: source ?? corpus.lastPathName
            ) { pass, passes in
                line.show("pass \(pass) of \(passes)")
                return !Interruption.isRequested
            }
            line.clear()
            try classifier.write(to: out)
            if !common.quiet {
                StandardError.write(
                    "wrote \(out): \(classifier.trainingCount.grouped) texts, "
                        + "AUC \(classifier.heldOutAUC.text(3)) on \(classifier.heldOutCount.grouped) held out\n"
                )
            }
        } catch is CancellationError {
            line.clear()
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
    }
}
