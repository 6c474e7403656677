import Foundation
import MonetCompute
import MonetFoundation

/// What the machine reaches in a large dense product, to relate training speed to.
enum MachinePeak {
    /// Operations a second of a 1024³ product in the backend's precision, best of several.
    static func measure(on backend: any Backend) throws -> Double {
        let size = 1024
        let x = Tensor(filled: [size, size], with: 0.5)
        var best = 0.0
        for _ in 0..<4 {
            let start = ContinuousClock.now
            _ = try backend.linear(x, weight: x, bias: nil)
            let elapsed = (ContinuousClock.now - start).seconds
            best = max(best, 2 * pow(Double(size), 3) / elapsed)
        }
        return best
    }
}
