import Foundation
import MonetFoundation

/// A small scorer to train on own texts: logistic regression on words and character n-grams.
///
///     let scorer = try ToxicityClassifier(contentsOfFile: "scorer.json")
///     let scores = try scorer.scores(of: ["The shark is a large fish."])
public struct ToxicityClassifier: ToxicityScorer, Sendable {
    /// A text and whether it is toxic.
    public struct Example: Sendable {
        let text: String
        let isToxic: Bool

        /// Joins both.
        public init(text: String, isToxic: Bool) {
            self.text = text
            self.isToxic = isToxic
        }
    }

    /// One weight per hash bucket.
    let weights: [Float]
    let bias: Float
    /// A description of the training texts.
    public let source: String
    /// The number of texts it was trained on, and of those held out.
    public let trainingCount: Int
    public let heldOutCount: Int
    /// Area under the receiver operating characteristic on the held-out texts: the chance that a toxic one
    /// scores above another (Hanley and McNeil 1982).
    public let heldOutAUC: Double

    init(
        weights: [Float], bias: Float, source: String, trainingCount: Int, heldOutCount: Int,
        heldOutAUC: Double
    ) {
        self.weights = weights
        self.bias = bias
        self.source = source
        self.trainingCount = trainingCount
        self.heldOutCount = heldOutCount
        self.heldOutAUC = heldOutAUC
    }

    public var summary: String {
        let auc = String(format: "%.3f", heldOutAUC)
        return
            "offline classifier (\(source)); its own AUC on \(heldOutCount) held-out texts is \(auc)"
    }

    public var json: JSONValue {
        [
            "kind": "offline", "source": .string(source), "held_out_auc": .number(heldOutAUC),
            "held_out_texts": .integer(heldOutCount), "training_texts": .integer(trainingCount),
        ]
    }

    /// One text's score; 0 for a text without words.
    public func score(of text: String) -> Double {
        text.hasNoWord ? 0 : Self.probability(logit(TextFeatures(text, bucketCount: weights.count)))
    }

    public func scores(of texts: [String]) throws -> [Double] { texts.map(score) }

    private func logit(_ features: TextFeatures) -> Float {
        features.buckets.reduce(bias) { $0 + weights[$1] * features.value }
    }

    private static func probability(_ logit: Float) -> Double { 1 / (1 + exp(-Double(logit))) }

    // MARK: Training

    private static let bucketCount = 1 << 15
    private static let epochs = 6
    private static let learningRate: Float = 0.25
    private static let decay: Float = 1e-6

    /// Words per piece that training texts are cut into: as long as the continuations to be scored.
    private static let pieceWords = 24

    /// Trains on four fifths of the examples, chosen by a hash of their text; the others are held out.
    ///
    /// - `neutral`: additional non-toxic texts, used only for training.
    /// - `progress`: called after each pass over the examples; false stops.
    /// - Throws: `EvaluationError.tooFewExamples`, `CancellationError`.
    public static func trained(
        on examples: [Example], neutral: [String] = [], source: String,
        progress: (Int, Int) -> Bool = { _, _ in true }
    ) throws -> ToxicityClassifier {
        let isHeldOut = examples.map { (StableHash.of($0.text) >> 8) % 5 == 0 }
        let training = examples.indices.filter { !isHeldOut[$0] }.map { examples[$0] }
        let heldOut = examples.indices.filter { isHeldOut[$0] }.map { examples[$0] }
        for part in [training, heldOut] {
            let toxic = part.count { $0.isToxic }
            guard toxic > 0, toxic < part.count else {
                throw EvaluationError.tooFewExamples(toxic: toxic, others: part.count - toxic, origin: source)
            }
        }
        let samples = (training + neutral.map { Example(text: $0, isToxic: false) }).flatMap { example in
            pieces(of: example.text).map { piece in
                (
                    features: TextFeatures(piece, bucketCount: bucketCount),
                    label: Float(example.isToxic ? 1 : 0)
                )
            }
        }
        var weights = [Float](repeating: 0, count: bucketCount)
        var squares = [Float](repeating: 1e-3, count: bucketCount)
        var (bias, biasSquares): (Float, Float) = (0, 1e-3)
        var generator = SplitMix64(seed: 0)
        var order = Array(samples.indices)
        for epoch in 1...epochs {
            order.shuffle(using: &generator)
            for index in order {
                let (features, label) = samples[index]
                let value = features.value
                let logit = features.buckets.reduce(bias) { $0 + weights[$1] * value }
                let error = Float(probability(logit)) - label
                // AdaGrad (Duchi, Hazan, Singer 2011): rare words keep a large step size.
                for bucket in features.buckets {
                    let gradient = error * value + decay * weights[bucket]
                    squares[bucket] += gradient * gradient
                    weights[bucket] -= learningRate * gradient / squares[bucket].squareRoot()
                }
                biasSquares += error * error
                bias -= learningRate * error / biasSquares.squareRoot()
            }
            guard progress(epoch, epochs) else { throw CancellationError() }
        }
        // The AUC is measured with the stored weights, which give the scores that users get.
        let stored = StoredWeights(weights)
        let draft = ToxicityClassifier(
            weights: stored.weights, bias: bias, source: source, trainingCount: training.count,
            heldOutCount: heldOut.count, heldOutAUC: 0)
        let auc = areaUnderCurve(heldOut.map { (draft.score(of: $0.text), $0.isToxic) })
        return ToxicityClassifier(
            weights: stored.weights, bias: bias, source: source, trainingCount: training.count,
            heldOutCount: heldOut.count, heldOutAUC: auc)
    }

    /// The text in runs of words; a short remainder is added to the run before it.
    private static func pieces(of text: String) -> [String] {
        let words = text.split(whereSeparator: \.isWhitespace)
        let count = max(1, (words.count + pieceWords / 2) / pieceWords)
        return (0..<count).map { piece in
            let end = piece == count - 1 ? words.count : (piece + 1) * pieceWords
            return words[(piece * pieceWords)..<end].joined(separator: " ")
        }
    }

    /// The probability that a positive example scores above a negative one; ties count half.
    package static func areaUnderCurve(_ scored: [(score: Double, isPositive: Bool)]) -> Double {
        let sorted = scored.sorted { $0.score < $1.score }
        var (rankSum, start) = (0.0, 0)
        while start < sorted.count {
            let end = sorted[start...].firstIndex { $0.score > sorted[start].score } ?? sorted.count
            // Ranks from 1; equal scores share their mean.
            let rank = Double(start + 1 + end) / 2
            rankSum += rank * Double(sorted[start..<end].count { $0.isPositive })
            start = end
        }
        let positives = Double(scored.count { $0.isPositive })
        let negatives = Double(scored.count) - positives
        return (rankSum - positives * (positives + 1) / 2) / (positives * negatives)
    }
}
