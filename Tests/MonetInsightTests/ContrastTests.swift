import MonetCompute
import MonetInsight
import MonetModel
import TestSupport
import Testing

@Suite struct ContrastTests {
    /// Rates, means and directions against a recount token by token.
    @Test(arguments: Family.allCases)
    func ratesAreThoseOfARecount(family: Family) throws {
        let model = try scrambledModel(smallConfiguration(family), seed: 6)
        var source = TensorSource(seed: 2)
        let positive = [7, 1, 12].map { source.ids($0, below: 30) }
        let negative = [4, 0, 9].map { source.ids($0, below: 67) }
        let point = HookPoint(.residPost, layer: 1)
        let contrast = try UnitContrast(positive: positive, negative: negative, model: model, hooks: [point])
        #expect(contrast.positiveTokens == 20 && contrast.negativeTokens == 13)
        func recount(_ texts: [[Int32]]) throws -> (
            counts: [UnitID: Int], sums: [UnitID: Double], mean: [Double]
        ) {
            var (counts, sums): ([UnitID: Int], [UnitID: Double]) = ([:], [:])
            var mean = [Double](repeating: 0, count: 36)
            let tokens = Double(texts.reduce(0) { $0 + $1.count })
            for text in texts where !text.isEmpty {
                var input = ForwardInput([text])
                input.keepsUnits = true
                input.hooks.observed = [point]
                let output = try model.forward(input)
                for (place, value) in try output.observed(.residPost, 1).floats().enumerated() {
                    mean[place % 36] += Double(value) / tokens
                }
                for group in output.groups {
                    var reader = group.reader()
                    for row in text.indices {
                        reader.visit(row) { unit, score in
                            counts[UnitID(group: group.group, index: unit), default: 0] += 1
                            sums[UnitID(group: group.group, index: unit), default: 0] += Double(score)
                        }
                    }
                }
            }
            return (counts, sums, mean)
        }
        let (a, b) = (try recount(positive), try recount(negative))
        #expect(Set(contrast.units.map(\.unit)) == Set(a.counts.keys).union(b.counts.keys))
        for unit in contrast.units {
            let (n, m) = (Double(a.counts[unit.unit] ?? 0), Double(b.counts[unit.unit] ?? 0))
            #expect(abs(unit.riskDifference - (n / 20 - m / 13)) < 1e-12)
            #expect(abs(unit.positiveMean - (a.sums[unit.unit] ?? 0) / 20) < 1e-5)
            #expect(
                abs(unit.meanWhereFiring * (n + m) - (a.sums[unit.unit] ?? 0) - (b.sums[unit.unit] ?? 0))
                    < 1e-4)
        }
        let direction = try #require(contrast.directions[point])
        #expect(zip(direction, zip(a.mean, b.mean)).allSatisfy { abs(Double($0) - ($1.0 - $1.1)) < 1e-5 })
        let strongest = contrast.strongest(1000)
        #expect(strongest.allSatisfy { $0.riskDifference > 0 })
        #expect(zip(strongest, strongest.dropFirst()).allSatisfy { $0.riskDifference >= $1.riskDifference })
        #expect(contrast.strongest(3, group: 0).allSatisfy { $0.unit.group == 0 })
        // Without its first token, a text counts like one whose first token has no part in the sums.
        let without = try UnitContrast(
            positive: positive, negative: negative, model: model, firstPosition: 1, hooks: [point])
        #expect(without.positiveTokens == 17 && without.negativeTokens == 11)
        func firing(_ texts: [[Int32]], at position: Int, _ id: UnitID) throws -> Int {
            try texts.filter { !$0.isEmpty }.count { text in
                var input = ForwardInput([text])
                input.keepsUnits = true
                var fires = false
                for group in try model.forward(input).groups where group.group == id.group {
                    var reader = group.reader()
                    reader.visit(position) { unit, _ in fires = fires || unit == id.index }
                }
                return fires
            }
        }
        for unit in without.units.prefix(20) {
            let all = a.counts[unit.unit] ?? 0
            let expected = all - (try firing(positive, at: 0, unit.unit))
            #expect(abs(unit.positiveRate - Double(expected) / 17) < 1e-12)
        }
        let same = try UnitContrast(positive: positive, negative: positive, model: model)
        #expect(same.strongest(5).isEmpty, "equal texts differ in nothing")
    }

    @Test func badInput() throws {
        let model = try scrambledModel(smallConfiguration(.vertical), seed: 6)
        #expect(throws: InsightError.self) { try UnitContrast(positive: [[]], negative: [[1]], model: model) }
        #expect(throws: InsightError.self) { try UnitContrast(positive: [[1]], negative: [], model: model) }
        #expect(throws: ModelError.self) {
            try UnitContrast(
                positive: [[1]], negative: [[2]], model: model, hooks: [HookPoint(.residPost, layer: 9)])
        }
        #expect(throws: CancellationError.self) {
            try UnitContrast(positive: [[1]], negative: [[2]], model: model) { _ in false }
        }
    }
}
