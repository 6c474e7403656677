import MonetCompute
import MonetModel

/// Mean absolute activations of a dense Llama's hidden units by label: what experts are compared with.
public struct NeuronStatistics: Sendable {
    /// The labels, of the documents' first set.
    public let labels: [String]
    /// Units of every layer.
    public let units: Int
    /// Mean |activation| by layer, unit and label, `[layer][unit · labels + label]`.
    public let means: [[Double]]

    /// Reads labelled documents.
    ///
    /// - Throws: `InsightError.noLabels`, `ModelError`.
    public init(
        of documents: LabelledDocuments, model: MonetLanguageModel, backend: any Backend,
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        guard let set = documents.labelSets.first, set.labels.count > 1 else {
            throw InsightError.noLabels(origin: documents.origin)
        }
        let c = model.configuration
        guard c.feedForward == .dense else {
            throw InsightError.invalidSetting(
                name: "the model to compare with", found: "a Monet", expected: "a dense Llama")
        }
        let (labelCount, width) = (set.labels.count, c.intermediateSize)
        var sums = Array(repeating: Array(repeating: 0.0, count: width * labelCount), count: c.layerCount)
        var counts = Array(repeating: 0, count: labelCount)
        var hidden: [Tensor] = []
        let reader = DocumentReader(model: model, backend: backend) { context in
            hidden.removeAll(keepingCapacity: true)
            context.observesNeurons = { _, values in hidden.append(values) }
        }
        var tokens = 0
        try reader.forEachBatch(of: documents) { batch in
            var row = 0
            for piece in batch.pieces {
                let label = documents.labels(piece.document)[0]
                if label >= 0 {
                    counts[label] += piece.tokens.count
                    for (layer, values) in hidden.enumerated() {
                        for token in row..<(row + piece.tokens.count) {
                            let line = values.pointer + token * width
                            for unit in 0..<width {
                                sums[layer][unit * labelCount + label] += Double(abs(line[unit]))
                            }
                        }
                    }
                }
                row += piece.tokens.count
            }
            tokens += batch.tokenCount
            return progress(tokens)
        }
        labels = set.labels
        units = width
        means = sums.map { layer in
            layer.enumerated().map { $1 / Double(max(1, counts[$0 % labelCount])) }
        }
    }

    /// The units of each layer whose mean on a label is at least `ratio` times that on the next.
    public func specialists(of label: Int, ratio: Double) -> [Int: [Int]] {
        ranked(label: label).reduce(into: [:]) { result, entry in
            if entry.ratio >= ratio { result[entry.layer, default: []].append(entry.unit) }
        }
    }

    /// The `count` units of largest ratio for a label.
    public func strongest(of label: Int, count: Int) -> [Int: [Int]] {
        ranked(label: label).sorted { ($1.ratio, $0.layer, $0.unit) < ($0.ratio, $1.layer, $1.unit) }
            .prefix(count).reduce(into: [:]) { $0[$1.layer, default: []].append($1.unit) }
    }

    /// Units that are strongest on a label, with the ratio to the next.
    private func ranked(label: Int) -> [(layer: Int, unit: Int, ratio: Double)] {
        means.enumerated().flatMap { layer, values in
            (0..<units).compactMap { unit in
                let own = Array(values[(unit * labels.count)..<((unit + 1) * labels.count)])
                guard let specialty = LabelSpecialty(means: own), specialty.label == label else { return nil }
                return (layer, unit, specialty.ratio)
            }
        }
    }
}
