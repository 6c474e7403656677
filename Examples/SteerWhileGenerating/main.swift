// Continues a text as it is, with an expert forced to fire from some token on, and with a head removed.
//
//     swift run -c release SteerWhileGenerating checkpoints/demo "The sea" 1/223 3

import Foundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

guard CommandLine.arguments.count == 5, let score = Float(CommandLine.arguments[4]) else {
    print("usage: SteerWhileGenerating CHECKPOINT TEXT GROUP/EXPERT SCORE")
    exit(64)
}
do {
    let (folder, text) = (CommandLine.arguments[1], CommandLine.arguments[2])
    let model = try MonetLanguageModel.load(folder)
    let tokenizer = try Tokenizer(folder: folder)
    let expert = try UnitID(parsing: CommandLine.arguments[3], in: model.units)
    let prompt = try tokenizer.encode(text, addBegin: true)

    // The expert fires as if one more head had routed to it, on the last token of the prompt and all new ones.
    var forced = Steering()
    forced.units = [
        .init(
            group: expert.group, index: expert.index, score: score,
            positions: .init([(prompt.count - 1)...(Int.max - 1)]))
    ]
    var headless = Steering()
    headless.replacements = [.init(point: HookPoint(.z, layer: 0), head: 0, content: .zero)]

    var settings = GenerationSettings()
    settings.maxNewTokens = 24
    settings.sampling = .greedy
    for (name, steering) in [("as it is", nil), ("\(expert) forced", forced), ("without head 0.0", headless)]
    {
        var generator = TextGenerator(model: model, tokenizer: tokenizer)
        generator.steering = steering
        print("\(name): \(text)", terminator: "")
        _ = try generator.generate(prompt, settings: settings) { step in
            print(step.text, terminator: "")
            return true
        }
        print()
    }
} catch {
    print("error: \(error)")
    exit(1)
}
