import Foundation

/// The measured limits of the machine, to compare speeds with.
public struct MachinePeak: Sendable {
    /// Floating-point operations per second of a large dense product in the backend's precision.
    public let operationsPerSecond: Double
    /// Bytes per second that all threads together read from memory.
    public let bytesPerSecond: Double

    /// Measures both; the best of several runs counts.
    public init(on backend: CPUBackend) throws {
        operationsPerSecond = try Self.operationsPerSecond(on: backend)
        bytesPerSecond = Self.bytesPerSecond(on: backend)
    }

    /// Operations per second of a 1024³ product in the backend's precision; of a smaller one on a slow device.
    public static func operationsPerSecond(on backend: any Backend) throws -> Double {
        var best = 0.0
        for size in [64, 256, 1024] {
            let x = try backend.tensor(Tensor(filled: [size, size], with: 0.5))
            var shortest = Double.infinity
            for _ in 0..<4 {
                let start = ContinuousClock.now
                _ = try backend.linear(x, weight: x, bias: nil).floats()
                shortest = min(shortest, (ContinuousClock.now - start).inSeconds)
            }
            best = 2 * pow(Double(size), 3) / shortest
            // The next size takes 64 times as long.
            if shortest > 0.01 { break }
        }
        return best
    }

    /// Bytes per second of a sum over 512 MiB.
    private static func bytesPerSecond(on backend: CPUBackend) -> Double {
        let count = 1 << 27
        let block = 1 << 16
        let x = Tensor(filled: [count], with: 1)
        let sums = Tensor(uninitialized: [count / block])
        var best = 0.0
        for _ in 0..<4 {
            let start = ContinuousClock.now
            backend.pool.parallel(chunks: backend.pool.threadCount) { part in
                let blocks = count / block
                let parts = backend.pool.threadCount
                for index in (blocks * part / parts)..<(blocks * (part + 1) / parts) {
                    let values = x.pointer + index * block
                    sums.pointer[index] = backend.kernels.dot(values, values, block)
                }
            }
            best = max(best, Double(count * 4) / (ContinuousClock.now - start).inSeconds)
        }
        return best
    }
}

extension Duration {
    fileprivate var inSeconds: Double {
        Double(components.seconds) + Double(components.attoseconds) * 1e-18
    }
}
