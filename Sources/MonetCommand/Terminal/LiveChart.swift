import Foundation
import MonetEvaluation
import MonetFoundation

/// A chart of the loss at the bottom of a terminal, with a line of figures below it; messages scroll by above.
struct LiveChart {
    private var chart = TextChart()
    private var status = ""
    /// Lines on the screen now.
    private var shown = 0

    /// Whether standard error is a terminal that can move its cursor.
    static var isPossible: Bool {
        let terminal = ProcessInfo.processInfo.environment["TERM"] ?? ""
        return StandardError.isTerminal && !terminal.isEmpty && terminal != "dumb" && size.rows >= 16
    }

    private static var size: (columns: Int, rows: Int) {
        var size = winsize()
        guard ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else { return (80, 24) }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// Takes over the curve of a run that goes on.
    mutating func readMetrics(_ path: String) {
        guard let text = try? TextFile.read(path) else { return }
        for line in text.split(separator: "\n") {
            guard let json = try? JSONValue(parsing: String(line), source: path),
                let step = json["step"]?.intValue
            else { continue }
            if let loss = json["loss"]?.doubleValue { chart.add(step: step, loss: loss) }
            if let loss = json["eval_loss"]?.doubleValue, step > 0 { chart.add(step: step, heldOut: loss) }
        }
    }

    mutating func add(step: Int, loss: Double, status: String) {
        chart.add(step: step, loss: loss)
        self.status = status
        redraw()
    }

    mutating func add(step: Int, heldOut loss: Double) {
        // Before the first step it would flatten the rest.
        if step > 0 { chart.add(step: step, heldOut: loss) }
        redraw()
    }

    /// Writes a message above the chart.
    mutating func note(_ text: String) {
        erase()
        StandardError.write(text + "\n")
        redraw()
    }

    /// Leaves the chart where it is.
    mutating func end() { shown = 0 }

    private mutating func erase() {
        // Up to the chart's first line, and everything below it away.
        if shown > 0 { StandardError.write("\u{1B}[\(shown)A\r\u{1B}[J") }
        shown = 0
    }

    private mutating func redraw() {
        let (columns, rows) = Self.size
        // A line that is too long would wrap and take two.
        let lines =
            chart.lines(width: min(columns - 1, 100), height: min(13, rows / 2))
            + (status.isEmpty ? [] : [String(status.prefix(columns - 1))])
        erase()
        if lines.isEmpty { return }
        StandardError.write(lines.joined(separator: "\n") + "\n")
        shown = lines.count
    }
}
