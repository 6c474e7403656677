import GRDB
import MonetCompute
import MonetModel

extension ExpertIndex {
    /// Fills a dossier's contexts with the expert's score on each of their tokens, by running the model over
    /// the windows of the documents in which they lie.
    ///
    /// - `progress`: called with the contexts done and their number; false stops, with the rest left unmeasured.
    /// - Throws: `InsightError.foreignIndex` for another model than the index was built from.
    public func measureContexts(
        of dossier: inout ExpertDossier, model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        progress: (_ done: Int, _ count: Int) -> Bool = { _, _ in true }
    ) throws {
        var dossiers = [dossier]
        try measureContexts(of: &dossiers, model: model, backend: backend, progress: progress)
        dossier = dossiers[0]
    }

    /// The same for several dossiers, with one pass over each window that any of them needs.
    public func measureContexts(
        of dossiers: inout [ExpertDossier], model: MonetLanguageModel, backend: any Backend = CPUBackend(),
        progress: (_ done: Int, _ count: Int) -> Bool = { _, _ in true }
    ) throws {
        try require(model)
        var measurement = ContextMeasurement(dossiers, window: window)
        let batchTokens = 512
        var next = 0
        while next < measurement.windows.count {
            guard progress(measurement.done, measurement.count) else { break }
            var batch: [ContextMeasurement.Window] = []
            var tokens: [[Int32]] = []
            var count = 0
            while next < measurement.windows.count {
                let window = measurement.windows[next]
                let length = window.end - window.start
                guard batch.isEmpty || count + length <= batchTokens else { break }
                tokens.append(
                    try read { database in
                        try self.tokens(
                            database, document: window.document, from: window.start, count: length)
                    })
                batch.append(window)
                count += length
                next += 1
            }
            var input = ForwardInput(tokens)
            input.keepsUnits = true
            measurement.add(batch, tokens, try model.forward(input, on: backend).groups)
        }
        _ = progress(measurement.done, measurement.count)
        measurement.fill(&dossiers)
    }
}

/// The windows that contexts need, and the scores found in them.
///
/// The index was counted in windows: a context that crosses the border of two lies in both.
private struct ContextMeasurement {
    /// Part of a document, up to the last token that a context needs.
    struct Window {
        let document: Int
        let start: Int
        var end: Int
        /// Contexts that need it.
        var contexts: [Int] = []
    }

    private struct Context {
        let expert: UnitID
        /// Position of its first token in the document.
        let first: Int
        var scores: [Double]
        /// Windows that have not run.
        var left = 0
    }

    private(set) var windows: [Window] = []
    private var contexts: [Context] = []

    var count: Int { contexts.count }
    private(set) var done = 0

    init(_ dossiers: [ExpertDossier], window: Int) {
        struct Place: Hashable, Comparable {
            let document: Int
            let start: Int
            static func < (a: Place, b: Place) -> Bool { (a.document, a.start) < (b.document, b.start) }
        }
        var found: [Place: Window] = [:]
        for dossier in dossiers {
            for activation in dossier.activations + dossier.samples.flatMap(\.activations) {
                let first = activation.position - activation.place
                let end = first + activation.pieces.count
                let number = contexts.count
                contexts.append(
                    Context(
                        expert: dossier.expert, first: first,
                        scores: Array(repeating: 0, count: activation.pieces.count)))
                for start in stride(from: first / window * window, to: end, by: window) {
                    let place = Place(document: activation.document, start: start)
                    var own = found[place] ?? Window(document: activation.document, start: start, end: start)
                    own.end = max(own.end, min(end, start + window))
                    own.contexts.append(number)
                    found[place] = own
                    contexts[number].left += 1
                }
            }
        }
        windows = found.sorted { $0.key < $1.key }.map(\.value)
    }

    mutating func add(_ batch: [Window], _ tokens: [[Int32]], _ groups: [any UnitActivations]) {
        for group in groups {
            var reader = group.reader()
            var row = 0
            for (window, ids) in zip(batch, tokens) {
                var own: [Int: [Int]] = [:]
                for number in window.contexts where contexts[number].expert.group == group.group {
                    own[contexts[number].expert.index, default: []].append(number)
                }
                if !own.isEmpty {
                    for place in ids.indices {
                        reader.visit(row + place) { unit, score in
                            for number in own[unit] ?? [] {
                                let column = window.start + place - contexts[number].first
                                if contexts[number].scores.indices.contains(column) {
                                    contexts[number].scores[column] = Double(score)
                                }
                            }
                        }
                    }
                }
                row += ids.count
            }
        }
        for number in batch.flatMap(\.contexts) {
            contexts[number].left -= 1
            if contexts[number].left == 0 { done += 1 }
        }
    }

    /// Stores the scores of the contexts whose windows have all run.
    func fill(_ dossiers: inout [ExpertDossier]) {
        var next = 0
        func fill(_ activation: inout ExpertDossier.Activation) {
            if contexts[next].left == 0 { activation.scores = contexts[next].scores }
            next += 1
        }
        for place in dossiers.indices {
            for index in dossiers[place].activations.indices { fill(&dossiers[place].activations[index]) }
            for band in dossiers[place].samples.indices {
                for index in dossiers[place].samples[band].activations.indices {
                    fill(&dossiers[place].samples[band].activations[index])
                }
            }
        }
    }
}
