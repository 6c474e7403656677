import MonetFoundation

/// The permutations of one group's tokens, shared by all its pairs.
package struct PairTrials {
    private let firings: HalfFirings
    private let settings: PairTest.Settings
    private let labelTotals: [Int]
    /// Next tokens as classes: rare ones are one class, because there is nothing to exchange in a class of few.
    private let nextTokens: [Int32]
    private let nextTotals: [Int]
    /// Where each token's right halves go: anywhere, within the label, within the next token.
    private let anywhere: [[Int32]]
    private let withinLabel: [[Int32]]
    private let withinNext: [[Int32]]

    /// Tokens that a next token must precede to be a class of its own.
    private static let commonNext = 10

    /// - `labels`: the number of labels; 0 tests nothing about them.
    package init(_ firings: HalfFirings, labels: Int, _ settings: PairTest.Settings) {
        self.firings = firings
        self.settings = settings
        let counts = Self.totals(firings.nextTokens, Int(firings.nextTokens.max() ?? -1) + 1)
        let next = firings.nextTokens.map { counts[Int($0)] < Self.commonNext ? 0 : $0 + 1 }
        nextTokens = next
        labelTotals = Self.totals(firings.labels, labels)
        nextTotals = Self.totals(next, counts.count + 1)
        func turns(_ classes: [Int32]?, _ salt: UInt64) -> [[Int32]] {
            (0..<settings.permutations).map { number in
                var generator = SplitMix64(seed: settings.seed &+ salt &+ UInt64(number) &* 0x9e37_79b9)
                return Self.turned(firings.tokens, classes, &generator)
            }
        }
        anywhere = turns(nil, 1 << 40)
        withinLabel = labels > 0 ? turns(firings.labels, 2 << 40) : []
        withinNext = turns(next, 3 << 40)
    }

    private static func totals(_ classes: [Int32], _ count: Int) -> [Int] {
        var totals = Array(repeating: 0, count: count)
        for label in classes where label >= 0 { totals[Int(label)] += 1 }
        return totals
    }

    /// The tokens of each class turned by a random number of places. Adjacent tokens stay together, because what halves do comes
    /// in runs, and tokens drawn one by one would look more alike than documents do.
    private static func turned(
        _ count: Int, _ classes: [Int32]?, _ generator: inout SplitMix64
    ) -> [Int32] {
        var result = [Int32](repeating: 0, count: count)
        let members =
            classes.map { classes in
                Dictionary(grouping: 0..<count, by: { classes[$0] }).sorted { $0.key < $1.key }.map(\.value)
            } ?? [Array(0..<count)]
        for own in members where !own.isEmpty {
            let turn = Int(generator.next() % UInt64(own.count))
            for (place, from) in own.enumerated() { result[from] = Int32(own[(place + turn) % own.count]) }
        }
        return result
    }

    /// Tests a pair of halves.
    package func test(_ expert: UnitID, left: Int, right: Int) -> PairTest.Pair {
        let count = firings.tokens
        let sets = (0..<firings.heads).map {
            TokenSet(firings.left[$0 * firings.halves + left], of: count)
        }
        /// The tokens on which one head selects both halves, with the right one's tokens moved.
        func tokens(_ move: [Int32]?) -> [Int32] {
            var found: [Int32] = []
            for head in 0..<firings.heads {
                for token in firings.right[head * firings.halves + right] {
                    let place = move.map { $0[Int(token)] } ?? token
                    if sets[head].contains(place) { found.append(place) }
                }
            }
            return firings.heads == 1 ? found.sorted() : Set(found).sorted()
        }
        let (fired, lefts, rights) = (tokens(nil), firings.any(.left, left), firings.any(.right, right))
        let both = TokenSet(rights, of: count)
        let cell = lefts.filter { both.contains($0) }
        var generator = SplitMix64(
            seed: settings.seed &+ UInt64(expert.group) << 32 &+ UInt64(expert.index))
        /// Bits of a firing, of as many observed as permuted ones.
        func information(_ permuted: [[Int32]], _ classes: [Int32], _ totals: [Int]) -> PairTest.Measure {
            PairTest.Measure(
                pairs: permuted.map { other in
                    let size = min(fired.count, other.count)
                    func bits(_ tokens: [Int32]) -> Double {
                        let some =
                            tokens.count > size
                            ? Array(tokens.shuffled(using: &generator).prefix(size)) : tokens
                        return MutualInformation.bitsPerEvent(some, classes: classes, totals: totals)
                    }
                    return (bits(fired), bits(other))
                })
        }
        let labelled = withinLabel.map(tokens)
        /// I(pair; class | halves), against the pair's firing turned among the tokens on which both halves fire.
        func given(_ classes: [Int32]) -> PairTest.Measure {
            let isFired = TokenSet(fired, of: count)
            let places = cell.indices.filter { isFired.contains(cell[$0]) }
            func bits(_ tokens: [Int32]) -> Double {
                MutualInformation.bits(tokens, within: cell, classes: classes, of: count)
            }
            let permuted = (0..<settings.permutations).map { _ -> Double in
                let turn = cell.isEmpty ? 0 : Int(generator.next() % UInt64(cell.count))
                return bits(places.map { cell[($0 + turn) % cell.count] })
            }
            return PairTest.Measure(observed: bits(fired), permuted: permuted)
        }
        let isLabelled = !labelTotals.isEmpty
        return PairTest.Pair(
            expert: expert, leftCount: lefts.count, rightCount: rights.count, count: fired.count,
            joint: PairTest.Measure(
                observed: Double(fired.count), permuted: anywhere.map { Double(tokens($0).count) }),
            jointGivenLabel: isLabelled
                ? PairTest.Measure(
                    observed: Double(fired.count), permuted: labelled.map { Double($0.count) }) : nil,
            labels: isLabelled ? information(labelled, firings.labels, labelTotals) : nil,
            nextTokens: information(withinNext.map(tokens), nextTokens, nextTotals),
            labelsGivenHalves: isLabelled ? given(firings.labels) : nil,
            nextTokensGivenHalves: given(nextTokens))
    }
}
