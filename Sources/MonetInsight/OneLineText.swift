extension String {
    /// The text with control characters escaped, so that it stays on one line.
    var onOneLine: String {
        unicodeScalars.map { scalar -> String in
            switch scalar {
            case "\n": "\\n"
            case "\t": "\\t"
            case "\r": "\\r"
            case _ where scalar.value < 0x20 || scalar.value == 0x7f: "\\x" + String(scalar.value, radix: 16)
            default: String(scalar)
            }
        }.joined()
    }

    /// The same in quotes, for a table's cell.
    var quotedForTable: String { "“" + onOneLine + "”" }
}
