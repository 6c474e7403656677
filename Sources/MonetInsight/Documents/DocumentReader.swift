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

    /// Pieces that run together, before they run.
    package struct Plan {
        package let pieces: [Piece]
        /// The first token after them.
        package let end: Position

        package var tokenCount: Int { pieces.reduce(0) { $0 + $1.tokens.count } }
    }

    /// The batches of documents, one after another.
    package struct Plans {
        private let reader: DocumentReader
        private let documents: LabelledDocuments
        private var place: Position
        /// The tokens of the document at the place.
        private var tokens: [Int32]?

        init(_ reader: DocumentReader, _ documents: LabelledDocuments, from first: Position) {
            (self.reader, self.documents, place) = (reader, documents, first)
        }

        /// The next batch; nil after the last.
        ///
        /// - Throws: `InsightError.foreignTokens`.
        package mutating func next() throws -> Plan? {
            var (pieces, count) = ([Piece](), 0)
            while place.document < documents.count {
                let tokens = tokens ?? documents.tokens(place.document)
                if self.tokens == nil {
                    try documents.check(tokens, vocabularySize: reader.model.configuration.vocabularySize)
                    self.tokens = tokens
                }
                if place.token >= tokens.count {
                    place = Position(document: place.document + 1)
                    self.tokens = nil
                    continue
                }
                let piece = Array(tokens[place.token..<min(tokens.count, place.token + reader.window)])
                if !pieces.isEmpty, count + piece.count > reader.batchTokens {
                    return Plan(pieces: pieces, end: place)
                }
                pieces.append(Piece(document: place.document, start: place.token, tokens: piece))
                count += piece.count
                place.token += reader.window
            }
            return pieces.isEmpty ? nil : Plan(pieces: pieces, end: Position(document: documents.count))
        }
    }

    /// The batches of documents from `first`, the start or the end of a batch, on.
    package func plans(of documents: LabelledDocuments, from first: Position = Position()) -> Plans {
        Plans(self, documents, from: first)
    }

    /// Runs a batch.
    ///
    /// - Throws: `ModelError`, `ComputeError`.
    package func run(_ plan: Plan) throws -> Batch {
        var input = ForwardInput(plan.pieces.map(\.tokens), mask: mask)
        for index in input.sequences.indices { input.sequences[index].steering = steering }
        input.keepsUnits = keepsUnits
        return Batch(pieces: plan.pieces, output: try model.forward(input, on: backend), end: plan.end)
    }

    /// Reads documents from `first`, the start or the end of a batch, on; `body` returns false to stop.
    ///
    /// - Throws: `InsightError.foreignTokens`, `ModelError`, or what `body` throws.
    package func forEachBatch(
        of documents: LabelledDocuments, from first: Position = Position(), _ body: (Batch) throws -> Bool
    ) throws {
        var plans = plans(of: documents, from: first)
        while let plan = try plans.next() {
            guard try body(run(plan)) else { return }
        }
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
