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
        try require(model)
        let count = dossier.activations.count + dossier.samples.reduce(0) { $0 + $1.activations.count }
        var done = 0
        func measure(_ activation: inout ExpertDossier.Activation, _ expert: UnitID) throws -> Bool {
            activation.scores = try contextScores(of: activation, expert, model, backend)
            done += 1
            return progress(done, count)
        }
        for place in dossier.activations.indices {
            guard try measure(&dossier.activations[place], dossier.expert) else { return }
        }
        for band in dossier.samples.indices {
            for place in dossier.samples[band].activations.indices {
                guard try measure(&dossier.samples[band].activations[place], dossier.expert) else { return }
            }
        }
    }

    private func contextScores(
        of activation: ExpertDossier.Activation, _ expert: UnitID, _ model: MonetLanguageModel,
        _ backend: any Backend
    ) throws -> [Double] {
        let first = activation.position - activation.place
        var scores = Array(repeating: 0.0, count: activation.pieces.count)
        // The index was counted in windows: a context that crosses the border of two lies in both.
        var start = first / window * window
        while start < first + scores.count {
            let end = min(start + window, first + scores.count)
            let ids = try read { database in
                try tokens(database, document: activation.document, from: start, count: end - start)
            }
            var input = ForwardInput([ids])
            input.keepsUnits = true
            for group in try model.forward(input, on: backend).groups where group.group == expert.group {
                var reader = group.reader()
                for row in ids.indices where start + row >= first {
                    reader.visit(row) { unit, score in
                        if unit == expert.index { scores[start + row - first] = Double(score) }
                    }
                }
            }
            start += window
        }
        return scores
    }
}
