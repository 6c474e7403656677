import Foundation
import MonetFoundation
import MonetTraining

/// Training's events as lines on standard error, with a chart of the loss on a terminal.
struct TrainingReport {
    private let isQuiet: Bool
    private var chart: LiveChart?

    /// - `metrics`: the file in which a run that goes on has its losses so far.
    init(isQuiet: Bool, metrics: String?) {
        self.isQuiet = isQuiet
        if !isQuiet, LiveChart.isPossible {
            chart = LiveChart()
            if let metrics { chart?.readMetrics(metrics) }
        }
    }

    /// Writes a line that stays.
    mutating func note(_ text: String) {
        if isQuiet { return }
        if chart != nil { chart?.note(text) } else { StandardError.write(text + "\n") }
    }

    /// Leaves the chart where it is; what comes next is written below it.
    mutating func end() {
        chart?.end()
        chart = nil
    }

    mutating func show(_ event: Trainer.Event) {
        switch event {
        case .started(let parameters, let step):
            note(
                "\(parameters.grouped) parameters" + (step > 0 ? ", continuing after step \(step)" : ""))
        case .forecast(let memory):
            note(
                "memory: up to \(memory.total.byteText) in a process (weights and moments "
                    + "\(memory.state.byteText), gradients \(memory.gradients.byteText), activations "
                    + "\(memory.activations.byteText))")
        case .progress(let progress):
            if chart != nil {
                chart?.add(
                    step: progress.step, loss: progress.losses.languageModel,
                    status: Self.text(progress, narrow: true))
            } else {
                note(Self.text(progress))
            }
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
            note(text)
            chart?.add(step: step, heldOut: result.loss)
        case .saved(_, let path): note("saved \(path)")
        }
    }

    /// - `narrow`: what changes slowly comes last, where a line may be cut.
    private static func text(_ progress: TrainingProgress, narrow: Bool = false) -> String {
        let losses = progress.losses
        let position = ["step \(progress.step)/\(progress.steps)", "loss \(losses.languageModel.text(4))"]
        var details = [
            "lr \(String(format: "%.2e", progress.learningRate))",
            "grad norm \(progress.gradientNorm.text(2))",
        ]
        if losses.selectedPerHead > 0 {
            details.insert(
                "uniformity \(losses.uniformity.text(3))  ambiguity \(losses.ambiguity.text(3))", at: 0)
        }
        let speed = [
            "\(Int(progress.tokensPerSecond).grouped) tokens/s",
            "\((100 * progress.peakShare).text(0))% of peak",
            "\(progress.secondsLeft.durationText) left",
        ]
        return (position + (narrow ? speed + details : details + speed)).joined(separator: "  ")
    }
}
