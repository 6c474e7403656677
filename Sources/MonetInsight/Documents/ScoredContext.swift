import MonetFoundation
import MonetModel

/// A few tokens of a document, with an expert's score on each.
public struct ScoredContext: Sendable, Equatable {
    /// The texts of the tokens; `<0xE2>` for a byte.
    public let pieces: [String]
    /// The expert's scores.
    public let scores: [Double]
    /// The token that the context is about.
    public let place: Int

    /// Joins them.
    public init(pieces: [String], scores: [Double], place: Int) {
        (self.pieces, self.scores, self.place) = (pieces, scores, place)
    }

    /// Whether the expert fires on any of the tokens.
    public var fires: Bool { scores.contains { $0 > 0 } }

    /// The text, with every token that `isMarked` accepts between `«` and `»`.
    public func text(marking isMarked: (Int) -> Bool) -> String {
        var text = ""
        var plain: [String] = []
        for (index, piece) in pieces.enumerated() {
            guard isMarked(index) else {
                plain.append(piece)
                continue
            }
            // A leading space stays outside, where a reader expects it.
            let space = piece.hasPrefix(" ") ? " " : ""
            text +=
                TokenText.joined(plain) + space + "«" + TokenText.joined([piece]).dropFirst(space.count) + "»"
            plain = []
        }
        return (text + TokenText.joined(plain)).onOneLine
    }
}

extension ExpertDossier.Activation {
    /// The context with its scores; nil unless they were measured.
    public var scored: ScoredContext? {
        scores.map { ScoredContext(pieces: pieces, scores: $0, place: place) }
    }
}

/// Documents with the scores of some experts, from which contexts are drawn.
public struct ScoredDocuments: Sendable {
    private let documents: [DocumentActivations]
    /// The texts of token ids.
    private let names: @Sendable (Int32) -> String
    /// The firings of each expert: document and token, with the score.
    private let firings: [UnitID: [Firing]]
    /// Tokens before each document.
    private let starts: [Int]

    private struct Firing: Sendable {
        let document: Int
        let token: Int
        let score: Float
    }

    /// Reads all documents of a reader, whose selection has units.
    ///
    /// - `progress`: called with the tokens read; false stops.
    /// - Throws: `CancellationError` when stopped, or what reading throws.
    public init(
        _ reader: ActivationReader, names: @escaping @Sendable (Int32) -> String,
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        var iterator = reader.documents(from: 0)
        var documents: [DocumentActivations] = []
        var firings: [UnitID: [Firing]] = [:]
        var starts = [0]
        while let document = try iterator.nextDocument() {
            let list = document.scores
            for entry in 0..<list.count {
                firings[UnitID(group: Int(list.groups[entry]), index: Int(list.units[entry])), default: []]
                    .append(
                        Firing(
                            document: documents.count, token: Int(list.tokens[entry]),
                            score: list.scores[entry]))
            }
            documents.append(document)
            starts.append(starts[starts.count - 1] + document.tokens.count)
            guard progress(starts[starts.count - 1]) else { throw CancellationError() }
        }
        (self.documents, self.firings, self.starts, self.names) = (documents, firings, starts, names)
    }

    /// All tokens.
    public var tokenCount: Int { starts[starts.count - 1] }

    /// Contexts of tokens on which the expert fires, drawn at random without repetition.
    public func firing(
        _ expert: UnitID, count: Int, reach: Int, using generator: inout SplitMix64
    ) -> [ScoredContext] {
        (firings[expert] ?? []).shuffled(using: &generator).prefix(count).map {
            context(expert, document: $0.document, token: $0.token, reach: reach)
        }
    }

    /// Contexts of tokens drawn at random, on which the expert does not fire: on none of the context's, or not on the token itself.
    public func silent(
        _ expert: UnitID, count: Int, reach: Int, everywhere: Bool, using generator: inout SplitMix64
    ) -> [ScoredContext] {
        var found: [ScoredContext] = []
        var tries = 0
        while found.count < count, tries < 50 * count, tokenCount > 0 {
            tries += 1
            let token = Int(generator.next() % UInt64(tokenCount))
            let document = (starts.firstIndex { $0 > token } ?? 1) - 1
            let context = context(expert, document: document, token: token - starts[document], reach: reach)
            if everywhere ? !context.fires : context.scores[context.place] == 0 { found.append(context) }
        }
        return found
    }

    private func context(_ expert: UnitID, document: Int, token: Int, reach: Int) -> ScoredContext {
        let tokens = documents[document].tokens
        let range = max(0, token - reach)..<min(tokens.count, token + reach + 1)
        var scores = [Double](repeating: 0, count: range.count)
        for firing in firings[expert] ?? [] where firing.document == document && range.contains(firing.token)
        {
            scores[firing.token - range.lowerBound] = Double(firing.score)
        }
        return ScoredContext(
            pieces: tokens[range].map(names), scores: scores, place: token - range.lowerBound)
    }
}
