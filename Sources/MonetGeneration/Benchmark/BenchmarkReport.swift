import MonetCompute
import MonetFoundation
import MonetModel

extension InferenceBenchmark {
    /// Seconds from the start of reading a checkpoint to the logits after one token.
    public static func load(_ folder: String, backend: CPUBackend, repeats: Int) throws -> Measurement {
        let seconds = try (0..<repeats).map { _ in
            let start = ContinuousClock.now
            let model = try MonetLanguageModel.load(folder, on: backend)
            let hidden = try model.forward(ForwardInput([[0]]), on: backend).hidden.value
            _ = try model.logits(hidden, on: backend)
            return (ContinuousClock.now - start).seconds
        }
        return Measurement(name: "load", tokens: 1, seconds: seconds, work: nil)
    }
}

/// Measured speeds, compared with the machine's limits.
public struct BenchmarkReport: Sendable {
    /// The device's name.
    public let backend: String
    /// The machine's measured limits.
    public let peak: MachinePeak
    /// What was measured.
    public let measurements: [InferenceBenchmark.Measurement]

    /// Joins measurements and limits.
    public init(backend: String, peak: MachinePeak, measurements: [InferenceBenchmark.Measurement]) {
        self.backend = backend
        self.peak = peak
        self.measurements = measurements
    }

    /// What limits the speed of a token: arithmetic or memory bandwidth.
    public enum Bound: String, Sendable { case compute, memory }

    /// The shortest possible time of a token in seconds, and what limits it.
    public func floor(_ work: WorkEstimate) -> (seconds: Double, bound: Bound) {
        let operations = work.operationsPerToken / peak.operationsPerSecond
        let bytes = work.bytesPerToken / peak.bytesPerSecond
        return operations > bytes ? (operations, .compute) : (bytes, .memory)
    }

    /// All numbers as JSON.
    ///
    /// - Parameter model: the checkpoint's name.
    public func json(model: String?) -> JSONValue {
        [
            "backend": .string(backend), "model": model.map { .string($0) } ?? .null,
            "peak_operations_per_second": .number(peak.operationsPerSecond),
            "peak_bytes_per_second": .number(peak.bytesPerSecond),
            "results": .array(measurements.map(json)),
        ]
    }

    private func json(_ result: InferenceBenchmark.Measurement) -> JSONValue {
        var members: [(String, JSONValue)] = [
            ("test", .string(result.name)), ("tokens", .integer(result.tokens)),
            ("seconds", .array(result.seconds.map { .number($0) })),
            ("median_seconds", .number(result.medianSeconds)),
            ("tokens_per_second", .number(result.tokensPerSecond)),
        ]
        if let work = result.work {
            let floor = floor(work)
            members += [
                ("operations_per_token", .number(work.operationsPerToken)),
                ("bytes_per_token", .number(work.bytesPerToken)),
                ("active_share", .number(work.activeShare)), ("bound", .string(floor.bound.rawValue)),
                ("share_of_floor", .number(floor.seconds * result.tokensPerSecond)),
            ]
        }
        return .object(members.map { .init($0.0, $0.1) })
    }
}
