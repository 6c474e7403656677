import Foundation
import MonetFoundation
import MonetText

/// How a metric's values of all documents become one.
enum TaskAggregation: String, Sendable, CaseIterable {
    case mean, nanmean, median, perplexity
    case weightedPerplexity = "weighted_perplexity"
    case bitsPerByte = "bits_per_byte"
    case f1
    case matthewsCorrelation = "matthews_corrcoef"
    case brierScore = "brier_score"
    case bypass
}

/// The metrics that task files name.
enum TaskMetric {
    static func names(of type: TaskDefinition.OutputType) -> [String] {
        switch type {
        case .multipleChoice:
            [
                "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "f1", "mcc", "exact_match", "brier_score",
                "likelihood",
                "bypass",
            ]
        case .logLikelihood: ["perplexity", "acc", "bypass"]
        case .rollingLogLikelihood: ["word_perplexity", "byte_perplexity", "bits_per_byte", "bypass"]
        case .generation: ["exact_match", "bypass"]
        }
    }

    static func defaults(of type: TaskDefinition.OutputType) -> [String] {
        switch type {
        case .multipleChoice: ["acc", "acc_norm"]
        case .logLikelihood: ["perplexity", "acc"]
        case .rollingLogLikelihood: ["word_perplexity", "byte_perplexity", "bits_per_byte"]
        case .generation: ["exact_match"]
        }
    }

    static func aggregation(of name: String) -> TaskAggregation {
        switch name {
        case "perplexity": .perplexity
        case "word_perplexity", "byte_perplexity": .weightedPerplexity
        case "bits_per_byte": .bitsPerByte
        case "f1": .f1
        case "mcc": .matthewsCorrelation
        case "brier_score": .brierScore
        case "bypass": .bypass
        default: .mean
        }
    }

    static func isHigherBetter(_ name: String) -> Bool {
        !["perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "brier_score"].contains(name)
    }
}

/// What a metric says of one document.
package enum MetricValue: Sendable, Equatable {
    case number(Double)
    /// A sum of log-likelihoods and what it is divided by.
    case weighted(Double, Double)
    /// The right label and the predicted one.
    case labels(Int, Int)
    /// The right label and the probabilities of all.
    case probabilities(Int, [Double])

    /// The value in records, as Python writes it.
    package var json: JSONValue {
        switch self {
        case .number(let value): .number(value)
        case .weighted(let sum, let weight): .array([.number(sum), .number(weight)])
        case .labels(let gold, let predicted): .array([.integer(gold), .integer(predicted)])
        case .probabilities(let gold, let values):
            .array([.integer(gold), .array(values.map { .number($0) })])
        }
    }
}

extension TaskAggregation {
    /// The value over all documents.
    func value(of items: [MetricValue]) -> Double {
        let numbers = items.compactMap { if case .number(let value) = $0 { value } else { nil } }
        switch self {
        case .mean: return Self.mean(numbers)
        case .nanmean: return Self.mean(numbers.filter { !$0.isNaN })
        case .median: return numbers.isEmpty ? .nan : numbers.sorted()[numbers.count / 2]
        case .perplexity: return exp(-Self.mean(numbers))
        case .weightedPerplexity: return exp(-Self.weightedMean(items))
        case .bitsPerByte: return -Self.weightedMean(items) / log(2)
        case .f1: return Self.f1(Self.labels(items))
        case .matthewsCorrelation: return Self.matthewsCorrelation(Self.labels(items))
        case .brierScore: return Self.brierScore(items)
        case .bypass: return 999
        }
    }

    /// The standard error of the value; nil where there is none.
    ///
    /// Those without a formula are estimated from resampled documents, drawn as the harness draws them.
    func standardError(of items: [MetricValue], resamples: Int) -> Double? {
        guard items.count > 1, resamples > 0 else { return nil }
        switch self {
        case .mean:
            let numbers = items.compactMap { if case .number(let value) = $0 { value } else { nil } }
            return Self.deviation(numbers) / Double(numbers.count).squareRoot()
        case .median, .matthewsCorrelation, .f1, .perplexity, .nanmean:
            let chunk = min(1000, resamples)
            let values = (0..<(resamples / chunk)).flatMap { seed in
                var random = PythonRandom(seed: seed)
                return (0..<chunk).map { _ in
                    value(of: random.choices(items.count, of: items.count).map { items[$0] })
                }
            }
            return Self.deviation(values)
        case .weightedPerplexity, .bitsPerByte, .brierScore, .bypass: return nil
        }
    }

    private static func mean(_ values: [Double]) -> Double {
        values.isEmpty ? .nan : values.reduce(0, +) / Double(values.count)
    }

    private static func deviation(_ values: [Double]) -> Double {
        let mean = mean(values)
        return (values.reduce(0) { $0 + ($1 - mean) * ($1 - mean) } / Double(values.count - 1)).squareRoot()
    }

    private static func weightedMean(_ items: [MetricValue]) -> Double {
        var (sum, weight) = (0.0, 0.0)
        for case .weighted(let value, let count) in items { (sum, weight) = (sum + value, weight + count) }
        return sum / weight
    }

    private static func labels(_ items: [MetricValue]) -> [(gold: Int, predicted: Int)] {
        items.compactMap { if case .labels(let gold, let predicted) = $0 { (gold, predicted) } else { nil } }
    }

    /// F1 of the label 1.
    private static func f1(_ pairs: [(gold: Int, predicted: Int)]) -> Double {
        let hits = Double(pairs.count { $0.gold == 1 && $0.predicted == 1 })
        let named = Double(pairs.count { $0.gold == 1 } + pairs.count { $0.predicted == 1 })
        return named == 0 ? 0 : 2 * hits / named
    }

    /// The correlation of Matthews for any number of labels (Gorodkin 2004).
    private static func matthewsCorrelation(_ pairs: [(gold: Int, predicted: Int)]) -> Double {
        let labels = Set(pairs.flatMap { [$0.gold, $0.predicted] })
        let (count, hits) = (Double(pairs.count), Double(pairs.count { $0.gold == $0.predicted }))
        var (product, golds, guesses) = (0.0, 0.0, 0.0)
        for label in labels {
            let gold = Double(pairs.count { $0.gold == label })
            let predicted = Double(pairs.count { $0.predicted == label })
            product += gold * predicted
            golds += gold * gold
            guesses += predicted * predicted
        }
        let scale = ((count * count - guesses) * (count * count - golds)).squareRoot()
        return scale == 0 ? 0 : (hits * count - product) / scale
    }

    private static func brierScore(_ items: [MetricValue]) -> Double {
        mean(
            items.compactMap {
                guard case .probabilities(let gold, let values) = $0 else { return nil }
                return values.enumerated().reduce(0) {
                    let difference = $1.element - ($1.offset == gold ? 1 : 0)
                    return $0 + difference * difference
                }
            })
    }
}

/// What exact matches overlook.
struct ExactMatchOptions: Sendable, Equatable {
    var ignoresCase = false
    var ignoresPunctuation = false
    var ignoresNumbers = false
    /// Regular expressions whose matches are removed first.
    var ignoredPatterns: [String] = []

    /// Whether a text is the expected one.
    ///
    /// - Throws: `PythonExpression.Failure`.
    func matches(_ text: String, _ expected: String) throws -> Bool {
        PythonText.equal(try reduced(text), try reduced(expected))
    }

    private func reduced(_ text: String) throws -> String {
        var text = text
        for pattern in ignoredPatterns { text = try PythonExpression(pattern).replacing(in: text, with: "") }
        if ignoresCase { text = PythonText.lower(text) }
        var scalars = text.unicodeScalars
        if ignoresPunctuation {
            scalars.removeAll {
                $0.isASCII && "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~".unicodeScalars.contains($0)
            }
        }
        if ignoresNumbers { scalars.removeAll { ("0"..."9").contains($0) } }
        return String(scalars)
    }
}
