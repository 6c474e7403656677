import Foundation
import MonetCompute
import MonetFoundation
import MonetModel
import MonetProcesses
import MonetText

/// The memory that a process of a run will take at most, from its first steps on a few tokens.
///
/// What a run holds besides its model and its optimizer grows with the tokens of a micro-batch: it is measured with two
/// small micro-batches and continued along the line through them.
public struct MemoryForecast: Sendable, Equatable {
    /// Bytes of weights and moments, which are there from the start, with the reference model of preference pairs.
    public let state: Int
    /// Bytes of gradients and their sums over micro-batches.
    public let gradients: Int
    /// Bytes of what a micro-batch keeps for its gradients.
    public let activations: Int
    /// What the process takes besides tensors, and room for what a few tokens do not show.
    public let rest: Int

    /// Bytes in total.
    public var total: Int { state + gradients + activations + rest }

    /// Tokens of the two small micro-batches.
    private static let samples = (small: 48, large: 144)

    /// Measures a run before its first step, without changing anything.
    ///
    /// - `gradient`: what computes the gradient of a micro-batch and throws it away.
    /// - Throws: `FileError.outOfMemory` if the memory cannot be had, and what `gradient` throws.
    init(
        _ run: RunConfiguration, gradientBytes: Int, communicator: any Communicator,
        gradient: (BatchStream.Batch) throws -> Void
    ) throws {
        state = HostMemory.held
        let before = Self.resident
        // Pairs are two conversations each.
        let tokens = run.sequenceLength * run.batchSize * (run.preferences.isEmpty ? 1 : 2)
        func growth(_ tokens: Int) throws -> Int {
            let ids = (0..<tokens).map { Int32($0 * 31 % run.model.vocabularySize) }
            let targets = ids.map { ($0 + 1) % Int32(run.model.vocabularySize) }
            // As long as the run's, so that as many sequences share what one has; pairs have two.
            let length = min(run.sequenceLength, run.preferences.isEmpty ? tokens : max(1, tokens / 2))
            var inputs = stride(from: 0, to: tokens, by: length).map {
                Array(ids[$0..<min(tokens, $0 + length)])
            }
            if !run.preferences.isEmpty, inputs.count % 2 == 1 { inputs.removeLast() }
            let batch = BatchStream.Batch(
                inputs: inputs, targets: Array(targets.prefix(inputs.reduce(0) { $0 + $1.count })),
                labels: run.expertsOf.first.map { share in inputs.map { _ in share.label } } ?? [])
            return try HostMemory.growth { try gradient(batch) }
        }
        let small = try growth(min(tokens, Self.samples.small))
        let whole: Int
        if tokens > Self.samples.large {
            let slope =
                Double(try growth(Self.samples.large) - small)
                / Double(Self.samples.large - Self.samples.small)
            whole = small + Int(max(0, slope) * Double(tokens - Self.samples.small))
        } else {
            whole = tokens > Self.samples.small ? try growth(tokens) : small
        }
        let own = max(1, run.accumulation / communicator.count)
        let values = max(0, whole - gradientBytes)
        var passes = 1
        if own > 1, run.uniformityWeight > 0, !run.freezesRouters, !run.model.routerLayers.isEmpty {
            passes = min(own, GradientStep.passesKept(bytes: values, communicator.processesOnThisMachine))
        }
        let sums = Int.bitWidth - 1 - own.leadingZeroBitCount
        // What is on its way, and the sums of the process's own pieces.
        let shared =
            communicator.isShared ? min(gradientBytes, 256 << 20) + gradientBytes / communicator.count : 0
        // The moments of all, which the first process writes.
        let written = communicator.isShared ? 2 * gradientBytes : 0
        gradients = gradientBytes * (1 + sums) + shared + (communicator.isFirst ? written : 0)
        activations = values * passes
        rest = max(0, before - state) + (gradients + activations) / 20 + state / 100 + 48 << 20
        let growing =
            gradients - (communicator.isFirst ? written : 0) + activations + rest - max(0, before - state)
        // No process looks at what is left while another still rehearses.
        try communicator.barrier()
        try MemoryLimits.require(
            MemoryLimits.product(growing, communicator.processesOnThisMachine) + written,
            for:
                "training \(run.model.parameterCount.grouped) parameters on \(tokens.grouped) tokens at a time "
                + "(smaller batch_size with more accumulation, or activation_checkpointing, take less)")
    }

    /// Bytes of the process in main memory now, without those of mapped files.
    static var resident: Int {
        #if os(Linux)
            guard let text = try? String(contentsOfFile: "/proc/self/status", encoding: .utf8) else {
                return 0
            }
            return text.split(separator: "\n").first { $0.hasPrefix("RssAnon:") }?
                .split(separator: " ").compactMap { Int($0) }.first.map { $0 << 10 } ?? 0
        #else
            return 0
        #endif
    }
}
