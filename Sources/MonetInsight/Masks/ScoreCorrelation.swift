import MonetCompute
import MonetFoundation
import MonetModel

/// Pearson's correlation of every unit's score with a number in the data, such as toxicity.
public struct ScoreCorrelation: Sendable {
    /// What one observation is.
    public enum Level: String, Sendable, CaseIterable {
        /// A token's score, and its number or its document's.
        case token
        /// The mean score over a document, and the document's number or the mean of its tokens' numbers.
        case document
    }

    /// The correlations by group and unit; 0 where the score or the number does not vary.
    public let values: [[Double]]
    /// The number of observations.
    public let count: Int

    /// Reads documents that carry numbers.
    ///
    /// - `progress`: called with the tokens so far; false stops.
    /// - Throws: `ModelError`.
    public init(
        of documents: LabelledDocuments, level: Level, model: MonetLanguageModel,
        backend: any Backend = CPUBackend(),
        progress: (Int) -> Bool = { _ in true }
    ) throws {
        let units = model.units
        try MemoryLimits.require(
            MemoryLimits.product(units.count, 32),
            for: "the correlations of \(units.count.grouped) \(units.kind.rawValue)")
        var moments = (0..<units.groups).map { _ in CorrelationMoments(units: units.unitsPerGroup) }
        var numbers = NumberMoments()
        var pending = DocumentMeans(groups: moments.count)
        let reader = DocumentReader(model: model, backend: backend)
        var tokens = 0
        func close() {
            guard let number = pending.number else { return }
            numbers.add(number)
            for (group, means) in pending.means.enumerated() {
                for (index, mean) in means { moments[group].add(mean, index: index, number: number) }
            }
        }
        try reader.forEachBatch(of: documents) { batch in
            var readers = batch.output.groups.map { (group: $0.group, scores: $0.reader()) }
            var row = 0
            for piece in batch.pieces {
                if level == .document, pending.document != piece.document {
                    close()
                    pending = DocumentMeans(groups: moments.count, document: piece.document)
                }
                for offset in piece.tokens.indices {
                    let number = documents.number(piece.document, token: piece.start + offset) ?? 0
                    if level == .token { numbers.add(number) }
                    pending.add(number)
                    for place in readers.indices {
                        let group = readers[place].group
                        readers[place].scores.visit(row) { index, score in
                            switch level {
                            case .token: moments[group].add(Double(score), index: index, number: number)
                            case .document: pending.sums[group][index, default: 0] += Double(score)
                            }
                        }
                    }
                    row += 1
                }
                tokens += piece.tokens.count
            }
            return progress(tokens)
        }
        if level == .document { close() }
        count = numbers.count
        values = moments.map { $0.correlations(with: numbers) }
    }

    /// Units whose correlation is above a threshold.
    public func units(above threshold: Double) -> [UnitID] {
        values.enumerated().flatMap { group, values in
            values.indices.filter { values[$0] > threshold }.map { UnitID(group: group, index: $0) }
        }
    }
}

/// Sums of the numbers over all observations.
private struct NumberMoments {
    var count = 0
    var sum = 0.0
    var squares = 0.0

    mutating func add(_ number: Double) {
        count += 1
        sum += number
        squares += number * number
    }
}

/// Sums over the observations in which an expert fires; in others its score is 0 and adds nothing.
private struct CorrelationMoments {
    private var sums: [Double]
    private var squares: [Double]
    private var products: [Double]

    init(units: Int) {
        sums = Array(repeating: 0, count: units)
        squares = sums
        products = sums
    }

    mutating func add(_ score: Double, index: Int, number: Double) {
        sums[index] += score
        squares[index] += score * score
        products[index] += score * number
    }

    func correlations(with numbers: NumberMoments) -> [Double] {
        let n = Double(numbers.count)
        let spread = n * numbers.squares - numbers.sum * numbers.sum
        return sums.indices.map { index in
            let own = n * squares[index] - sums[index] * sums[index]
            // These are differences of large sums: below the rounding error there is no variation.
            guard spread > 1e-12 * n * numbers.squares, own > 1e-12 * n * squares[index] else { return 0 }
            return (n * products[index] - sums[index] * numbers.sum) / (own * spread).squareRoot()
        }
    }
}

/// One document's scores and numbers while it is read.
private struct DocumentMeans {
    var document: Int?
    var sums: [[Int: Double]]
    private var tokens = 0
    private var numberSum = 0.0

    init(groups: Int, document: Int? = nil) {
        self.document = document
        sums = Array(repeating: [:], count: groups)
    }

    mutating func add(_ number: Double) {
        tokens += 1
        numberSum += number
    }

    var number: Double? { document == nil || tokens == 0 ? nil : numberSum / Double(tokens) }

    var means: [[Int: Double]] { sums.map { $0.mapValues { $0 / Double(tokens) } } }
}
