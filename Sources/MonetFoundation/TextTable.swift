/// A table of text for terminals: columns as wide as their widest cell, with a rule under the header.
public struct TextTable {
    /// The header's cells.
    public let header: [String]
    /// The rows' cells, as many as the header has.
    public let rows: [[String]]
    /// Columns of numbers, which are aligned at their right.
    public let numbers: Set<Int>

    /// Joins header and rows.
    public init(_ header: [String], _ rows: [[String]], numbers: Set<Int> = []) {
        (self.header, self.rows, self.numbers) = (header, rows, numbers)
    }

    /// The table's lines.
    public var text: String {
        let widths = header.indices.map { column in ([header] + rows).map { $0[column].count }.max() ?? 0 }
        func line(_ cells: [String]) -> String {
            let padded = cells.enumerated().map { column, cell in
                let space = String(repeating: " ", count: widths[column] - cell.count)
                return numbers.contains(column) ? space + cell : cell + space
            }
            var line = Substring(padded.joined(separator: "   "))
            while line.last == " " { line.removeLast() }
            return line + "\n"
        }
        return line(header) + line(widths.map { String(repeating: "─", count: $0) }) + rows.map(line).joined()
    }
}
