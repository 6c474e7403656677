import Foundation

/// pass@k: the probability that one of k samples passes, of which n were drawn and c passed.
package enum PassRate {
    /// The unbiased estimator 1 − C(n−c, k) / C(n, k) (Chen et al. 2021), as a product that does not overflow.
    package static func estimate(samples: Int, passed: Int, k: Int) -> Double {
        guard samples - passed >= k else { return 1 }
        var failing = 1.0
        for number in (samples - passed + 1)..<(samples + 1) { failing *= 1 - Double(k) / Double(number) }
        return 1 - failing
    }

    /// The k in a metric's name, such as `pass@10`.
    static func k(of name: String) -> Int? { name.hasPrefix("pass@") ? Int(name.dropFirst(5)) : nil }
}
