// Continues twenty prompts in one batch, each without the experts that the one before it fired most.
//
//     swift run -c release PromptsUnderMasks checkpoints/demo

import Foundation
import MonetGeneration
import MonetInsight
import MonetModel
import MonetText

guard CommandLine.arguments.count == 2 else {
    print("usage: PromptsUnderMasks CHECKPOINT")
    exit(64)
}
do {
    let folder = CommandLine.arguments[1]
    let model = try MonetLanguageModel.load(folder)
    let tokenizer = try Tokenizer(folder: folder)
    let prompts = [
        "The sea", "And God said", "shark:", "import", "A kind of", "lemon:", "return", "The king",
        "for i in",
        "#include", "water is", "Moses", "The hacker", "bread:", "local function", "Paris:", "gold is",
        "The bird",
        "if not", "Jesus said",
    ]
    // What differs between sequences, masks and steering, need not differ between batches: all run together.
    let engine = TextEngine(try BatchEngine(model: model), tokenizer: tokenizer)
    var masks: [UnitMask] = [UnitMask(model.units)]
    for prompt in prompts.dropLast() {
        let scores = try MeanScores(of: tokenizer.encode(prompt, addBegin: true), model: model)
        let strongest = scores.byUnit.sorted { $0.value > $1.value }.prefix(20).map(\.key)
        var mask = UnitMask(model.units)
        for (group, units) in Dictionary(grouping: strongest, by: \.group) {
            mask.remove(units.map(\.index), group: group)
        }
        masks.append(mask)
    }
    var settings = GenerationSettings()
    settings.maxNewTokens = 16
    settings.sampling = .greedy
    var names: [Int: String] = [:]
    for (prompt, mask) in zip(prompts, masks) {
        let ids = try tokenizer.encode(prompt, addBegin: true)
        names[try engine.submit(GenerationRequest(ids, settings: settings, mask: mask))] =
            "\(prompt) (\(mask.count) experts removed)"
    }
    while !engine.isIdle {
        for event in engine.step() {
            switch event.kind {
            case .finished(let result): print("\(names[event.request] ?? "") →\(result.text)")
            case .failed(let error): throw error
            case .scored, .step, .observed: break
            }
        }
    }
} catch {
    print("error: \(error)")
    exit(1)
}
