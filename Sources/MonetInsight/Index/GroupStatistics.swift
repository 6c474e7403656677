import Foundation
import MonetFoundation

/// The statistics of one router group's experts that are collected while documents are read.
///
/// All numbers of one expert are contiguous in a record of `bytesPerExpert`: a token fires some 500 experts
/// of 262,144, each of which then accesses memory in one place and not in seven.
package final class GroupStatistics {
    /// Bins of the histogram of scores above zero: bin b holds scores in (2^((b−19)/2), 2^((b−18)/2)],
    /// the first everything below, the last everything above.
    static let bins = 20
    /// Bands of scores from which samples are kept, each of four bins, and samples per band.
    static let bands = 5
    static let binsPerBand = bins / bands
    static let samplesPerBand = 3

    let experts: Int
    let labels: Int
    let top: Int
    private let memory: UnsafeMutableRawBufferPointer
    private let stride: Int
    // Layout of a record: sum (Double), count (UInt32), histogram (UInt32 each), label sums (Double each),
    // label counts (UInt32 each), top scores (Float each), top tokens (UInt32 each), then the bands' samples:
    // scores (Float each), tokens (UInt32 each).
    private static let countPlace = 8
    private static let histogramPlace = 16
    private let labelSumPlace: Int
    private let labelCountPlace: Int
    private let topScorePlace: Int
    private let topTokenPlace: Int
    private let sampleScorePlace: Int
    private let sampleTokenPlace: Int
    private let keepsSamples: Bool

    /// - `keepsSamples`: whether samples of every band of scores are kept, beside the largest scores.
    init(experts: Int, labels: Int, top: Int, keepsSamples: Bool = false) {
        self.keepsSamples = keepsSamples
        self.experts = experts
        self.labels = labels
        self.top = top
        stride = Self.bytesPerExpert(labels: labels, top: top, keepsSamples: keepsSamples)
        labelSumPlace = Self.histogramPlace + 4 * Self.bins
        labelCountPlace = labelSumPlace + 8 * labels
        topScorePlace = labelCountPlace + 4 * labels
        topTokenPlace = topScorePlace + 4 * top
        sampleScorePlace = topTokenPlace + 4 * top
        sampleTokenPlace = sampleScorePlace + 4 * Self.bands * Self.samplesPerBand
        memory = .allocate(byteCount: max(1, experts * stride), alignment: 64)
        memory.initializeMemory(as: UInt8.self, repeating: 0)
    }

    deinit { memory.deallocate() }

    /// Bytes per expert.
    static func bytesPerExpert(labels: Int, top: Int, keepsSamples: Bool) -> Int {
        let samples = keepsSamples ? 8 * bands * samplesPerBand : 0
        let used = histogramPlace + 4 * bins + 12 * labels + 8 * top + samples
        return (used + 63) / 64 * 64
    }

    /// Bytes that `write` writes.
    var byteCount: Int { experts * stride }

    /// The values of one kind in an expert's record.
    private func values<Value>(_ expert: Int, _ place: Int, _ type: Value.Type) -> UnsafeMutablePointer<Value>
    {
        precondition(expert >= 0 && expert < experts, "expert \(expert) of \(experts)")
        return (memory.baseAddress.unsafelyUnwrapped + expert * stride + place)
            .assumingMemoryBound(to: Value.self)
    }

    /// Sum of scores.
    func sum(_ expert: Int) -> Double { values(expert, 0, Double.self)[0] }

    /// Tokens with a score above zero.
    func count(_ expert: Int) -> Int { Int(values(expert, Self.countPlace, UInt32.self)[0]) }

    /// Numbers of tokens by bins of scores.
    func histogram(_ expert: Int) -> [UInt32] {
        let values = values(expert, Self.histogramPlace, UInt32.self)
        return (0..<Self.bins).map { values[$0] }
    }

    /// The largest scores, largest first, with the running numbers of their tokens. Equal scores are in a
    /// fixed random order, so that they come from all parts of the corpus.
    func topTokens(_ expert: Int) -> [(score: Float, token: UInt32)] {
        let scores = values(expert, topScorePlace, Float.self)
        let tokens = values(expert, topTokenPlace, UInt32.self)
        return (0..<top).prefix { scores[$0] > 0 }.map { (scores[$0], tokens[$0]) }
    }

    /// Samples of every band of scores with the running numbers of their tokens, strongest band first: up to
    /// three of each, drawn at random from all of the band.
    func samples(_ expert: Int) -> [(score: Float, token: UInt32)] {
        guard keepsSamples else { return [] }
        let scores = values(expert, sampleScorePlace, Float.self)
        let tokens = values(expert, sampleTokenPlace, UInt32.self)
        return (0..<Self.bands).reversed().flatMap { band in
            (0..<Self.samplesPerBand).map { band * Self.samplesPerBand + $0 }.filter { scores[$0] > 0 }
                .map { (scores[$0], tokens[$0]) }
                .sorted { ($1.0, $0.1) < ($0.0, $1.1) }
        }
    }

    /// Mean score over each label's tokens.
    func labelMeans(_ expert: Int, _ labelTokens: [Double]) -> [Double] {
        let sums = values(expert, labelSumPlace, Double.self)
        return (0..<labels).map { labelTokens[$0] > 0 ? sums[$0] / labelTokens[$0] : 0 }
    }

    /// Numbers of tokens of each label with a score above zero.
    func labelCounts(_ expert: Int) -> [UInt32] {
        let counts = values(expert, labelCountPlace, UInt32.self)
        return (0..<labels).map { counts[$0] }
    }

    /// Counts one token's score of an expert.
    func add(_ score: Float, expert: Int, token: UInt32, labels tokenLabels: [Int]) {
        values(expert, 0, Double.self)[0] += Double(score)
        values(expert, Self.countPlace, UInt32.self)[0] &+= 1
        let bin = Self.bin(of: score)
        values(expert, Self.histogramPlace, UInt32.self)[bin] &+= 1
        let labelSums = values(expert, labelSumPlace, Double.self)
        let labelCounts = values(expert, labelCountPlace, UInt32.self)
        for label in tokenLabels {
            labelSums[label] += Double(score)
            labelCounts[label] &+= 1
        }
        if top > 0 { insert(score, expert: expert, token: token) }
        if keepsSamples { sample(score, expert: expert, token: token, band: bin / Self.binsPerBand) }
    }

    /// Keeps the tokens of a band that come first in the random order of tokens.
    private func sample(_ score: Float, expert: Int, token: UInt32, band: Int) {
        let first = band * Self.samplesPerBand
        let scores = values(expert, sampleScorePlace, Float.self) + first
        let tokens = values(expert, sampleTokenPlace, UInt32.self) + first
        var place = Self.samplesPerBand - 1
        let order = Self.order(token)
        guard scores[place] == 0 || order < Self.order(tokens[place]) else { return }
        while place > 0, scores[place - 1] == 0 || order < Self.order(tokens[place - 1]) {
            scores[place] = scores[place - 1]
            tokens[place] = tokens[place - 1]
            place -= 1
        }
        scores[place] = score
        tokens[place] = token
    }

    private func insert(_ score: Float, expert: Int, token: UInt32) {
        let scores = values(expert, topScorePlace, Float.self)
        let tokens = values(expert, topTokenPlace, UInt32.self)
        func precedes(_ place: Int) -> Bool {
            score > scores[place]
                || (score == scores[place] && Self.order(token) < Self.order(tokens[place]))
        }
        var place = top - 1
        guard precedes(place) else { return }
        while place > 0, precedes(place - 1) {
            scores[place] = scores[place - 1]
            tokens[place] = tokens[place - 1]
            place -= 1
        }
        scores[place] = score
        tokens[place] = token
    }

    /// The order of tokens with equal scores: spread over the corpus, and the same in every build.
    package static func order(_ token: UInt32) -> UInt32 {
        let mixed = (token ^ (token >> 16)) &* 0x7feb_352d
        return (mixed ^ (mixed >> 15)) &* 0x846c_a68b
    }

    static func bin(of score: Float) -> Int {
        // Bins end at powers of √2: twice the base-2 logarithm, from the exponent and one comparison.
        let exponent = Int(score.exponent)
        let significand = score.significand
        let halves = 2 * exponent + (significand > 1.414_213_5 ? 2 : significand > 1 ? 1 : 0)
        return min(bins - 1, max(0, halves + bins - 2))
    }

    /// The band of scores that a score is in.
    static func band(of score: Float) -> Int { bin(of: score) / binsPerBand }

    /// The upper end of a bin.
    static func upperEnd(ofBin bin: Int) -> Double { exp2(Double(bin - bins + 2) / 2) }

    /// All numbers as they are in memory.
    var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: memory[..<byteCount]) }

    /// Reads what `bytes` gave, from `offset` on.
    func read(_ bytes: UnsafeRawBufferPointer, from offset: Int) {
        memory.copyMemory(from: UnsafeRawBufferPointer(rebasing: bytes[offset..<(offset + byteCount)]))
    }
}
