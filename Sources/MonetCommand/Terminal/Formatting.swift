import Foundation
import MonetFoundation

extension Double {
    /// With `digits` decimals.
    func text(_ digits: Int) -> String { String(format: "%.\(digits)f", self) }

    /// With three significant digits, without an exponent for ordinary sizes: `0.00123`, `12.3`, `1234`.
    var significant: String {
        guard isFinite, self != 0 else { return text(0) }
        let magnitude = Int(log10(abs(self)).rounded(.down))
        return text(min(9, max(0, 2 - magnitude)))
    }

    /// Seconds as `1h 02m`, `3m 20s` or `12s`.
    var durationText: String {
        guard isFinite, self < 1e9 else { return "–" }
        let seconds = Int(rounded())
        if seconds >= 3600 { return String(format: "%dh %02dm", seconds / 3600, seconds % 3600 / 60) }
        if seconds >= 60 { return String(format: "%dm %02ds", seconds / 60, seconds % 60) }
        return "\(seconds)s"
    }
}

/// Rows of cells as aligned lines; the first column and text columns are left-aligned, others right-aligned.
func alignedTable(_ rows: [[String]], textColumns: Set<Int> = []) -> String {
    // Labels and names come from files of strangers.
    let rows = rows.map { $0.map(\.onOneLine) }
    let columns = rows.map(\.count).max() ?? 0
    let widths = (0..<columns).map { column in
        rows.map { $0.count > column ? $0[column].count : 0 }.max() ?? 0
    }
    return rows.map { row in
        row.enumerated().map { column, cell in
            let space = String(repeating: " ", count: widths[column] - cell.count)
            let isLast = column == row.count - 1
            if column == 0 || textColumns.contains(column) { return isLast ? cell : cell + space }
            return space + cell
        }.joined(separator: "  ") + "\n"
    }.joined()
}
