import Foundation

/// The quantile function of the standard normal distribution, Φ⁻¹.
package enum GaussianQuantile {
    /// x with Φ(x) = `probability`; −∞ at 0 and ∞ at 1.
    ///
    /// Bisection on the error function, then Newton steps: accurate to double precision.
    package static func callAsFunction(_ probability: Double) -> Double {
        if probability <= 0 { return -.infinity }
        if probability >= 1 { return .infinity }
        func distribution(_ x: Double) -> Double { 0.5 * erfc(-x / 2.0.squareRoot()) }
        var (low, high) = (-40.0, 40.0)
        for _ in 0..<60 {
            let middle = (low + high) / 2
            if distribution(middle) < probability { low = middle } else { high = middle }
        }
        var x = (low + high) / 2
        for _ in 0..<2 {
            let density = exp(-x * x / 2) / (2 * Double.pi).squareRoot()
            if density > 0 { x -= (distribution(x) - probability) / density }
        }
        return x
    }
}
