import Foundation
import MonetFoundation

/// Conversations as token ids, with which of them the assistant says.
///
/// A template that marks these with `{% generation %}`, as transformers' `return_assistant_tokens_mask` reads it, says
/// so itself. Otherwise, what an assistant's turn adds to the text before it, rendered with the generation prompt, is
/// the assistant's.
public struct ConversationEncoder: Sendable {
    /// A conversation as tokens.
    public struct Encoded: Sendable, Equatable {
        /// All tokens.
        public let ids: [Int32]
        /// Whether the assistant says a token.
        public let isAssistant: [Bool]
    }

    private let template: ChatTemplate
    private let tokenizer: Tokenizer
    private let date: Date

    /// - `template`: in place of the tokenizer's own.
    /// - `date`: what `strftime_now` takes for now, which it writes in GMT so that all machines write the same.
    /// - Throws: `TextError.missingTemplate` if there is none and the tokenizer is not a chat model's.
    public init(_ tokenizer: Tokenizer, template: String? = nil, date: Date = Date()) throws {
        guard let source = template ?? tokenizer.chatTemplate else {
            throw TextError.missingTemplate(path: tokenizer.chatTemplatePath)
        }
        self.tokenizer = tokenizer
        self.date = date
        self.template = try ChatTemplate(source)
    }

    /// The tokens of a conversation.
    ///
    /// - `first`: the message from which on what the assistant says is marked.
    /// - Throws: `TextError`, also for a template that does not tell the assistant's text from the rest.
    public func callAsFunction(_ conversation: Conversation, markingFrom first: Int = 0) throws -> Encoded {
        let (text, spans) = try spans(conversation, from: first)
        let ids = try tokenizer.encode(text, parsingSpecial: true)
        let places = try tokenizer.places(of: ids, in: text)
        var isAssistant = [Bool](repeating: false, count: ids.count)
        for (index, place) in places.enumerated() {
            isAssistant[index] = spans.contains { $0.overlaps(place) }
        }
        return Encoded(ids: ids, isAssistant: isAssistant)
    }

    /// The text of a conversation and the bytes of it that the assistant says from a message on.
    private func spans(_ conversation: Conversation, from first: Int) throws -> (
        text: String, spans: [Range<Int>]
    ) {
        func render(_ messages: some Sequence<ChatMessage>, prompt: Bool) throws -> (
            text: String, generated: [Range<Int>]
        ) {
            try template.rendering(
                messages: .array(messages.map(\.json)), addGenerationPrompt: prompt,
                specialTokens: tokenizer.specialTokenTexts,
                variables: .object([.init("tools", conversation.tools)]), date: date, timeZone: .gmt)
        }
        let messages = conversation.messages
        let whole = try render(messages, prompt: false)
        if !whole.generated.isEmpty {
            if first == 0 { return (whole.text, whole.generated) }
            let before = try render(messages.prefix(first), prompt: false).text
            if whole.text.utf8.starts(with: before.utf8) {
                return (whole.text, whole.generated.filter { $0.lowerBound >= before.utf8.count })
            }
            // What comes before is written otherwise where more follows: each message has its mark, then.
            let said = messages.indices.filter { messages[$0].role == "assistant" }
            guard said.count == whole.generated.count else {
                throw TextError.templateFailure(
                    reason:
                        "it marks \(whole.generated.count) texts with {% generation %} in a conversation with "
                        + "\(said.count) messages of the assistant, of which those from message \(first) on are needed",
                    line: 1)
            }
            return (whole.text, zip(said, whole.generated).filter { $0.0 >= first }.map(\.1))
        }
        let text = Array(whole.text.utf8)
        func bytes(_ rendered: (text: String, generated: [Range<Int>])) -> [UInt8] {
            Array(rendered.text.utf8)
        }
        /// Where the text of a message begins.
        func start(of place: Int) throws -> Int? {
            let before = try? bytes(render(messages.prefix(place), prompt: true))
            if let before, text.starts(with: before) { return before.count }
            // Many templates want something before the assistant's first message. Where the text changes with the
            // message, it is the message's.
            if place == 0 {
                let changed = try ["0", "1"].map { content in
                    var message = messages[0]
                    message.content = content
                    return bytes(try render([message], prompt: false))
                }
                let common = Self.common(changed[0], changed[1])
                return common < changed[0].count && Self.common(text, changed[0]) >= common ? common : nil
            }
            // For the error that it gives, if any.
            _ = try render(messages.prefix(place), prompt: true)
            return nil
        }
        /// Where what the template writes after a message ends, which begins at `start`.
        func end(of place: Int, from start: Int) throws -> Int? {
            let after = bytes(try render(messages.prefix(place + 1), prompt: false))
            if text.starts(with: after) { return after.count }
            // Some templates end a conversation with a mark that is not there where it goes on: what follows the message
            // and is the same in both, up to the white space after a mark in brackets.
            let common = Self.common(text, after)
            let content = Array(messages[place].content.trimmingCharacters(in: .whitespacesAndNewlines).utf8)
            guard start <= common, !content.isEmpty,
                let said = text[start..<common].firstRange(of: content),
                let space = text[said.upperBound..<common].lastIndex(where: Self.isSpace),
                let mark = text[said.upperBound..<space].last(where: { !Self.isSpace($0) }),
                [UInt8(ascii: ">"), UInt8(ascii: "]")].contains(mark)
            else { return nil }
            return space + 1
        }
        let spans = try messages.indices.filter { $0 >= first && messages[$0].role == "assistant" }.map {
            place in
            guard let start = try start(of: place), let end = try end(of: place, from: start), start <= end
            else {
                throw TextError.templateFailure(
                    reason:
                        "message \(place) of a conversation is not appended to what comes before it, so that "
                        + "the assistant's text cannot be told from the rest; mark it with {% generation %}",
                    line: 1)
            }
            return start..<end
        }
        return (whole.text, spans)
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 0x0a }

    /// How many bytes two texts begin with alike.
    private static func common(_ one: [UInt8], _ other: [UInt8]) -> Int {
        zip(one, other).prefix { $0 == $1 }.count
    }
}

extension Tokenizer {
    /// Where tokens stand in the text that they encode, in UTF-8 bytes; empty for what is not in it.
    ///
    /// - Throws: `TextError.tokenizerFailure` if the tokens spell another text, as those of tokenizers do that change
    ///   letters.
    func places(of ids: [Int32], in text: String) throws -> [Range<Int>] {
        let bytes = Array(text.utf8)
        var position = 0
        /// Where a token's text ends that begins at a place. SentencePiece writes a space as U+2581, and takes one in the
        /// text for the other.
        func end(of surface: some Sequence<UInt8>, at start: Int) -> Int? {
            var place = start
            for byte in surface {
                if place < bytes.count, bytes[place] == byte {
                    place += 1
                } else if byte == 0x20, bytes[place...].starts(with: [0xe2, 0x96, 0x81]) {
                    place += 3
                } else {
                    return nil
                }
            }
            return place
        }
        func skipWhiteSpace() {
            while position < bytes.count, Self.isStripped(bytes[position]) { position += 1 }
        }
        return try ids.map { id in
            if strips(id).left { skipWhiteSpace() }
            let surface: [UInt8]
            let piece = try piece(id)
            switch try kind(id) {
            case .byte:
                // "<0xE2>"
                surface = UInt8(piece.dropFirst(3).dropLast(), radix: 16).map { [$0] } ?? []
            case .unknown:
                // It stands for any one character.
                surface =
                    String(decoding: bytes[position...].prefix(32), as: UTF8.self).first
                    .map { Array(String($0).utf8) } ?? []
            default: surface = Array(try displayText(id).utf8)
            }
            let start = position
            if let end = end(of: surface, at: start) {
                position = end
            } else if surface.first == 0x20, let end = end(of: surface.dropFirst(), at: start) {
                // The space that SentencePiece puts before a text.
                position = end
            } else {
                throw TextError.tokenizerFailure(
                    reason:
                        "the token \"\(try displayText(id))\" is not what stands at byte \(position) of the text"
                )
            }
            defer { if strips(id).right { skipWhiteSpace() } }
            return start..<position
        }
    }
}
