import ArgumentParser
import Foundation
import MonetFoundation
import MonetInsight
import MonetModel
import MonetText

struct ExpertsExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Let the model describe what experts stand for, and store it in the index.",
        discussion: """
            EXAMPLES
              monet experts explain 5/147040 --index experts.sqlite
              monet experts explain 5/147040 0/12 --index experts.sqlite --samples 5

            In the prompt, {expert} is replaced by the mean embedding of the tokens that fire the expert; the \
            model's continuation is the description. If the model cannot predict the prompt itself, the \
            description is noise, and the command warns.
            """)

    @Argument(help: ArgumentHelp("Experts, such as 0/1777.", valueName: "group/index"))
    var experts: [String]
    @OptionGroup var indexOptions: IndexOptions
    @Option(
        name: [.customShort("m"), .long],
        help: ArgumentHelp("The model; by default the folder that the index names.", valueName: "dir"))
    var model: String?
    @Option(help: "The question, with {expert} for the expert.")
    var prompt = SelfExplanation.defaultPrompt
    @Option(help: "Number of answers: the most likely one, then samples.")
    var samples = 3
    @Option(name: [.customShort("n"), .long], help: "Maximum tokens of an answer.")
    var maxNewTokens = 32
    @Option(help: "Seed of the samples.")
    var seed: UInt64 = 0
    @Flag(help: "JSON instead of text.")
    var json = false
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func validate() throws {
        if !(1...100).contains(samples) {
            throw ValidationError("--samples is \(samples), expected 1 to 100")
        }
        if !(1...1000).contains(maxNewTokens) {
            throw ValidationError("--max-new-tokens is \(maxNewTokens), expected 1 to 1000")
        }
    }

    func run() throws {
        let index = try ExpertIndex(path: indexOptions.index, writable: true)
        let ids = try experts.map {
            try UnitID(parsing: $0, in: index.units)
        }
        let folder = try HubCache().resolve(model ?? index.modelPath)
        let model = try MonetLanguageModel.load(folder)
        try model.accept(index, common.logger)
        let explanation = try SelfExplanation(
            model: model, tokenizer: Tokenizer(folder: folder), backend: try compute.backend(), prompt: prompt
        )
        if !explanation.isCredible {
            StandardError.write(
                "warning: the loss on the question is \(explanation.promptLoss.text(2)) nats per token "
                    + "(credible below \(SelfExplanation.credibleLoss.text(1))): its answers are noise\n")
        }
        var results: [JSONValue] = []
        for id in ids {
            let explanations = try explanation.explanations(
                of: id, in: index, samples: samples, seed: seed, maxNewTokens: maxNewTokens)
            try index.replaceOwnExplanations(of: id, by: explanations)
            let answers = explanations.map(\.text)
            results.append([
                "expert": .string(id.description), "credible": .bool(explanation.isCredible),
                "prompt_loss": .number(explanation.promptLoss),
                "answers": .array(answers.map { .string($0) }),
            ])
            if json { continue }
            try StandardOutput.write("\(id)\n")
            if answers.isEmpty { try StandardOutput.write("  never fired in the corpus of this index\n") }
            for answer in answers {
                let doubt = explanation.isCredible ? "" : "noise: "
                try StandardOutput.write("  \(doubt)\(JSONValue.string(answer).serialized())\n")
            }
        }
        if json { try StandardOutput.write(.array(results)) }
    }
}
