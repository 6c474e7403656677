// Lists the experts that a word brings up and another does not: a first look at what they know.
//
//     swift run -c release ExpertsOfAWord checkpoints/demo "A shark is a fish" "A priest is a man"

import Foundation
import MonetCompute
import MonetInsight
import MonetModel
import MonetText

guard CommandLine.arguments.count == 4 else {
    print("usage: ExpertsOfAWord CHECKPOINT TEXT OTHER-TEXT")
    exit(64)
}
/// Each expert's mean score over the tokens of a text, from its strongest ones.
func scores(_ text: String, _ model: MonetLanguageModel, _ tokenizer: Tokenizer) throws -> [UnitID: Double] {
    let ids = try tokenizer.encode(text, addBegin: true)
    let trace = try RoutingTrace(
        of: ids, model: model, tokenizer: tokenizer, count: 64, backend: CPUBackend())
    var sums: [UnitID: Double] = [:]
    for token in trace.tokens {
        for expert in token.groups.flatMap(\.experts) { sums[expert.expert, default: 0] += expert.score }
    }
    return sums.mapValues { $0 / Double(trace.tokens.count) }
}

do {
    let model = try MonetLanguageModel.load(CommandLine.arguments[1])
    let tokenizer = try Tokenizer(folder: CommandLine.arguments[1])
    let first = try scores(CommandLine.arguments[2], model, tokenizer)
    let second = try scores(CommandLine.arguments[3], model, tokenizer)
    let differences = first.map { (expert: $0.key, difference: $0.value - second[$0.key, default: 0]) }
    for (expert, difference) in differences.sorted(by: { $0.difference > $1.difference }).prefix(10) {
        print("\(expert)  \(difference)")
    }
} catch {
    print("error: \(error)")
    exit(1)
}
