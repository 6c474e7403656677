import MonetCompute
import MonetModel

/// Runs documents through a model in batches and hands over the routing of every token.
///
/// A document is read by itself, in windows of `window` tokens if it is longer; windows of several
/// documents run together until a batch holds `batchTokens`.
struct RoutingReader {
    let model: MonetLanguageModel
    let backend: any Backend
    let window: Int
    let batchTokens: Int
    var mask: ExpertMask?

    /// Part of a document.
    struct Piece {
        let document: Int
        /// Position of the first token in the document.
        let start: Int
        let tokens: [Int32]
    }

    /// A place in the documents.
    struct Position: Equatable {
        var document = 0
        var token = 0
    }

    /// Pieces that ran together, with both sides' probabilities `[tokens, heads, experts]` of each group.
    struct Batch {
        let pieces: [Piece]
        let sides: [(left: Tensor, right: Tensor)]
        /// The first token that has not run.
        let end: Position

        var tokenCount: Int { pieces.reduce(0) { $0 + $1.tokens.count } }
    }

    /// Reads documents from `first` on, a batch's end; `body` returns false to stop.
    ///
    /// - Throws: `InsightError.foreignTokens`, `ModelError`, or what `body` throws.
    func forEachBatch(
        of documents: LabelledDocuments, from first: Position = Position(), _ body: (Batch) throws -> Bool
    ) throws {
        var pieces: [Piece] = []
        var count = 0
        func flush(_ end: Position) throws -> Bool {
            guard !pieces.isEmpty else { return true }
            let context = ForwardContext(inferenceOn: backend)
            context.mask = mask
            let output = try model.forward(pieces.map(\.tokens), context)
            let batch = Batch(
                pieces: pieces,
                sides: output.routings.map { ($0.routing.left.value, $0.routing.right.value) }, end: end)
            pieces.removeAll(keepingCapacity: true)
            count = 0
            return try body(batch)
        }
        for document in first.document..<max(first.document, documents.count) {
            let tokens = documents.tokens(document)
            try documents.check(tokens, vocabularySize: model.configuration.vocabularySize)
            let from = document == first.document ? first.token : 0
            for start in stride(from: from, to: tokens.count, by: window) {
                let piece = Array(tokens[start..<min(tokens.count, start + window)])
                if count + piece.count > batchTokens,
                    !(try flush(Position(document: document, token: start)))
                {
                    return
                }
                pieces.append(Piece(document: document, start: start, tokens: piece))
                count += piece.count
            }
        }
        _ = try flush(Position(document: documents.count, token: 0))
    }
}

extension LabelledDocuments {
    /// - Throws: `InsightError.foreignTokens` for an id beyond the vocabulary.
    func check(_ tokens: [Int32], vocabularySize: Int) throws {
        if let bad = tokens.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
            throw InsightError.foreignTokens(origin: origin, token: Int(bad), vocabularySize: vocabularySize)
        }
    }
}
