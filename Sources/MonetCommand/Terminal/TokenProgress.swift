import ArgumentParser
import Foundation
import MonetFoundation

/// Progress of reading tokens; Ctrl-C stops it.
struct TokenProgress {
    private let total: Int
    private var line: ProgressLine
    private let start = ContinuousClock.now

    init(total: Int, isQuiet: Bool) {
        self.total = total
        line = ProgressLine(isQuiet: isQuiet)
        Interruption.install()
    }

    /// Shows the progress; returns false once the user wants to stop.
    mutating func show(_ tokens: Int) -> Bool {
        let rate = Double(tokens) / (ContinuousClock.now - start).seconds
        let left = (Double(total - tokens) / rate).durationText
        let text = "\(tokens.grouped) of \(total.grouped) tokens  \(rate.text(0)) tokens/s  \(left) left"
        line.show(text)
        return !Interruption.isRequested
    }

    /// Removes the line; ends the command if the user stopped it, before a result is written.
    mutating func finish() throws {
        line.clear()
        if Interruption.isRequested {
            StandardError.write("stopped; nothing was written\n")
            throw Interruption.exitCode
        }
    }
}
