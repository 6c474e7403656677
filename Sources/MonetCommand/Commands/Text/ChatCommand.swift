import ArgumentParser
import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import MonetText

struct ChatCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "chat",
        abstract: "Talk to a chat model.",
        discussion: """
            EXAMPLES
              monet chat --model MonetLLM/monet-vd-1.4B-100BT-chat-hf
              monet chat --model checkpoints/chat --system "Answer in one sentence." --seed 1
              echo "What is the sea?" | monet chat --model checkpoints/chat --greedy

            The prompt is built with the chat template in chat_template.jinja or tokenizer_config.json. Each line of input is a \
            message; /reset clears the conversation, /exit or Ctrl-D ends it, and Ctrl-C stops an answer.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: "The system message.")
    var system: String?
    @OptionGroup var samplingOptions: SamplingOptions
    @OptionGroup var masking: MaskOptions
    @OptionGroup var compute: ComputeOptions
    @OptionGroup var common: CommonOptions

    func run() throws {
        let (model, tokenizer) = try modelOptions.load(common.logger)
        guard let tokenizer else {
            throw CommandError.missingTokenizer(folder: modelOptions.model, purpose: "a chat")
        }
        guard let source = tokenizer.chatTemplate else {
            throw TextError.missingTemplate(path: tokenizer.chatTemplatePath)
        }
        let template = try ChatTemplate(source)
        var generator = TextGenerator(model: model, tokenizer: tokenizer, backend: try compute.backend())
        generator.mask = try masking.load(for: model, common.logger)
        var cache = try samplingOptions.cache(for: model)
        var settings = try samplingOptions.settings(for: model, common.logger)
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        var messages = opening
        prompt()
        try StandardInput.forEachLine { line in
            switch line.trimmingCharacters(in: .whitespaces) {
            case "": break
            case "/exit": throw CleanExit.message("")
            case "/reset": messages = opening
            default:
                messages.append(ChatMessage(role: "user", content: line))
                let text = try template.render(messages, specialTokens: tokenizer.specialTokenTexts)
                let ids = try tokenizer.encode(text, parsingSpecial: true)
                // The conversation so far is in the cache, so only new tokens run. At least one
                // must run, to have logits.
                let known = zip(cache.tokens, ids.dropLast()).prefix { $0 == $1 }.count
                cache.truncate(to: known)
                Interruption.install()
                let result = try generator.generate(
                    Array(ids[known...]), settings: settings,
                    stopStrings: samplingOptions.stopStrings(for: model), cache: &cache
                ) { step in
                    StandardOutput.write(step.text)
                    return !Interruption.isRequested
                }
                StandardOutput.write("\n")
                signal(SIGINT, SIG_DFL)
                messages.append(ChatMessage(role: "assistant", content: result.text))
                settings.sampling.seed &+= 1
            }
            prompt()
        }
    }

    private func prompt() {
        if StandardInput.isTerminal { StandardError.write("> ") }
    }
}
