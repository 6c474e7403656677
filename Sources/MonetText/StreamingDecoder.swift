/// Decodes tokens to text as they arrive, without splitting UTF-8 sequences.
///
///     var decoder = StreamingDecoder(tokenizer: tokenizer)
///     for id in ids { print(try decoder.append(id), terminator: "") }
///     print(decoder.finish())
public struct StreamingDecoder {
    private let tokenizer: Tokenizer
    private var pending: [UInt8] = []
    private var isAtStart: Bool

    /// A decoder; `continuing` means that there is text before the first token, whose leading space is
    /// therefore kept.
    public init(tokenizer: Tokenizer, continuing: Bool = false) {
        self.tokenizer = tokenizer
        isAtStart = !continuing
    }

    /// The text that `id` completes, possibly empty.
    public mutating func append(_ id: Int32) throws -> String {
        switch try tokenizer.bytes(id) {
        case .byte(let byte):
            isAtStart = false
            pending.append(byte)
            return takeComplete()
        case .text(let text):
            if text.isEmpty { return "" }
            let before = finish()
            let isFirst = isAtStart
            isAtStart = false
            // SentencePiece puts a space before the text when it encodes.
            return before + (isFirst && text.hasPrefix(" ") ? String(text.dropFirst()) : text)
        }
    }

    /// The remaining text, with U+FFFD for bytes that never became a character.
    public mutating func finish() -> String {
        defer { pending.removeAll() }
        return pending.isEmpty ? "" : takeComplete() + String(repeating: "\u{fffd}", count: pending.count)
    }

    /// Complete characters at the front of the pending bytes; each byte that cannot begin or continue
    /// one becomes U+FFFD.
    private mutating func takeComplete() -> String {
        var text = ""
        while let first = pending.first {
            let length = first < 0x80 ? 1 : first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : first >= 0xc2 ? 2 : 0
            let have = pending.prefix(length)
            let isPrefix = length > 0 && first <= 0xf4 && have.dropFirst().allSatisfy { $0 & 0xc0 == 0x80 }
            if !isPrefix {
                text += "\u{fffd}"
                pending.removeFirst()
            } else if have.count < length {
                return text
            } else if let character = String(validating: have, as: UTF8.self) {
                text += character
                pending.removeFirst(length)
            } else {
                text += "\u{fffd}"
                pending.removeFirst()
            }
        }
        return text
    }
}
