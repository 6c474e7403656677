import MonetCompute
import MonetModel

/// What to take out of a model's passes over documents.
public struct ActivationSelection: Sendable, Equatable {
    /// Units whose scores are taken.
    public enum Units: Sendable, Equatable {
        case none
        case all
        case these([UnitID])
    }

    /// Units whose scores are taken.
    public var units: Units
    /// Hook points whose values are taken.
    public var hooks: [HookPoint]

    /// Joins both.
    public init(units: Units = .none, hooks: [HookPoint] = []) { (self.units, self.hooks) = (units, hooks) }
}

/// The scores of units on tokens as a list of coordinates: every column has an entry for each token and unit with a score
/// above zero, in the order of tokens and groups.
public struct ScoreList: Sendable, Equatable {
    /// The token, counted from the first of the list's document or shard.
    public var tokens: [Int32] = []
    /// The group of units.
    public var groups: [Int32] = []
    /// The unit's index in its group.
    public var units: [Int32] = []
    /// The score.
    public var scores: [Float] = []

    /// An empty list.
    public init() {}

    /// Entries.
    public var count: Int { scores.count }

    mutating func append(token: Int, group: Int, unit: Int, score: Float) {
        tokens.append(Int32(token))
        groups.append(Int32(group))
        units.append(Int32(unit))
        scores.append(score)
    }

    /// Adds another list, whose tokens follow `offset` ones.
    mutating func append(_ other: ScoreList, after offset: Int) {
        tokens += other.tokens.map { $0 + Int32(offset) }
        groups += other.groups
        units += other.units
        scores += other.scores
    }
}

/// The activations of one document.
public struct DocumentActivations: Sendable {
    /// The document's number.
    public let document: Int
    /// Its tokens.
    public let tokens: [Int32]
    /// The scores of the selected units.
    public let scores: ScoreList
    /// The values at the selected hook points, row by row, with the shape of one token's value: `[d]`, or
    /// `[heads, width]`.
    public let values: [HookPoint: (values: [Float], shape: [Int])]
}

/// Reads the activations of documents, several at a time, one after another.
///
///     let reader = try ActivationReader(model: model, documents: documents, selection)
///     for try await document in reader { print(document.tokens.count, document.scores.count) }
///
/// A document longer than the window is read in windows, as an index reads it. Memory is bounded by a batch, or the
/// longest document if that is more.
public struct ActivationReader: AsyncSequence, Sendable {
    public typealias Element = DocumentActivations

    /// The model.
    public let model: MonetLanguageModel
    /// The documents.
    public let documents: LabelledDocuments
    /// What is taken.
    public let selection: ActivationSelection
    /// Tokens that are read together.
    public let window: Int
    let mask: UnitMask?
    let steering: Steering?
    let batchTokens: Int
    let backend: any Backend
    /// The selected units by group; nil for all.
    private let chosen: [Int: Set<Int>]?

    /// - `window`: nil means the model's context, at most 512.
    /// - `mask`, `steering`: changes of the passes; positions are those of a window.
    /// - Throws: `ModelError.invalidInput` for a hook point that the model does not have, `InsightError` for a unit that it
    ///   does not have, or a window beyond its context.
    public init(
        model: MonetLanguageModel, documents: LabelledDocuments, _ selection: ActivationSelection,
        mask: UnitMask? = nil, steering: Steering? = nil, window: Int? = nil, batchTokens: Int = 512,
        backend: any Backend = CPUBackend()
    ) throws {
        let context = model.configuration.contextLength
        let window = window ?? Swift.min(context, 512)
        guard (1...context).contains(window) else {
            throw InsightError.invalidSetting(
                name: "the window", found: "\(window)", expected: "1 to the model's context of \(context)")
        }
        try model.check(selection.hooks)
        if let mask { try model.check(mask) }
        if let steering { try model.check(steering) }
        switch selection.units {
        case .none: chosen = [:]
        case .all: chosen = nil
        case .these(let units):
            var chosen: [Int: Set<Int>] = [:]
            for unit in units {
                _ = try UnitID(parsing: unit.description, in: model.units)
                chosen[unit.group, default: []].insert(unit.index)
            }
            self.chosen = chosen
        }
        var selection = selection
        var known: Set<HookPoint> = []
        selection.hooks = selection.hooks.filter { known.insert($0).inserted }
        (self.model, self.documents, self.selection, self.mask) = (model, documents, selection, mask)
        self.steering = steering
        (self.window, self.batchTokens, self.backend) = (window, batchTokens, backend)
    }

    /// All documents, from the first on.
    public func makeAsyncIterator() -> Iterator { Iterator(self, from: 0) }

    /// The documents from one on.
    public func documents(from first: Int) -> Iterator { Iterator(self, from: first) }

    /// Runs documents and keeps their activations until they are asked for.
    public struct Iterator: AsyncIteratorProtocol {
        private let reader: ActivationReader
        private var next: Int
        private var ready: [DocumentActivations] = []

        fileprivate init(_ reader: ActivationReader, from first: Int) {
            (self.reader, next) = (reader, first)
        }

        /// The next document, for callers that do not wait.
        ///
        /// - Throws: `InsightError.foreignTokens`, `ModelError`, `ComputeError`.
        public mutating func nextDocument() throws -> DocumentActivations? {
            if ready.isEmpty, let batch = nextBatch() { ready = try reader.run(batch).reversed() }
            return ready.popLast()
        }

        /// The documents that run together next, before they run; nil after the last.
        mutating func nextBatch() -> [Int]? {
            var (batch, count) = ([Int](), 0)
            while next < reader.documents.count {
                let tokens = reader.documents.tokenCount(next)
                if !batch.isEmpty, count + tokens > reader.batchTokens { break }
                if tokens > 0 { batch.append(next) }
                count += tokens
                next += 1
            }
            return batch.isEmpty ? nil : batch
        }

        public mutating func next() async throws -> DocumentActivations? {
            try Task.checkCancellation()
            return try nextDocument()
        }
    }

    /// Documents that run together; one longer than a batch runs window by window.
    func run(_ batch: [Int]) throws -> [DocumentActivations] {
        var parts: [(document: Int, tokens: [Int32])] = []
        for document in batch {
            let tokens = documents.tokens(document)
            try documents.check(tokens, vocabularySize: model.configuration.vocabularySize)
            for start in stride(from: 0, to: tokens.count, by: window) {
                parts.append((document, Array(tokens[start..<Swift.min(tokens.count, start + window)])))
            }
        }
        var scores = Dictionary(uniqueKeysWithValues: batch.map { ($0, ScoreList()) })
        var values = Dictionary(
            uniqueKeysWithValues: batch.map { ($0, [HookPoint: (values: [Float], shape: [Int])]()) })
        var read: [Int: Int] = [:]
        var first = 0
        while first < parts.count {
            var (end, count) = (first, 0)
            while end < parts.count, end == first || count + parts[end].tokens.count <= batchTokens {
                count += parts[end].tokens.count
                end += 1
            }
            try run(Array(parts[first..<end]), &scores, &values, &read)
            first = end
        }
        return batch.map { document in
            DocumentActivations(
                document: document, tokens: documents.tokens(document),
                scores: scores[document] ?? ScoreList(),
                values: values[document] ?? [:])
        }
    }

    private func run(
        _ parts: [(document: Int, tokens: [Int32])], _ scores: inout [Int: ScoreList],
        _ values: inout [Int: [HookPoint: (values: [Float], shape: [Int])]], _ read: inout [Int: Int]
    ) throws {
        var input = ForwardInput(
            parts.map { part in
                var sequence = ForwardSequence(part.tokens, mask: mask)
                sequence.steering = steering
                return sequence
            })
        input.keepsUnits = chosen?.isEmpty != true
        input.hooks.observed = Set(selection.hooks)
        let output = try model.forward(input, on: backend)
        var starts: [Int] = []
        var rows = 0
        for part in parts {
            starts.append(rows)
            rows += part.tokens.count
        }
        // By part first, so that a document's entries stay in the order of its tokens.
        var readers = output.groups.filter { chosen?[$0.group] != nil || chosen == nil }
            .map { (group: $0.group, reader: $0.reader(), chosen: chosen?[$0.group]) }
        for (place, part) in parts.enumerated() {
            var list = ScoreList()
            for token in part.tokens.indices {
                for index in readers.indices {
                    let (group, chosen) = (readers[index].group, readers[index].chosen)
                    readers[index].reader.visit(starts[place] + token) { unit, score in
                        if chosen?.contains(unit) ?? true {
                            list.append(token: token, group: group, unit: unit, score: score)
                        }
                    }
                }
            }
            scores[part.document]?.append(list, after: read[part.document] ?? 0)
            read[part.document, default: 0] += part.tokens.count
        }
        for point in selection.hooks {
            let value = try output.observed(point.kind, point.layer)
            let all = value.floats()
            let shape = Array(value.shape.dropFirst())
            let width = shape.reduce(1, *)
            for (place, part) in parts.enumerated() {
                let own = all[(starts[place] * width)..<((starts[place] + part.tokens.count) * width)]
                let (padded, rowShape) = padded(Array(own), shape, point)
                values[part.document]?[point, default: ([], rowShape)].values += padded
            }
        }
    }

    /// Attention patterns have as many columns as the longest sequence of a batch; here they have those of a window.
    private func padded(_ values: [Float], _ shape: [Int], _ point: HookPoint) -> ([Float], [Int]) {
        guard point.kind == .pattern, let keys = shape.last else { return (values, shape) }
        let padding = [Float](repeating: 0, count: window - keys)
        let padded = stride(from: 0, to: values.count, by: keys).flatMap {
            values[$0..<($0 + keys)] + padding
        }
        return (padded, shape.dropLast() + [window])
    }
}
