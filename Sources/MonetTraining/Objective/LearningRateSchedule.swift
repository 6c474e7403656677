import Foundation

/// The learning rate of every step: a linear warm-up, then a plateau or a decay.
public struct LearningRateSchedule: Sendable {
    /// Shapes after the warm-up.
    public enum Kind: String, Sendable, CaseIterable {
        /// Half a cosine down to the final rate.
        case cosine
        /// Warm-up, stable, decay: constant, then a linear decay at the end.
        case wsd
        case constant
    }

    public var kind: Kind
    public var peak: Double
    public var finalShare: Double
    public var warmupSteps: Int
    public var steps: Int
    public var decayShare: Double

    /// The schedule of a run.
    public init(_ run: RunConfiguration) {
        kind = run.schedule
        peak = run.learningRate
        finalShare = run.finalLearningRateShare
        warmupSteps = run.warmupSteps
        steps = run.steps
        decayShare = run.decayShare
    }

    /// The rate of step `step`, counted from 1.
    public func rate(at step: Int) -> Double {
        if step <= warmupSteps { return peak * Double(step) / Double(max(1, warmupSteps)) }
        // One step has nothing to decay over: it learns.
        guard steps - warmupSteps > 1 else { return peak }
        let low = peak * finalShare
        switch kind {
        case .constant: return peak
        case .cosine:
            let progress = Double(step - warmupSteps) / Double(max(1, steps - warmupSteps))
            return low + (peak - low) * 0.5 * (1 + cos(Double.pi * min(1, progress)))
        case .wsd:
            let decaySteps = max(1, Int((Double(steps) * decayShare).rounded()))
            let progress = Double(step - (steps - decaySteps)) / Double(decaySteps)
            return progress <= 0 ? peak : peak + (low - peak) * min(1, progress)
        }
    }
}
