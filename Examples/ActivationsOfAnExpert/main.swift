// Reads a corpus and prints where an expert fires most, document by document, in constant memory.
//
//     swift run -c release ActivationsOfAnExpert checkpoints/demo runs/demo/corpus 1/223

import Foundation
import MonetInsight
import MonetModel
import MonetText

guard CommandLine.arguments.count == 4 else {
    print("usage: ActivationsOfAnExpert CHECKPOINT CORPUS GROUP/EXPERT")
    exit(64)
}
do {
    let model = try MonetLanguageModel.load(CommandLine.arguments[1])
    let tokenizer = try Tokenizer(folder: CommandLine.arguments[1])
    let corpus = try Corpus(folder: CommandLine.arguments[2])
    let expert = try UnitID(parsing: CommandLine.arguments[3], in: model.units)
    let documents = try LabelledDocuments(corpus: corpus, split: .train, limit: 20_000)
    let reader = try ActivationReader(
        model: model, documents: documents, ActivationSelection(units: .these([expert])))

    var (tokens, firings) = (0, 0)
    var strongest: [(score: Float, text: String)] = []
    for try await document in reader {
        tokens += document.tokens.count
        firings += document.scores.count
        for (token, score) in zip(document.scores.tokens, document.scores.scores)
        where strongest.count < 10 || score > strongest[strongest.count - 1].score {
            let context = document.tokens[max(0, Int(token) - 8)...Int(token)]
            strongest.append((score, try tokenizer.decode(Array(context))))
            strongest.sort { $0.score > $1.score }
            strongest.removeLast(max(0, strongest.count - 10))
        }
    }
    print("\(expert) fires on \(firings) of \(tokens) tokens, most at the ends of:")
    for (score, text) in strongest {
        print(String(format: "%.3f", score), text.split(separator: "\n").joined(separator: " "))
    }
} catch {
    print("error: \(error)")
    exit(1)
}
