import Foundation

/// The mean of some values with its standard error.
public struct SampleMean: Sendable, Equatable {
    /// The number of values.
    public let count: Int
    /// Their mean; NaN without values.
    public let mean: Double
    /// Sample deviation / √n; NaN with fewer than two values.
    public let standardError: Double

    /// The mean of some values.
    public init(_ values: some Collection<Double>) {
        count = values.count
        let mean = values.reduce(0, +) / Double(values.count)
        self.mean = mean
        let squares = values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        standardError =
            values.count > 1 ? (squares / Double(values.count - 1) / Double(values.count)).squareRoot() : .nan
    }

    /// Mean and error times a factor.
    static func * (value: SampleMean, factor: Double) -> SampleMean {
        SampleMean(
            count: value.count, mean: value.mean * factor, standardError: value.standardError * factor)
    }

    private init(count: Int, mean: Double, standardError: Double) {
        (self.count, self.mean, self.standardError) = (count, mean, standardError)
    }
}
