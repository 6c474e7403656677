import Foundation
import MonetEvaluation
import MonetFoundation
import TestSupport
import Testing

/// Scores of texts and statistics against the packages that the benchmarks use (`Fixtures/unlearning/make-golden.py`).
@Suite struct UnlearningStatisticsTests {
    private static func golden() throws -> JSONValue {
        try JSONValue(contentsOfFile: Fixture.path("unlearning/golden.json"))
    }

    @Test func stemsAreThoseOfNLTK() throws {
        let stems = try #require(Self.golden()["stems"]?.members)
        #expect(stems.count > 100)
        for member in stems {
            #expect(PorterStemmer.stem(member.key) == member.value.stringValue, "\(member.key)")
        }
    }

    /// Ratios of the same integers, so equal but for the last bit.
    @Test func longestSubsequencesAreThoseOfRougeScore() throws {
        let cases = try #require(Self.golden()["rouge"]?.arrayValue)
        #expect(cases.count > 30)
        for own in cases {
            let (reference, candidate) = (
                try #require(own["reference"]?.stringValue), try #require(own["candidate"]?.stringValue)
            )
            let score = RougeL(
                reference: reference, candidate: candidate,
                stems: try #require(own["stems"]?.boolValue as Bool?))
            for (key, value) in [
                ("precision", score.precision), ("recall", score.recall), ("f", score.fMeasure),
            ] {
                let expected = try #require(own[key]?.doubleValue)
                #expect(abs(value - expected) < 1e-15, "\(key) of '\(reference)' and '\(candidate)'")
            }
        }
    }

    /// Small probabilities too: SciPy's exact method loses some digits where it subtracts, below 1e-12.
    @Test func testsAreThoseOfSciPy() throws {
        let cases = try #require(Self.golden()["ks"]?.arrayValue)
        for own in cases {
            func sample(_ key: String) -> [Double] { own[key]?.arrayValue?.compactMap(\.doubleValue) ?? [] }
            let test = try #require(KolmogorovSmirnovTest(sample("first"), sample("second")))
            let (statistic, p) = (
                try #require(own["statistic"]?.doubleValue), try #require(own["p"]?.doubleValue)
            )
            #expect(abs(test.statistic - statistic) < 1e-12)
            #expect(abs(test.pValue - p) < 1e-9 * p, "\(test.pValue) and \(p)")
        }
        #expect(KolmogorovSmirnovTest([], [1]) == nil)
        #expect(KolmogorovSmirnovTest([.nan], [1]) == nil)
    }

    /// The distribution of the statistic against all orders of two small samples.
    @Test func smallTestsCountAllOrders() throws {
        for (m, n) in [(1, 2), (2, 3), (4, 3)] {
            var distances: [Int] = []
            for order in 0..<(1 << (m + n)) where order.nonzeroBitCount == m {
                var (i, j, largest) = (0, 0, 0)
                for place in 0..<(m + n) {
                    if order >> place & 1 == 1 { i += 1 } else { j += 1 }
                    largest = max(largest, abs(i * n - j * m))
                }
                distances.append(largest)
            }
            // All of one sample below the other but for one value, which is between them.
            let first = (0..<m).map { Double($0) }, second = (0..<n).map { Double($0) + Double(m) - 1.5 }
            let test = try #require(KolmogorovSmirnovTest(first, second))
            let distance = Int((test.statistic * Double(m * n)).rounded())
            let expected = Double(distances.count { $0 >= distance }) / Double(distances.count)
            #expect(abs(test.pValue - expected) < 1e-12)
        }
    }

    @Test func likelihoodsSayWhatIsKnownByHeart() {
        let known = AnswerLikelihood(
            logProbabilities: [-2, -0.5, -1, -4, -0.25], isGreedy: [true, false, true, true, true])
        #expect(abs(known.loss - 1.55) < 1e-12)
        #expect(abs(known.probability - exp(-1.55)) < 1e-12)
        #expect(known.exactMemorization == 0.8)
        // From the third token on, all are the most likely ones.
        #expect(abs(known.extractionStrength - 0.6) < 1e-12)
        #expect(known.leastLikelyLoss(share: 0.4) == 3)
        #expect(known.leastLikelyLoss(share: 0.1) == 4)
        let bare = AnswerLikelihood(
            logProbabilities: [-1, -1, -3], isGreedy: [true, true, false]
        ).dropLast()
        #expect(bare.exactMemorization == 1 && bare.extractionStrength == 1 && bare.loss == 1)
        #expect(bare.dropLast().dropLast().extractionStrength == 0)
        let unknown = AnswerLikelihood(logProbabilities: [-1, -1], isGreedy: [true, false])
        #expect(unknown.extractionStrength == 0)
    }

    @Test func membershipIsTheShareOfPairs() {
        #expect(MUSEEvaluation.area(members: [3, 3], others: [1, 2]) == 1)
        #expect(MUSEEvaluation.area(members: [], others: [1, 2]).isNaN)
        #expect(MUSEEvaluation.area(members: [1], others: [2, 3]) == 0)
        #expect(MUSEEvaluation.area(members: [2, 4], others: [2, 3]) == 0.625)
    }

    @Test func ratiosAreGeometric() {
        func answer(_ losses: [Double]) -> AnswerLikelihood {
            .init(logProbabilities: losses.map { -$0 }, isGreedy: losses.map { _ in false })
        }
        // exp(1 − (2 + 4) / 2)
        let ratio = TOFUEvaluation.truthRatio(
            right: answer([0.5, 1.5]), wrong: [answer([2]), answer([3, 5])])
        #expect(abs(ratio - exp(-2)) < 1e-12)
    }

    @Test func returnIsInterpolated() {
        let curve = RelearningReport.Curve(
            name: "x", removed: 0,
            points: [(0, 0.1), (100, 0.2), (200, 0.4)].map { .init(tokens: $0, values: [$1, 1, 1, 1]) })
        #expect(curve.tokens(to: 0.3) == 150)
        #expect(curve.tokens(to: 0.05) == 0)
        #expect(curve.tokens(to: 0.5) == nil)
    }
}
