import Foundation

/// The two-sample test of Kolmogorov and Smirnov, two-sided, with the exact distribution of its statistic.
public struct KolmogorovSmirnovTest: Sendable, Equatable {
    /// The largest distance between the two empirical distribution functions.
    public let statistic: Double
    /// The probability of as large a distance if both samples come from one distribution.
    public let pValue: Double

    /// Compares two samples; nil if either is empty or has a value that is not a number.
    ///
    /// Takes time in proportion to the product of the samples' sizes.
    public init?(_ first: [Double], _ second: [Double]) {
        guard !first.isEmpty, !second.isEmpty, !(first + second).contains(where: \.isNaN) else { return nil }
        let (a, b) = (first.sorted(), second.sorted())
        // Distances in units of 1 / (m · n), so that they are compared exactly.
        var (i, j, distance) = (0, 0, 0)
        while i < a.count || j < b.count {
            let value = min(i < a.count ? a[i] : .infinity, j < b.count ? b[j] : .infinity)
            while i < a.count, a[i] <= value { i += 1 }
            while j < b.count, b[j] <= value { j += 1 }
            distance = max(distance, abs(i * b.count - j * a.count))
        }
        statistic = Double(distance) / Double(a.count * b.count)
        pValue = Self.probability(ofDistance: distance, a.count, b.count)
    }

    /// The share of orders of m + n values in which the distance is reached somewhere.
    ///
    /// An order is a path through a grid; all paths to a point are equally likely, and a share i / (i + j) of those to
    /// (i, j) comes from (i − 1, j). Small probabilities keep their digits, because nothing is subtracted.
    private static func probability(ofDistance distance: Int, _ m: Int, _ n: Int) -> Double {
        if distance == 0 { return 1 }
        var row = [Double](repeating: 0, count: n + 1)
        for i in 0...m {
            for j in 0...n {
                if abs(i * n - j * m) >= distance {
                    row[j] = 1
                } else if i + j > 0 {
                    let left = j > 0 ? row[j - 1] * Double(j) : 0
                    let below = i > 0 ? row[j] * Double(i) : 0
                    row[j] = (left + below) / Double(i + j)
                }
            }
        }
        return min(1, row[n])
    }
}
