import Foundation

/// What the machine reaches at best, to relate measured speeds to.
public struct MachinePeak: Sendable {
    /// Floating-point operations a second of a large dense product in the backend's precision.
    public let operationsPerSecond: Double
    /// Bytes a second that all threads together read from memory.
    public let bytesPerSecond: Double

    /// Measures both, best of several.
    public init(on backend: CPUBackend) throws {
        operationsPerSecond = try Self.operationsPerSecond(on: backend)
        bytesPerSecond = Self.bytesPerSecond(on: backend)
    }

    /// Operations a second of a 1024³ product in the backend's precision.
    public static func operationsPerSecond(on backend: any Backend) throws -> Double {
        let size = 1024
        let x = Tensor(filled: [size, size], with: 0.5)
        var best = 0.0
        for _ in 0..<4 {
            let start = ContinuousClock.now
            _ = try backend.linear(x, weight: x, bias: nil)
            best = max(best, 2 * pow(Double(size), 3) / (ContinuousClock.now - start).inSeconds)
        }
        return best
    }

    /// Bytes a second of a sum over 512 MiB.
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
