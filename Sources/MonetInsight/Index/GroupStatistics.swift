import Foundation
import MonetFoundation

/// What is counted of the experts of one router group while documents are read.
///
/// Memory: 20 + 4 · bins + 8 · top + 12 · labels bytes for every expert.
package final class GroupStatistics {
    /// Bins of the histogram of scores above zero: bin b holds scores in (2^((b−19)/2), 2^((b−18)/2)],
    /// the first everything below, the last everything above.
    static let bins = 20

    let experts: Int
    let labels: Int
    let top: Int
    /// Sum of scores, tokens with a score above zero and the largest score, by expert.
    private(set) var sums: [Double]
    private(set) var counts: [UInt32]
    private(set) var histogram: [UInt32]
    /// The `top` largest scores, largest first, with the running numbers of their tokens; equal scores
    /// in a fixed random order, so that they come from all over the corpus.
    private(set) var topScores: [Float]
    private(set) var topTokens: [UInt32]
    /// The same as sums and counts, by expert and label.
    private(set) var labelSums: [Double]
    private(set) var labelCounts: [UInt32]

    init(experts: Int, labels: Int, top: Int) {
        self.experts = experts
        self.labels = labels
        self.top = top
        sums = Array(repeating: 0, count: experts)
        counts = Array(repeating: 0, count: experts)
        histogram = Array(repeating: 0, count: experts * Self.bins)
        topScores = Array(repeating: 0, count: experts * top)
        topTokens = Array(repeating: 0, count: experts * top)
        labelSums = Array(repeating: 0, count: experts * labels)
        labelCounts = Array(repeating: 0, count: experts * labels)
    }

    /// Bytes for every expert.
    static func bytesPerExpert(labels: Int, top: Int) -> Int { 12 + 4 * bins + 8 * top + 12 * labels }

    /// Counts one token's score of an expert.
    func add(_ score: Float, expert: Int, token: UInt32, labels tokenLabels: [Int]) {
        sums[expert] += Double(score)
        counts[expert] += 1
        histogram[expert * Self.bins + Self.bin(of: score)] += 1
        for label in tokenLabels {
            labelSums[expert * labels + label] += Double(score)
            labelCounts[expert * labels + label] += 1
        }
        guard top > 0 else { return }
        let start = expert * top
        var place = start + top - 1
        guard precedes(score, token, place) else { return }
        while place > start, precedes(score, token, place - 1) {
            topScores[place] = topScores[place - 1]
            topTokens[place] = topTokens[place - 1]
            place -= 1
        }
        topScores[place] = score
        topTokens[place] = token
    }

    /// Whether a score stands before the one at a place.
    private func precedes(_ score: Float, _ token: UInt32, _ place: Int) -> Bool {
        let other = topScores[place]
        return score > other || (score == other && Self.order(token) < Self.order(topTokens[place]))
    }

    /// Orders tokens with equal scores: spread over the corpus, the same in every build.
    package static func order(_ token: UInt32) -> UInt32 {
        let mixed = (token ^ (token >> 16)) &* 0x7feb_352d
        return (mixed ^ (mixed >> 15)) &* 0x846c_a68b
    }

    static func bin(of score: Float) -> Int {
        let place = (2 * log2(Double(score))).rounded(.up) + Double(bins - 2)
        return Int(min(Double(bins - 1), max(0, place)))
    }

    /// The upper end of a bin.
    static func upperEnd(ofBin bin: Int) -> Double { exp2(Double(bin - bins + 2) / 2) }

    /// Writes all numbers as they are in memory.
    func write(to writer: FileWriter) throws {
        try sums.withUnsafeBytes { try writer.write($0) }
        try counts.withUnsafeBytes { try writer.write($0) }
        try histogram.withUnsafeBytes { try writer.write($0) }
        try topScores.withUnsafeBytes { try writer.write($0) }
        try topTokens.withUnsafeBytes { try writer.write($0) }
        try labelSums.withUnsafeBytes { try writer.write($0) }
        try labelCounts.withUnsafeBytes { try writer.write($0) }
    }

    /// Bytes that `write` writes.
    var byteCount: Int { experts * Self.bytesPerExpert(labels: labels, top: top) }

    /// Reads what `write` wrote, from `offset` on.
    func read(_ bytes: UnsafeRawBufferPointer, from offset: Int) {
        var offset = offset
        func take<Element>(_ array: inout [Element]) {
            array.withUnsafeMutableBytes { target in
                target.copyMemory(
                    from: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + target.count)]))
                offset += target.count
            }
        }
        take(&sums)
        take(&counts)
        take(&histogram)
        take(&topScores)
        take(&topTokens)
        take(&labelSums)
        take(&labelCounts)
    }
}
