import MonetFoundation
import Testing

@Suite struct OneLineTextTests {
    @Test(arguments: [
        ("plain – 日本", "plain – 日本"), ("a\nb\tc\r", "a\\nb\\tc\\r"), ("\u{1b}[2J", "\\x1b[2J"),
        ("\u{9b}31m", "\\x9b31m"), ("\u{202e}abc", "\\x202eabc"), ("\u{7f}\0", "\\x7f\\x0"), ("", ""),
    ])
    func controlsAreEscaped(text: String, expected: String) {
        #expect(text.onOneLine == expected)
        #expect("x\n\(text)".withoutControls == "x\n" + expected.replacingNewlines)
    }
}

extension String {
    /// Escaped line breaks as they are in a text of several lines.
    fileprivate var replacingNewlines: String { split(separator: "\\n").joined(separator: "\n") }

    @Test func whatSteersTerminalsIsReplaced() {
        #expect(
            "a\n\tb\u{1b}[2Jc\u{9b}d\u{202e}e\r".withoutTerminalControls
                == "a\n\tb\u{fffd}[2Jc\u{fffd}d\u{fffd}e\u{fffd}")
        #expect("plain é\n".withoutTerminalControls == "plain é\n")
    }
}
