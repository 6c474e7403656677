extension String {
    /// The text with control characters escaped, so that it stays on one line and does not steer a terminal.
    public var onOneLine: String {
        unicodeScalars.map { scalar -> String in
            switch scalar {
            case "\n": "\\n"
            case "\t": "\\t"
            case "\r": "\\r"
            default: scalar.isControl ? "\\x" + String(scalar.value, radix: 16) : String(scalar)
            }
        }.joined()
    }

    /// The same with its lines: for messages that quote what files contain.
    public var withoutControls: String {
        unicodeScalars.contains { $0.isControl && $0 != "\n" }
            ? split(separator: "\n", omittingEmptySubsequences: false).map { String($0).onOneLine }
                .joined(separator: "\n")
            : self
    }

    /// The text without what would steer a terminal; line breaks and tabs stay. For texts that are written out as
    /// they come.
    public var withoutTerminalControls: String {
        guard unicodeScalars.contains(where: { $0.isControl && $0 != "\n" && $0 != "\t" }) else {
            return self
        }
        var result = String.UnicodeScalarView()
        result.append(
            contentsOf: unicodeScalars.map { scalar -> Unicode.Scalar in
                !scalar.isControl || scalar == "\n" || scalar == "\t" ? scalar : "\u{fffd}"
            })
        return String(result)
    }

    /// The text on one line, in quotes, for a table's cell.
    public var quotedForTable: String { "“" + onOneLine + "”" }
}

extension Unicode.Scalar {
    /// Whether a terminal may act on it: control characters of both sets, and those that turn the direction of text.
    fileprivate var isControl: Bool {
        switch value {
        case 0..<0x20, 0x7f..<0xa0, 0x200e, 0x200f, 0x202a...0x202e, 0x2066...0x2069: true
        default: false
        }
    }
}
