import Foundation
import MonetFoundation

/// Detects a loss that is not finite or diverges.
struct DivergenceWatch {
    let threshold: Double
    private var smoothed: Double?
    private var lowest = Double.infinity

    init(threshold: Double) {
        self.threshold = threshold
    }

    mutating func problem(loss: Double, gradientNorm: Double) -> String? {
        if !loss.isFinite { return "the loss is \(loss)" }
        if !gradientNorm.isFinite { return "the gradient's norm is \(gradientNorm)" }
        let value = smoothed.map { 0.9 * $0 + 0.1 * loss } ?? loss
        smoothed = value
        lowest = min(lowest, value)
        return value > lowest + threshold
            ? String(format: "the loss diverges: %.3f after a low of %.3f (smoothed)", value, lowest) : nil
    }
}

/// Tokens per second over recent steps, without evaluation and saving.
struct SpeedMeter {
    private var recent: [(tokens: Int, seconds: Double)] = []
    private var start = ContinuousClock.now

    mutating func begin() { start = ContinuousClock.now }

    mutating func end(tokens: Int) {
        recent.append((tokens, (ContinuousClock.now - start).seconds))
        if recent.count > 20 { recent.removeFirst() }
    }

    var tokensPerSecond: Double {
        let seconds = recent.reduce(0) { $0 + $1.seconds }
        return seconds > 0 ? Double(recent.reduce(0) { $0 + $1.tokens }) / seconds : 0
    }
}
