import Foundation
import MonetFoundation
import MonetTraining

/// Training's events as lines on standard error.
struct TrainingReport {
    var line: ProgressLine

    init(isQuiet: Bool) { line = ProgressLine(isQuiet: isQuiet) }

    mutating func show(_ event: Trainer.Event) {
        switch event {
        case .started(let parameters, let step):
            line.note(
                "\(parameters.grouped) parameters" + (step > 0 ? ", continuing after step \(step)" : ""))
        case .progress(let progress): line.note(Self.text(progress))
        case .evaluated(let step, let result):
            var text = "step \(step)  held-out loss \(result.loss.text(4))"
            if let pairs = result.preferences {
                text += "  margin \(pairs.margin.text(3))  accuracy \((100 * pairs.accuracy).text(1))%"
            } else {
                text += "  perplexity \(result.perplexity.text(2))"
            }
            if !result.aliveShares.isEmpty {
                text +=
                    "  experts alive \((100 * result.smallestAliveShare).text(1))%"
                    + "  selected per head \(result.selectedPerHead.text(2))"
            }
            line.note(text)
        case .saved(_, let path): line.note("saved \(path)")
        }
    }

    private static func text(_ progress: TrainingProgress) -> String {
        let losses = progress.losses
        var parts = [
            "step \(progress.step)/\(progress.steps)", "loss \(losses.languageModel.text(4))",
            "lr \(String(format: "%.2e", progress.learningRate))",
            "grad norm \(progress.gradientNorm.text(2))",
        ]
        if losses.selectedPerHead > 0 {
            parts.insert(
                "uniformity \(losses.uniformity.text(3))  ambiguity \(losses.ambiguity.text(3))", at: 2)
        }
        parts += [
            "\(Int(progress.tokensPerSecond).grouped) tokens/s",
            "\((100 * progress.peakShare).text(0))% of peak",
            "\(progress.secondsLeft.durationText) left",
        ]
        return parts.joined(separator: "  ")
    }
}
