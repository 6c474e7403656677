// Trains a linear probe on a hook point's values: can a label be read off the residual stream?
//
//     swift run -c release ProbeHiddenValues checkpoints/demo runs/demo/corpus people blocks.2.hook_resid_post

import Foundation
import MonetInsight
import MonetModel
import MonetText

guard CommandLine.arguments.count == 5, let point = HookPoint(CommandLine.arguments[4]) else {
    print("usage: ProbeHiddenValues CHECKPOINT CORPUS LABEL HOOK")
    exit(64)
}

/// A text's mean value, and whether it has the label.
struct Example {
    var features: [Float]
    let isPositive: Bool
}

/// Mean values of the documents of a split.
func examples(_ split: CorpusSplit, _ model: MonetLanguageModel) async throws -> [Example] {
    let corpus = try Corpus(folder: CommandLine.arguments[2])
    let documents = try LabelledDocuments(corpus: corpus, split: split, limit: 60_000)
    guard let label = documents.labelSets[0].labels.firstIndex(of: CommandLine.arguments[3]) else {
        throw InsightError.unknownLabel(
            label: CommandLine.arguments[3], known: documents.labelSets[0].labels, origin: corpus.folder)
    }
    let reader = try ActivationReader(
        model: model, documents: documents, ActivationSelection(hooks: [point]))
    var result: [Example] = []
    for try await document in reader {
        guard let (values, shape) = document.values[point] else { continue }
        let width = shape.reduce(1, *)
        var mean = [Float](repeating: 0, count: width)
        for (place, value) in values.enumerated() {
            mean[place % width] += value * Float(width) / Float(values.count)
        }
        result.append(Example(features: mean, isPositive: documents.labels(document.document)[0] == label))
    }
    return result
}

do {
    let model = try MonetLanguageModel.load(CommandLine.arguments[1])
    var training = try await examples(.train, model)
    let heldOut = try await examples(.validation, model)
    let width = training[0].features.count
    var (weights, bias) = ([Float](repeating: 0, count: width), Float(0))
    func score(_ example: Example) -> Float {
        zip(weights, example.features).reduce(bias) { $0 + $1.0 * $1.1 }
    }
    // Logistic regression by gradient steps, one text at a time.
    for _ in 0..<40 {
        training.shuffle()
        for example in training {
            let error = 1 / (1 + exp(-score(example))) - (example.isPositive ? 1 : 0)
            for column in 0..<width { weights[column] -= 0.02 * error * example.features[column] }
            bias -= 0.02 * error
        }
    }
    let right = heldOut.count { (score($0) > 0) == $0.isPositive }
    let positive = heldOut.count { $0.isPositive }
    print("\(heldOut.count) held-out texts, \(positive) of the label")
    print(
        "the probe is right on \(100 * right / max(1, heldOut.count))%, always the commoner answer on "
            + "\(100 * max(positive, heldOut.count - positive) / max(1, heldOut.count))%")
} catch {
    print("error: \(error)")
    exit(1)
}
