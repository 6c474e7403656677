import Foundation
import MonetCompute
import MonetEvaluation
import MonetInsight
import MonetModel
import MonetText
import TestSupport
import Testing

@Suite struct SteeringSweepTests {
    private func model() throws -> (MonetLanguageModel, Tokenizer) {
        let tokenizer = try Tokenizer(path: Fixture.path("text/trained.model"))
        var c = smallConfiguration(.vertical)
        c.vocabularySize = tokenizer.vocabularySize
        return (try scrambledModel(c, seed: 21), tokenizer)
    }

    private func forced(_ score: Float) -> Steering {
        var steering = Steering()
        steering.units = [.init(group: 0, index: 7, score: score), .init(group: 1, index: 42, score: score)]
        return steering
    }

    /// Effects and damage of every point against passes of each prompt and text alone.
    @Test func pointsAreThoseOfPassesAlone() throws {
        let (model, tokenizer) = try model()
        let target = AttributionTarget([.init(token: 5, weight: 1), .init(token: 9, weight: -2)])
        let prompts = try ["the sea", "a ship of the law and", "rock"].map { try tokenizer.encode($0) }
        let neutral = LabelledDocuments(tokens: [[4, 8, 15, 16, 23], [42, 4, 8]], origin: "test")
        let effect = try SteeringEffect(
            .metric(target), prompts: prompts, source: "test", model: model, tokenizer: tokenizer)
        var calls = 0
        let sweep = try SteeringSweep(
            [.init(name: "force", strengths: [0.5, 2]) { forced($0) }], effect: effect, neutral: neutral
        ) { done, count in
            calls += 1
            return done <= count && count == 3
        }
        #expect(calls >= 3 && sweep.curves.count == 1 && sweep.curves[0].points.map(\.strength) == [0.5, 2])
        func logits(_ tokens: [Int32], _ steering: Steering?) throws -> [[Float]] {
            var sequence = ForwardSequence(tokens)
            sequence.steering = steering
            let output = try model.forward(ForwardInput([sequence]))
            let all = try model.logits(output.hidden.value)
            return tokens.indices.map { all.slice($0..<($0 + 1)).floats() }
        }
        for (point, steering) in [(sweep.plain, nil)]
            + sweep.curves[0].points.map({ ($0, Optional(forced($0.strength))) })
        {
            let effects = try prompts.map { tokens -> Double in
                let last = try #require(try logits(tokens, steering).last)
                return Double(last[5]) - 2 * Double(last[9])
            }
            let mean = effects.reduce(0, +) / 3
            let variance = effects.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / 2
            #expect(abs(point.effect - mean) < 1e-3)
            #expect(abs(point.effectError - (variance / 3).squareRoot()) < 1e-3)
            var (loss, hits, count) = (0.0, 0, 0)
            for document in 0..<2 {
                let tokens = neutral.tokens(document)
                for (row, next) in zip(try logits(tokens, steering), tokens.dropFirst()) {
                    let largest = Double(row.max() ?? 0)
                    let sum = row.reduce(0.0) { $0 + exp(Double($1) - largest) }
                    loss += largest + log(sum) - Double(row[Int(next)])
                    hits += row.indices.max { row[$0] < row[$1] } == Int(next) ? 1 : 0
                    count += 1
                }
            }
            #expect(point.neutral.tokens == count && point.neutral.hits == hits)
            #expect(abs(point.neutral.loss - loss / Double(count)) < 1e-4)
        }
        #expect(sweep.plain.effect != sweep.curves[0].points[1].effect)
        let svg = sweep.svg(effect: "a < b")
        #expect(svg.contains("a &lt; b") && svg.contains("force"))
        #expect(sweep.json()["curves"]?.arrayValue?.count == 1)
    }

    /// Draws of one name become one curve of means.
    @Test func randomDrawsAreAveraged() throws {
        let (model, tokenizer) = try model()
        let effect = try SteeringEffect(
            .metric(AttributionTarget(token: 5)), prompts: [[4, 8]], source: "test", model: model,
            tokenizer: tokenizer)
        let neutral = LabelledDocuments(tokens: [[4, 8, 15]], origin: "test")
        let methods = (0..<3).map { draw in
            SteeringSweep.Method(name: "random", strengths: [1]) { _ in forced(Float(draw + 1)) }
        }
        let sweep = try SteeringSweep(methods, effect: effect, neutral: neutral)
        let mean = try #require(sweep.meanCurves.first)
        #expect(sweep.meanCurves.count == 1 && mean.draws == 3)
        let effects = sweep.curves.map { $0.points[0].effect }
        #expect(abs(mean.points[0].effect - effects.reduce(0, +) / 3) < 1e-12)
        #expect(mean.points[0].neutral.tokens == 3 * 2)
    }

    @Test func badInput() throws {
        let (model, tokenizer) = try model()
        for prompts in [[], [[]], [[1], []]] as [[[Int32]]] {
            #expect(throws: EvaluationError.self) {
                try SteeringEffect(
                    .metric(AttributionTarget(token: 5)), prompts: prompts, source: "p.txt", model: model,
                    tokenizer: tokenizer)
            }
        }
        #expect(throws: ModelError.self) {
            try SteeringEffect(
                .metric(AttributionTarget(token: 5)), prompts: [Array(repeating: 4, count: 65)],
                source: "p.txt",
                model: model, tokenizer: tokenizer)
        }
        let effect = try SteeringEffect(
            .metric(AttributionTarget(token: 5)), prompts: [[4]], source: "test", model: model,
            tokenizer: tokenizer)
        #expect(throws: CancellationError.self) {
            try SteeringSweep(
                [], effect: effect, neutral: LabelledDocuments(tokens: [[4, 8]], origin: "test")
            ) { _, _ in false }
        }
    }
}
