import ArgumentParser
import Foundation
import MonetFoundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

struct PerplexityCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "perplexity",
        abstract: "Measure how well a model predicts a text.",
        discussion: """
            EXAMPLES
              monet perplexity --model checkpoints/demo -f book.txt
              monet perplexity --model checkpoints/demo --corpus corpora/demo --limit 50000
              monet perplexity --model checkpoints/demo --corpus corpora/demo --labels law,food
              cat book.txt | monet perplexity --model checkpoints/demo --stride 64 --json

            The text is read in overlapping windows of the model's context length. Each window scores \
            --stride new tokens, by default half a window, so that every token but the first ones has half \
            a window before it.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @OptionGroup var input: InputOptions
    @Option(help: ArgumentHelp("Score a corpus's held-out tokens instead of a text.", valueName: "dir"))
    var corpus: String?
    @Option(help: "Tokens per window; by default the model's context.")
    var context: Int?
    @Option(help: "New tokens scored per window; by default half of it.")
    var stride: Int?
    @Option(
        help: ArgumentHelp("Score only these labels of the corpus, separated by commas.", valueName: "list"))
    var labels: String?
    @Option(help: "Score at most this many tokens; of a corpus, equally many of every label.")
    var limit: Int?
    @Option(
        help: ArgumentHelp(
            "Compare predictions with this checkpoint's: share of equal next tokens, KL divergence.",
            valueName: "dir"))
    var reference: String?
    @Flag(help: "JSON instead of a line.")
    var json = false
    @OptionGroup var masking: MaskOptions
    @OptionGroup var steering: SteeringOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if let limit, limit < 2 { throw ValidationError("--limit is \(limit), expected 2 or more") }
        if corpus != nil, input.text != nil || input.file != nil || input.tokenIds != nil {
            throw ValidationError("Give a corpus or a text, not both.")
        }
        if let labels {
            if corpus == nil { throw ValidationError("--labels chooses from a --corpus.") }
            if labels.allSatisfy({ $0 == "," || $0.isWhitespace }) {
                throw ValidationError("--labels is empty, expected labels separated by commas")
            }
        }
    }

    func run() throws {
        let (model, tokenizer) = try modelOptions.load(common.logger)
        let backend = try compute.backend()
        var ids: [Int32]
        if let corpus {
            let opened = try Corpus(folder: corpus)
            guard opened.vocabularySize <= model.configuration.vocabularySize else {
                throw TextError.malformedCorpus(
                    path: corpus,
                    reason:
                        "it has \(opened.vocabularySize) pieces, the model \(model.configuration.vocabularySize)"
                )
            }
            let names = labels?.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }
            let documents = try LabelledDocuments(
                corpus: opened, split: .validation, limit: limit, labels: names)
            ids = (0..<documents.count).flatMap { documents.tokens($0) }
        } else {
            ids = try input.ids(
                tokenizer, folder: modelOptions.model, vocabularySize: model.configuration.vocabularySize)
            if let limit { ids = Array(ids.prefix(limit)) }
        }
        let window = context ?? model.configuration.contextLength
        let total = ids.count - 1
        var line = ProgressLine(isQuiet: common.quiet)
        Interruption.install()
        let start = ContinuousClock.now
        let compared = try reference.map { try MonetLanguageModel.load(try HubCache().resolve($0)) }
        let result = try Perplexity(
            of: ids, model: model, window: window, stride: stride ?? max(1, window / 2), backend: backend,
            reference: compared, mask: try masking.load(for: model, common.logger),
            steering: try steering.load(for: model, tokenizer, on: backend)
        ) { partial in
            let seconds = (ContinuousClock.now - start).seconds
            let rate = Double(partial.tokens) / seconds
            line.show(
                "\(partial.tokens.grouped) of \(total.grouped) tokens  perplexity \(partial.value.text(3))  "
                    + "\(rate.text(0)) tokens/s  \((Double(total - partial.tokens) / rate).durationText) left"
            )
            return !Interruption.isRequested
        }
        line.clear()
        if json {
            var members: [JSONValue.Member] = [
                .init("perplexity", .number(result.value)), .init("loss", .number(result.loss)),
                .init("tokens", .integer(result.tokens)), .init("context", .integer(window)),
            ]
            if compared != nil {
                members.append(.init("next_token_agreement", .number(result.agreement)))
                members.append(.init("kl_divergence", .number(result.meanDivergence)))
            }
            try StandardOutput.write(.object(members))
        } else {
            var line =
                "perplexity \(result.value.text(4))  loss \(result.loss.text(5))  tokens \(result.tokens.grouped)"
            if compared != nil {
                line += "  same next token \((100 * result.agreement).text(2))%"
                line += "  divergence \(result.meanDivergence.text(6))"
            }
            try StandardOutput.write(line + "\n")
        }
        if Interruption.isRequested { throw Interruption.exitCode }
    }
}
