import MonetInsight
import MonetModel
import MonetText

extension SteeringSweep.Method {
    /// Experts that are forced to fire with each of some scores.
    public static func forcing(_ units: [UnitID], scores: [Float], name: String) -> Self {
        Self(name: name, strengths: scores) { score in
            var steering = Steering()
            steering.units = units.map { .init(group: $0.group, index: $0.index, score: score) }
            return steering
        }
    }

    /// Random experts in the place of some, as many in every group, that fire about as often; one method for each draw.
    ///
    /// - `counts`: on neutral text.
    public static func forcingRandom(
        like units: [UnitID], _ counts: FiringCounts, draws: Int, scores: [Float], seed: UInt64
    ) -> [Self] {
        var mask = UnitMask(counts.units)
        for (group, own) in Dictionary(grouping: units, by: \.group) {
            mask.remove(own.map(\.index), group: group)
        }
        return (0..<max(0, draws)).map { draw in
            let other = counts.matchedMask(mask, seed: seed &+ UInt64(draw))
            let drawn = other.groups.flatMap { group in
                other.entries(group: group).map { UnitID(group: group, index: $0.index) }
            }
            return forcing(drawn, scores: scores, name: "random experts")
        }
    }

    /// A vector, such as a difference of means, that is added at a hook point.
    public static func adding(_ vector: [Float], at point: HookPoint, scales: [Float], name: String) -> Self {
        Self(name: name, strengths: scales) { scale in
            var steering = Steering()
            steering.directions = [.init(point: point, vector: vector, scale: scale)]
            return steering
        }
    }
}

extension ToxicityClassifier {
    /// A classifier of a label's texts against all others', trained on pieces of 64 tokens.
    ///
    /// - Throws: `InsightError.unknownLabel`, `EvaluationError.tooFewExamples`.
    public static func trained(
        onLabel label: String, of documents: LabelledDocuments, tokenizer: Tokenizer
    ) throws -> ToxicityClassifier {
        let labels = documents.labelSets.first?.labels ?? []
        guard let number = labels.firstIndex(of: label) else {
            throw InsightError.unknownLabel(label: label, known: labels, origin: documents.origin)
        }
        let pieceTokens = 64
        let examples = try (0..<documents.count).flatMap { document -> [Example] in
            let tokens = documents.tokens(document)
            return try stride(from: 0, to: tokens.count, by: pieceTokens).map { start in
                Example(
                    text: try tokenizer.decode(Array(tokens[start..<min(tokens.count, start + pieceTokens)])),
                    isToxic: documents.labels(document)[0] == number)
            }
        }
        return try trained(on: examples, source: documents.origin)
    }
}
