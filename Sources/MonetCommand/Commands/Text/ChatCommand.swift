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
            message; /reset clears the conversation, /exit or Ctrl-D ends it, /help lists the commands, and Ctrl-C \
            stops an answer.
            """)

    @OptionGroup var modelOptions: ModelOptions
    @Option(help: "The system message.")
    var system: String?
    @OptionGroup var samplingOptions: SamplingOptions
    @OptionGroup var masking: MaskOptions
    @OptionGroup var steering: SteeringOptions
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
        let backend = try compute.backend()
        var generator = TextGenerator(model: model, tokenizer: tokenizer, backend: backend)
        generator.mask = try masking.load(for: model, common.logger)
        generator.steering = try steering.load(for: model, tokenizer, on: backend)
        var cache = try samplingOptions.cache(for: model)
        var settings = try samplingOptions.settings(for: model, common.logger)
        var stopStrings = samplingOptions.stopStrings(for: model)
        AnswerEnd(template, tokenizer)?.add(to: &settings, &stopStrings, for: model.configuration)
        let opening = system.map { [ChatMessage(role: "system", content: $0)] } ?? []
        var messages = opening
        func answer(_ line: String) throws {
            let asked = messages + [ChatMessage(role: "user", content: line)]
            let text = try template.render(asked, specialTokens: tokenizer.specialTokenTexts)
            let ids = try tokenizer.encode(text, parsingSpecial: true)
            // The conversation so far is in the cache, so only new tokens run. At least one
            // must run, to have logits.
            let known = zip(cache.tokens, ids.dropLast()).prefix { $0 == $1 }.count
            cache.truncate(to: known)
            Interruption.install()
            defer { signal(SIGINT, SIG_DFL) }
            let result = try generator.generate(
                Array(ids[known...]), settings: settings, stopStrings: stopStrings, cache: &cache
            ) { step in
                try StandardOutput.write(foreign: step.text)
                return !Interruption.isRequested
            }
            try StandardOutput.write("\n")
            messages = asked + [ChatMessage(role: "assistant", content: result.text)]
            settings.sampling.seed &+= 1
        }
        prompt()
        try StandardInput.forEachLine(orInvalid: { error in
            say("\(error); the conversation goes on without this line")
            prompt()
        }) { line in
            switch line.trimmingCharacters(in: .whitespaces) {
            case "": break
            case "/exit": throw CleanExit.message("")
            case "/reset": messages = opening
            case "/help":
                StandardError.write(
                    "/reset clears the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer\n")
            case let command where command.hasPrefix("/") && !command.contains(" "):
                say("there is no command \(command); /help lists those that exist")
            default:
                do {
                    try answer(line)
                } catch ModelError.contextExceeded(let length, let limit) {
                    say(
                        "the conversation would have \(length) tokens, and the context holds \(limit): the message is not part of it; /reset begins a new one"
                    )
                } catch let error as TextError {
                    say("\(error); the message is not part of the conversation")
                }
            }
            prompt()
        }
    }

    private func say(_ text: String) { StandardError.write("error: \(text)\n") }

    private func prompt() {
        if StandardInput.isTerminal { StandardError.write("> ") }
    }
}
