import Foundation

/// A curve of loss over steps in characters, for a terminal: Braille patterns of 2 × 4 dots, and circles where held-out
/// text was scored. The vertical axis is logarithmic.
package struct TextChart: Sendable {
    /// Values of training and of held-out text, by step.
    private var training: [(step: Int, value: Double)] = []
    private var heldOut: [(step: Int, value: Double)] = []

    /// A chart without points.
    package init() {}

    /// Adds a loss. Values that have no logarithm are left out.
    package mutating func add(step: Int, loss: Double) {
        if loss.isFinite, loss > 0, Self.steps.contains(step) { training.append((step, loss)) }
    }

    /// Adds a loss on held-out text.
    package mutating func add(step: Int, heldOut loss: Double) {
        if loss.isFinite, loss > 0, Self.steps.contains(step) { heldOut.append((step, loss)) }
    }

    private static let steps = 0..<(1 << 53)
    /// Columns that labels take to the left of the curve.
    private static let labelWidth = 8

    /// The lines of the chart; none as long as there is no curve, or no room for one.
    package func lines(width: Int, height: Int) -> [String] {
        let columns = width - Self.labelWidth - 1
        let all = training + heldOut
        guard training.count > 1, columns >= 8, height >= 3, let first = all.map(\.step).min(),
            let last = all.map(\.step).max(), last > first,
            let low = all.map(\.value).min(), let high = all.map(\.value).max()
        else { return [] }
        let rows = height - 1
        // Of logarithms, because a quotient may overflow.
        let span = max(1e-9, log(high) - log(low))
        func place(_ step: Int, _ value: Double, _ width: Int, _ height: Int) -> (x: Int, y: Int) {
            let x = Double(step - first) / Double(last - first) * Double(width - 1)
            let y = (log(high) - log(value)) / span * Double(height - 1)
            return (Int(x.rounded()), Int(y.rounded()))
        }
        var dots = [[Bool]](repeating: .init(repeating: false, count: 2 * columns), count: 4 * rows)
        var previous: (x: Int, y: Int)?
        for (x, y) in means(in: 2 * columns, { place($0, $1, 2 * columns, 4 * rows) }) {
            // Between columns the curve is a line.
            let start = previous ?? (x, y)
            for step in 0...max(abs(x - start.x), abs(y - start.y), 1) {
                let share = Double(step) / Double(max(abs(x - start.x), abs(y - start.y), 1))
                let column = start.x + Int((Double(x - start.x) * share).rounded())
                let row = start.y + Int((Double(y - start.y) * share).rounded())
                dots[row][column] = true
            }
            previous = (x, y)
        }
        var cells = (0..<rows).map { row in
            (0..<columns).map { column in Self.braille(dots, row: row, column: column) }
        }
        for point in heldOut {
            let (x, y) = place(point.step, point.value, columns, rows)
            cells[y][x] = "○"
        }
        var lines = cells.enumerated().map { row, cells in
            let value = exp(log(low) + span * (1 - (Double(row) + 0.5) / Double(rows)))
            let shown = row == 0 ? high : row == rows - 1 ? low : value
            let label = row == 0 || row == rows - 1 || row == rows / 2 ? String(format: "%.3f", shown) : ""
            return Self.padded(label, Self.labelWidth - 1) + " │" + String(cells)
        }
        let ends = (left: "\(first)", right: "step \(last)")
        let gap = max(1, columns - ends.left.count - ends.right.count)
        lines.append(
            String(repeating: " ", count: Self.labelWidth + 1) + ends.left
                + String(repeating: " ", count: gap) + ends.right)
        return lines
    }

    /// The mean place of each column's values, from left to right.
    private func means(in columns: Int, _ place: (Int, Double) -> (x: Int, y: Int)) -> [(x: Int, y: Int)] {
        var result: [(x: Int, sum: Int, count: Int)] = []
        for point in training.sorted(by: { $0.step < $1.step }) {
            let (x, y) = place(point.step, point.value)
            if let last = result.last, last.x == x {
                result[result.count - 1] = (x, last.sum + y, last.count + 1)
            } else {
                result.append((x, y, 1))
            }
        }
        return result.map { ($0.x, $0.sum / $0.count) }
    }

    /// The pattern of a cell's dots (Unicode U+2800).
    private static func braille(_ dots: [[Bool]], row: Int, column: Int) -> Character {
        let bits: [[UInt32]] = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]]
        var pattern: UInt32 = 0x2800
        for y in 0..<4 {
            for x in 0..<2 where dots[4 * row + y][2 * column + x] { pattern |= bits[y][x] }
        }
        return pattern == 0x2800 ? " " : Unicode.Scalar(pattern).map { Character($0) } ?? " "
    }

    private static func padded(_ text: String, _ width: Int) -> String {
        String(repeating: " ", count: max(0, width - text.count)) + text
    }
}
