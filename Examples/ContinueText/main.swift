// Continues a text with a Monet model, printing it as it comes.
//
//     swift run -c release ContinueText checkpoints/demo "And God said"

import Foundation
import MonetCompute
import MonetGeneration
import MonetModel
import MonetText

guard CommandLine.arguments.count == 3 else {
    print("usage: ContinueText CHECKPOINT TEXT")
    exit(64)
}
do {
    let (folder, text) = (CommandLine.arguments[1], CommandLine.arguments[2])
    let model = try MonetLanguageModel.load(folder)
    let tokenizer = try Tokenizer(folder: folder)
    let generator = TextGenerator(model: model, tokenizer: tokenizer, backend: CPUBackend())

    var settings = GenerationSettings()
    settings.maxNewTokens = 64
    settings.sampling.seed = 1
    print(text, terminator: "")
    let result = try generator.generate(tokenizer.encode(text, addBegin: true), settings: settings) { step in
        print(step.text, terminator: "")
        return true
    }
    print("\n\(result.tokens.count) tokens, ended by \(result.finishReason.rawValue)")
} catch {
    print("error: \(error)")
    exit(1)
}
