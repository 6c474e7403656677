import MonetCompute
import MonetModel

/// Runs documents through a model in batches and passes on the results for every token.
///
/// Documents are read separately, in windows of `window` tokens if they are longer; windows of several
/// documents run together in batches of at most `batchTokens`.
package struct DocumentReader {
    let model: MonetLanguageModel
    let backend: any Backend
    let window: Int
    let batchTokens: Int
    /// Units to remove, weaken or amplify.
    private let mask: UnitMask?
    private let steering: Steering?
    private let keepsUnits: Bool

    /// - Parameters:
    ///   - window: nil means the model's context, at most 512.
    ///   - steering: other changes of the passes; positions are those of a window.
    ///   - keepsUnits: whether the output holds the units of families that do not need them otherwise.
    package init(
        model: MonetLanguageModel, backend: any Backend, window: Int? = nil, batchTokens: Int = 512,
        mask: UnitMask? = nil, steering: Steering? = nil, keepsUnits: Bool = true
    ) {
        self.model = model
        self.backend = backend
        self.window = window ?? min(model.configuration.contextLength, 512)
        self.batchTokens = batchTokens
        self.mask = mask
        self.steering = steering
        self.keepsUnits = keepsUnits
    }

    /// Part of a document.
    package struct Piece {
        package let document: Int
        /// Position of the first token in the document.
        package let start: Int
        package let tokens: [Int32]
    }

    /// A position in the documents.
    package struct Position: Equatable {
        package var document = 0
        package var token = 0

        /// The position of a token, by default of the first.
        package init(document: Int = 0, token: Int = 0) {
            self.document = document
            self.token = token
        }
    }

    /// Pieces that ran together, and the model's output with a row for every token.
    package struct Batch {
        package let pieces: [Piece]
        package let output: ForwardOutput
        /// The first token that has not run.
        package let end: Position

        package var tokenCount: Int { pieces.reduce(0) { $0 + $1.tokens.count } }
    }

    /// Reads documents from `first`, the start or the end of a batch, on; `body` returns false to stop.
    ///
    /// - Throws: `InsightError.foreignTokens`, `ModelError`, or what `body` throws.
    package func forEachBatch(
        of documents: LabelledDocuments, from first: Position = Position(), _ body: (Batch) throws -> Bool
    ) throws {
        var pieces: [Piece] = []
        var count = 0
        func flush(_ end: Position) throws -> Bool {
            guard !pieces.isEmpty else { return true }
            var input = ForwardInput(pieces.map(\.tokens), mask: mask)
            for index in input.sequences.indices { input.sequences[index].steering = steering }
            input.keepsUnits = keepsUnits
            let output = try model.forward(input, on: backend)
            let batch = Batch(pieces: pieces, output: output, end: end)
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
