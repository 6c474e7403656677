import Foundation
import MonetFoundation

/// Progress on standard error: one line that is rewritten on a terminal, occasional plain lines in a log.
struct ProgressLine {
    private let isQuiet: Bool
    private let isTerminal = StandardError.isTerminal
    private var lastWrite: ContinuousClock.Instant?
    private var width = 0

    init(isQuiet: Bool) {
        self.isQuiet = isQuiet
    }

    /// Shows `text`; in a log only every `interval` seconds.
    mutating func show(_ text: @autoclosure () -> String, interval: Double = 5) {
        if isQuiet { return }
        let now = ContinuousClock.now
        if let lastWrite, (now - lastWrite).seconds < (isTerminal ? 0.1 : interval) { return }
        lastWrite = now
        if isTerminal {
            let line = text()
            StandardError.write("\r" + line + String(repeating: " ", count: max(0, width - line.count)))
            width = line.count
        } else {
            StandardError.write(text() + "\n")
        }
    }

    /// Writes a line that stays, above the progress.
    mutating func note(_ text: String) {
        if isQuiet { return }
        clear()
        StandardError.write(text + "\n")
    }

    /// Removes the line.
    mutating func clear() {
        if isTerminal, width > 0 { StandardError.write("\r" + String(repeating: " ", count: width) + "\r") }
        width = 0
    }
}
