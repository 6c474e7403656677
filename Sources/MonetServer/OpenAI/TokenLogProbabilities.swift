import MonetFoundation
import MonetGeneration
import MonetText

/// The text under which a token appears in log-probabilities.
struct TokenNames: Sendable {
    let tokenizer: Tokenizer

    /// The token's text, with a space where the piece begins a word; `bytes:\x0a` for a byte, as OpenAI writes it.
    func name(_ id: Int32) -> String {
        guard let piece = try? tokenizer.displayText(id) else { return "" }
        guard (try? tokenizer.kind(id)) == .byte else { return piece }
        return "bytes:\\x" + piece.dropFirst(3).dropLast().lowercased()
    }

    /// The bytes of the token's text.
    func bytes(_ id: Int32) -> [UInt8] {
        guard let piece = try? tokenizer.displayText(id) else { return [] }
        guard (try? tokenizer.kind(id)) == .byte else { return Array(piece.utf8) }
        return UInt8(piece.dropFirst(3).dropLast(), radix: 16).map { [$0] } ?? []
    }
}

/// The log-probabilities of a text's tokens in the form of `/v1/completions`.
///
/// A token's own log-probability and the same number among its alternatives are printed from one value, because
/// clients compare them for equality to tell whether it was the most likely token.
struct CompletionLogProbabilities {
    private let names: TokenNames
    private var tokens: [JSONValue] = []
    private var own: [JSONValue] = []
    private var top: [JSONValue] = []
    private var offsets: [JSONValue] = []
    /// Alternatives per token; 0 reports the token itself only.
    private let alternatives: Int

    init(_ names: TokenNames, alternatives: Int) {
        (self.names, self.alternatives) = (names, alternatives)
    }

    /// Adds a token that begins at a place of the text, in characters.
    mutating func add(_ id: Int32, _ logProbability: Double?, _ others: [TokenProbability], offset: Int) {
        tokens.append(.string(names.name(id)))
        offsets.append(.integer(offset))
        guard let logProbability else {
            own.append(.null)
            top.append(.null)
            return
        }
        own.append(.number(logProbability))
        guard alternatives > 0 else {
            top.append(.null)
            return
        }
        var members: [(name: String, value: Double)] = []
        for (id, value) in others.prefix(alternatives).map({ ($0.id, $0.logProbability) }) + [
            (id, logProbability)
        ] {
            let name = names.name(id)
            // Two tokens may have one text; the more likely one counts.
            if let place = members.firstIndex(where: { $0.name == name }) {
                members[place].value = max(members[place].value, value)
            } else {
                members.append((name, value))
            }
        }
        top.append(.object(members.map { .init($0.name, .number($0.value)) }))
    }

    var json: JSONValue {
        [
            "tokens": .array(tokens), "token_logprobs": .array(own), "top_logprobs": .array(top),
            "text_offset": .array(offsets),
        ]
    }

    /// The tokens so far, which are then forgotten.
    mutating func take() -> JSONValue {
        defer { (tokens, own, top, offsets) = ([], [], [], []) }
        return json
    }
}

/// The same in the form of `/v1/chat/completions`.
struct ChatLogProbabilities {
    let names: TokenNames
    let alternatives: Int

    func json(_ token: GeneratedToken) -> JSONValue {
        func entry(_ id: Int32, _ value: Double) -> [JSONValue.Member] {
            [
                .init("token", .string(names.name(id))), .init("logprob", .number(value)),
                .init("bytes", .array(names.bytes(id).map { .integer(Int($0)) })),
            ]
        }
        return .object(
            entry(token.id, token.logProbability) + [
                .init(
                    "top_logprobs",
                    .array(
                        token.alternatives.prefix(alternatives).map {
                            .object(entry($0.id, $0.logProbability))
                        }))
            ])
    }
}
