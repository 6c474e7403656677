extension StringProtocol {
    /// The lines of a text without their ends, LF or CRLF: to Swift, CRLF is one character and no LF.
    ///
    /// A text that ends with an end of line has an empty last line.
    package var lines: [SubSequence] {
        split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
    }
}
